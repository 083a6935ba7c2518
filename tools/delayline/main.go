// Delayline joins two TUN devices by a line with a delay, a rate and a queue in each direction. See README.md.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	delay := flag.Duration("delay", 10*time.Millisecond, "one way")
	rate := flag.Float64("rate", 1000, "Mbit/s each way")
	queue := flag.Float64("queue", 4, "MB that may wait each way")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: delayline [flags] DEVICE DEVICE")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() != 2 || *rate <= 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(flag.Arg(0), flag.Arg(1), *delay, *rate*1e6/8, *queue*1e6); err != nil {
		fmt.Fprintln(os.Stderr, "delayline:", err)
		os.Exit(1)
	}
}

// run carries packets until a signal asks for the end.
func run(near, far string, delay time.Duration, bytesPerSecond, queueBytes float64) error {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGINT, syscall.SIGTERM)
	a, err := openTun(near)
	if err != nil {
		return err
	}
	b, err := openTun(far)
	if err != nil {
		return err
	}
	there := &line{delay: delay, bytesPerSecond: bytesPerSecond, queueBytes: queueBytes}
	back := &line{delay: delay, bytesPerSecond: bytesPerSecond, queueBytes: queueBytes}
	failed := make(chan error, 2)
	go func() { failed <- there.carry(a, b) }()
	go func() { failed <- back.carry(b, a) }()
	fmt.Println("ready")
	select {
	case err = <-failed:
	case <-asked:
	}
	for _, l := range []*line{there, back} {
		fmt.Fprintf(os.Stderr, "delayline: %d packets, %d bytes, %d dropped\n", l.packets.Load(), l.bytes.Load(), l.dropped.Load())
	}
	return err
}
