package relay

import (
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestStart: signals to this process, whatever thread gets them, arrive at the pipe, while Go works.
func TestStart(t *testing.T) {
	fd, ok, err := Start([]unix.Signal{unix.SIGUSR1, unix.SIGUSR2, unix.SIGHUP})
	if err != nil {
		t.Fatal(err)
	}
	if !ok {
		t.Skip("not on this architecture")
	}
	stop := make(chan bool)
	for range 4 {
		go func() {
			for {
				select {
				case <-stop:
					return
				default:
					_ = make([]byte, 1<<16)
					runtime.Gosched()
				}
			}
		}()
	}
	var got, want []byte
	for n := range 300 {
		s := []unix.Signal{unix.SIGUSR1, unix.SIGUSR2, unix.SIGHUP}[n%3]
		if err := unix.Kill(os.Getpid(), s); err != nil {
			t.Fatal(err)
		}
		want = append(want, byte(s))
		for deadline := time.Now().Add(5 * time.Second); len(got) < len(want) && time.Now().Before(deadline); {
			b := make([]byte, 10)
			if n, err := unix.Read(fd, b); err == nil {
				got = append(got, b[:n]...)
			}
		}
	}
	close(stop)
	if !slices.Equal(got, want) {
		t.Errorf("%d bytes %v, want %d", len(got), got, len(want))
	}
}
