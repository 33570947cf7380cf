package lock

import (
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/term"
)

// meter shows how far a fetch is: on a terminal one line that is rewritten, elsewhere a line every few seconds.
type meter struct {
	w        io.Writer
	terminal bool
	files    int
	total    int64 // bytes
	done     atomic.Int64
	filesOK  atomic.Int64
	start    time.Time
	stop     chan struct{}
	stopped  chan struct{}
}

func newMeter(w io.Writer, files int, total int64) *meter {
	m := &meter{w: w, files: files, total: total, start: time.Now(), stop: make(chan struct{}), stopped: make(chan struct{})}
	every := 5 * time.Second
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		m.terminal, every = true, 200*time.Millisecond
	} else {
		fmt.Fprintf(w, "fetch %d packages, %s\n", files, mib(total))
	}
	go m.run(every)
	return m
}

// Write counts bytes that have arrived.
func (m *meter) Write(p []byte) (int, error) {
	m.done.Add(int64(len(p)))
	return len(p), nil
}

func (m *meter) add(n int64) { m.done.Add(n) }
func (m *meter) fileDone()   { m.filesOK.Add(1) }

func (m *meter) run(every time.Duration) {
	defer close(m.stopped)
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			m.print()
		case <-m.stop:
			m.print()
			if m.terminal {
				fmt.Fprintln(m.w)
			}
			return
		}
	}
}

func (m *meter) print() {
	done := m.done.Load()
	rate := float64(done) / (1 << 20) / max(time.Since(m.start).Seconds(), 0.001)
	line := fmt.Sprintf("fetched %d of %d packages, %s of %s, %.1f MiB/s", m.filesOK.Load(), m.files, mib(done), mib(m.total), rate)
	if m.terminal {
		fmt.Fprintf(m.w, "\r\x1b[K%s", line)
		return
	}
	fmt.Fprintln(m.w, line)
}

// close prints the final state.
func (m *meter) close() {
	close(m.stop)
	<-m.stopped
}
