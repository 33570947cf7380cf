package image

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"
)

// A clock shows what is being done and how long it takes. On a terminal the line of the current step counts the seconds; elsewhere a
// step is one line when it begins, and one more if it took long.
type clock struct {
	w    io.Writer
	live bool

	mu   sync.Mutex // guards the terminal's line against the ticker
	name string
	from time.Time
	done chan struct{}
}

// long is from when on a step's time is worth a line of its own.
const long = 2 * time.Second

func newClock(w io.Writer) *clock {
	if w == nil {
		w = io.Discard
	}
	f, ok := w.(*os.File)
	return &clock{w: w, live: ok && term.IsTerminal(int(f.Fd()))}
}

// start ends the current step and begins the one called name.
func (c *clock) start(name string) {
	c.stop()
	c.name, c.from, c.done = name, time.Now(), make(chan struct{})
	if !c.live {
		fmt.Fprintf(c.w, "==> %s\n", name)
		return
	}
	fmt.Fprintf(c.w, "==> %s", name)
	go c.tick(c.done)
}

// tick shows the seconds of a step until done is closed.
func (c *clock) tick(done chan struct{}) {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-done:
			return
		case <-t.C:
		}
		c.mu.Lock()
		select {
		case <-done:
		default:
			fmt.Fprintf(c.w, "\r==> %s: %.0f s", c.name, time.Since(c.from).Seconds())
		}
		c.mu.Unlock()
	}
}

// stop ends the current step.
func (c *clock) stop() {
	if c.name == "" {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.done)
	took := time.Since(c.from)
	switch {
	case c.live:
		fmt.Fprintf(c.w, "\r==> %s: %.1f s\n", c.name, took.Seconds())
	case took > long:
		fmt.Fprintf(c.w, "    took %.1f s\n", took.Seconds())
	}
	c.name = ""
}
