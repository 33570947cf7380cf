package demo

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/proa-os/proa/qemu-tests/vm"
)

// A teller prints the story: a line for each finished step and, on a terminal, one that changes while something works.
type teller struct {
	out   io.Writer
	live  bool
	width int

	mu      sync.Mutex
	doing   string
	since   time.Time
	machine *vm.Machine
	last    string // what the builder said last
}

func newTeller(out *os.File) *teller {
	t := &teller{out: out, live: term.IsTerminal(int(out.Fd())), width: 100}
	if w, _, err := term.GetSize(int(out.Fd())); err == nil && w > 20 {
		t.width = w
	}
	return t
}

// chapter prints a heading.
func (t *teller) chapter(format string, a ...any) {
	fmt.Fprintf(t.out, "\n%s\n", fmt.Sprintf(format, a...))
}

// step runs do and prints what it returns behind the seconds it took.
func (t *teller) step(doing string, do func() (string, error)) error {
	t.mu.Lock()
	t.doing, t.since, t.last = doing, time.Now(), ""
	t.mu.Unlock()
	stop := t.animate()
	told, err := do()
	stop()
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	lines := strings.Split(strings.TrimSpace(told), "\n")
	fmt.Fprintf(t.out, "  %6.1f s  %s\n", time.Since(t.since).Seconds(), lines[0])
	for _, l := range lines[1:] {
		fmt.Fprintf(t.out, "            %s\n", l)
	}
	return nil
}

// animate rewrites one line every half second until the returned function is called. Without a terminal it says every
// thirty seconds that it is still there.
func (t *teller) animate() (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	interval := 500 * time.Millisecond
	if !t.live {
		interval = 30 * time.Second
	}
	go func() {
		defer close(ended)
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			if t.live {
				fmt.Fprintf(t.out, "\r\x1b[K%s", t.line())
			}
			select {
			case <-done:
				if t.live {
					fmt.Fprint(t.out, "\r\x1b[K")
				}
				return
			case <-tick.C:
				if !t.live {
					fmt.Fprintln(t.out, t.line())
				}
			}
		}
	}()
	return func() { close(done); <-ended }
}

// line is what the changing line says: seconds, step, and the machine's or the builder's latest words.
func (t *teller) line() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	words := t.last
	if t.machine != nil {
		if ls := t.machine.Console().Lines(0); len(ls) > 0 {
			words = strings.TrimSpace(ls[len(ls)-1].Text)
		}
	}
	s := fmt.Sprintf("  %6.1f s  %s ... %s", time.Since(t.since).Seconds(), t.doing, words)
	if r := []rune(s); len(r) >= t.width {
		s = string(r[:t.width-1])
	}
	return s
}

// Write takes the builder's progress for the changing line.
func (t *teller) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, l := range strings.FieldsFunc(string(p), func(r rune) bool { return r == '\n' || r == '\r' }) {
		if l = strings.TrimSpace(vm.Plain([]byte(l))); l != "" {
			t.last = l
		}
	}
	return len(p), nil
}
