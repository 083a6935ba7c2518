package main

import (
	"encoding/binary"
	"testing"
	"time"
)

func TestPacketsLeaveOneAfterTheOtherAndArriveLater(t *testing.T) {
	l := &line{delay: 10 * time.Millisecond, bytesPerSecond: 1e6, queueBytes: 1e6}
	start := time.Unix(0, 0)
	for number, want := range []time.Duration{11, 12, 13} {
		arrival, admitted := l.admit(start, 1000)
		if !admitted || arrival.Sub(start) != want*time.Millisecond {
			t.Errorf("packet %d: %v, %v", number, arrival.Sub(start), admitted)
		}
	}
	if arrival, _ := l.admit(start.Add(time.Second), 1000); arrival.Sub(start) != 1011*time.Millisecond {
		t.Errorf("after a pause: %v", arrival.Sub(start))
	}
}

func TestAFullQueueDropsUntilItHasDrained(t *testing.T) {
	l := &line{bytesPerSecond: 1e6, queueBytes: 1500}
	start := time.Unix(0, 0)
	for number, want := range []bool{true, true, false, false} {
		if _, admitted := l.admit(start, 1000); admitted != want {
			t.Errorf("packet %d: %v", number, admitted)
		}
	}
	if _, admitted := l.admit(start.Add(time.Millisecond), 1000); !admitted {
		t.Error("dropped although there was room again")
	}
}

func TestALargeSegmentTakesTheHeadersOfAllItsPackets(t *testing.T) {
	const headers, segment = 20 + 32, 1448
	large := make([]byte, vnetHeaderSize+headers+3*segment+1)
	binary.NativeEndian.PutUint16(large[4:], segment)
	binary.NativeEndian.PutUint16(large[6:], 20)
	large[vnetHeaderSize+20+12] = 32 / 4 << 4
	if got, want := wireSize(large), 4*headers+3*segment+1; got != want {
		t.Errorf("%d, not %d", got, want)
	}
	if got := wireSize(make([]byte, vnetHeaderSize+84)); got != 84 {
		t.Errorf("a plain packet: %d", got)
	}
}
