package lock

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/term"
)

// meter shows how far a fetch is: on a terminal one line that is rewritten, elsewhere (a log, a pipe, TERM=dumb) a line every few
// seconds.
type meter struct {
	w        io.Writer
	terminal *os.File // nil elsewhere
	files    int
	total    int64        // bytes
	done     atomic.Int64 // bytes that are there
	received atomic.Int64 // bytes that came in this run
	filesOK  atomic.Int64
	start    time.Time
	stop     chan struct{}
	stopped  chan struct{}
}

func newMeter(w io.Writer, files int, total int64) *meter {
	m := &meter{w: w, files: files, total: total, start: time.Now(), stop: make(chan struct{}), stopped: make(chan struct{})}
	every := 5 * time.Second
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb" {
		m.terminal, every = f, 200*time.Millisecond
	} else {
		fmt.Fprintf(w, "fetch %d packages, %s\n", files, mib(total))
	}
	go m.run(every)
	return m
}

// Write counts bytes that have arrived.
func (m *meter) Write(p []byte) (int, error) {
	m.done.Add(int64(len(p)))
	m.received.Add(int64(len(p)))
	return len(p), nil
}

// add counts bytes that were there already, or are lost again.
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
			if m.terminal != nil {
				fmt.Fprintln(m.w)
			}
			return
		}
	}
}

func (m *meter) print() {
	s := snapshot{files: m.files, filesOK: m.filesOK.Load(), total: m.total, done: m.done.Load(),
		received: m.received.Load(), elapsed: time.Since(m.start)}
	if m.terminal == nil {
		fmt.Fprintln(m.w, s.text())
		return
	}
	width, _, err := term.GetSize(int(m.terminal.Fd())) // asked each time: windows change
	if err != nil || width <= 0 {
		width = 80
	}
	fmt.Fprintf(m.w, "\r\x1b[K%s", s.line(width))
}

// close prints the final state.
func (m *meter) close() {
	close(m.stop)
	<-m.stopped
}

// snapshot is the state of a fetch at one moment.
type snapshot struct {
	files                 int
	filesOK               int64
	total, done, received int64 // bytes
	elapsed               time.Duration
}

// rate is in bytes a second; what an earlier run has fetched does not count.
func (s snapshot) rate() float64 { return float64(s.received) / max(s.elapsed.Seconds(), 0.001) }

func (s snapshot) text() string {
	return fmt.Sprintf("fetched %d of %d packages, %s of %s, %s", s.filesOK, s.files, mib(s.done), mib(s.total), s.speed())
}

// speed is the rate and, once it means something, the time left.
func (s snapshot) speed() string {
	text := fmt.Sprintf("%.1f MiB/s", s.rate()/(1<<20))
	left := s.total - s.done
	if left <= 0 || s.received == 0 || s.elapsed < time.Second {
		return text
	}
	// A day is as good as never, and keeps a crawling mirror from overflowing a Duration.
	seconds := min(float64(left)/s.rate(), 24*3600)
	return fmt.Sprintf("%s, %s left", text, time.Duration(seconds*float64(time.Second)).Round(time.Second))
}

const (
	minBar = 8 // columns
	maxBar = 40
)

// line fits the state into the columns of a terminal and leaves the last one free: some terminals go on to the next line when it is
// written. What does not fit is left out, the least important first.
func (s snapshot) line(columns int) string {
	room := max(columns-1, 0)
	share := 1.0
	if s.total > 0 {
		share = min(max(float64(s.done)/float64(s.total), 0), 1)
	}
	percent := fmt.Sprintf("%3d%%", int(share*100))
	for _, text := range []string{
		fmt.Sprintf(" %d of %d packages, %s of %s, %s", s.filesOK, s.files, mib(s.done), mib(s.total), s.speed()),
		fmt.Sprintf(" %s of %s, %s", mib(s.done), mib(s.total), s.speed()),
		fmt.Sprintf(" %s", s.speed()),
		fmt.Sprintf(" %.1f MiB/s", s.rate()/(1<<20)),
	} {
		if bar := min(room-len(percent)-len(text)-3, maxBar); bar >= minBar {
			full := int(share * float64(bar))
			return percent + " [" + strings.Repeat("#", full) + strings.Repeat("-", bar-full) + "]" + text
		}
	}
	return percent[:min(len(percent), room)]
}
