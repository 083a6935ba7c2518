package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"syscall"
	"unsafe"
)

// From linux/if_tun.h.
const (
	tunSetIff     = 0x400454ca
	tunSetOffload = 0x400454d0
	iffTun        = 0x0001
	iffNoPI       = 0x1000
	iffVnetHdr    = 0x4000
	offloadCsum   = 0x01
	offloadTSO4   = 0x02
)

// A packet as read from a device is a struct virtio_net_hdr (linux/virtio_net.h), then IP.
const (
	vnetHeaderSize = 10
	maxPacketSize  = vnetHeaderSize + 1<<16
)

// openTun makes the TUN device and lets TCP's large segments and missing checksums pass.
func openTun(name string) (*os.File, error) {
	fd, err := syscall.Open("/dev/net/tun", syscall.O_RDWR|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("/dev/net/tun: %w", err)
	}
	var request struct { // struct ifreq
		name  [16]byte
		flags uint16
		_     [22]byte
	}
	if copy(request.name[:15], name) < len(name) {
		return nil, fmt.Errorf("%s: a device's name has at most 15 bytes", name)
	}
	request.flags = iffTun | iffNoPI | iffVnetHdr
	if err := ioctl(fd, tunSetIff, uintptr(unsafe.Pointer(&request))); err != nil {
		return nil, fmt.Errorf("making %s: %w", name, err)
	}
	if err := ioctl(fd, tunSetOffload, offloadCsum|offloadTSO4); err != nil {
		return nil, fmt.Errorf("offload of %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

func ioctl(fd int, request, argument uintptr) error {
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), request, argument); errno != 0 {
		return errno
	}
	return nil
}

// wireSize returns the bytes that a packet takes on the line: a large TCP segment counts as those it will be cut into,
// each with its own headers.
func wireSize(packet []byte) int {
	ip := packet[vnetHeaderSize:]
	segment := int(binary.NativeEndian.Uint16(packet[4:]))
	tcp := int(binary.NativeEndian.Uint16(packet[6:])) // csum_start: where the TCP header begins
	if segment == 0 || tcp+13 > len(ip) {
		return len(ip)
	}
	headers := tcp + int(ip[tcp+12]>>4)*4
	segments := (len(ip) - headers + segment - 1) / segment
	return len(ip) + (segments-1)*headers
}
