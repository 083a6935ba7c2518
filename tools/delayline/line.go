package main

import (
	"errors"
	"io"
	"sync/atomic"
	"time"
)

// A line is one direction: packets leave one after the other at its rate and arrive delay later.
type line struct {
	delay          time.Duration
	bytesPerSecond float64
	queueBytes     float64

	idleAt time.Time // when all that was admitted has left

	packets, bytes, dropped atomic.Int64
}

type packet struct {
	arrival time.Time
	data    []byte
}

// admit returns when a packet that comes now arrives; false where the queue has no room for it.
func (l *line) admit(now time.Time, size int) (time.Time, bool) {
	if l.idleAt.Before(now) {
		l.idleAt = now
	}
	if l.idleAt.Sub(now).Seconds()*l.bytesPerSecond > l.queueBytes {
		return time.Time{}, false
	}
	l.idleAt = l.idleAt.Add(time.Duration(float64(size) / l.bytesPerSecond * float64(time.Second)))
	return l.idleAt.Add(l.delay), true
}

// carry moves packets until reading fails.
func (l *line) carry(from io.Reader, to io.Writer) error {
	flying := make(chan packet, 1<<16) // more than queue and delay hold; if not, the reader waits
	defer close(flying)
	go deliver(flying, to)
	buffer := make([]byte, maxPacketSize)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return err
		}
		if n <= vnetHeaderSize {
			return errors.New("a packet without a header of virtio")
		}
		arrival, admitted := l.admit(time.Now(), wireSize(buffer[:n]))
		if !admitted {
			l.dropped.Add(1)
			continue
		}
		l.packets.Add(1)
		l.bytes.Add(int64(n - vnetHeaderSize))
		flying <- packet{arrival, append([]byte(nil), buffer[:n]...)}
	}
}

// deliver hands packets over when they arrive. What a device refuses (it is down) is lost, as on any line.
func deliver(flying <-chan packet, to io.Writer) {
	for p := range flying {
		time.Sleep(time.Until(p.arrival))
		_, _ = to.Write(p.data)
	}
}
