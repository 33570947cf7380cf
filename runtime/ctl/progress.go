package ctl

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/proa-os/proa/runtime/flagset"
	"github.com/proa-os/proa/runtime/image"
	"github.com/proa-os/proa/runtime/store"
)

func progressFlag(s *flagset.Set, p *string) {
	s.Func("progress", "HOW", "auto (default): bars on a terminal; bars, json or none", func(v string) error {
		switch v {
		case "auto", "bars", "json", "none":
			*p = v
			return nil
		}
		return errors.New("want auto, bars, json or none")
	})
	s.Func("q,quiet", "", "the same as --progress none", func(v string) error {
		if v == "true" {
			*p = "none"
		}
		return nil
	})
}

// progress returns what shows the progress of layers on standard error, and what is to be called at the end.
func (e *Env) progress(how string) (show func(store.Event), end func()) {
	out, _ := e.Err.(*os.File)
	terminal := out != nil && term.IsTerminal(int(out.Fd()))
	switch {
	case how == "json":
		enc := json.NewEncoder(e.Err)
		last := make(map[image.Digest]store.Event)
		return func(ev store.Event) {
			// A line for each change of state, and for each hundredth part.
			if old, ok := last[ev.Layer]; ok && old.State == ev.State && ev.Done-old.Done < ev.Total/100 {
				return
			}
			last[ev.Layer] = ev
			enc.Encode(map[string]any{"layer": ev.Layer, "done": ev.Done, "total": ev.Total, "state": stateNames[ev.State]})
		}, func() {}
	case how == "bars" || how == "auto" && terminal:
		b := &bars{w: e.Err, events: make(map[image.Digest]store.Event), size: func() (int, int) {
			if terminal {
				if w, h, err := term.GetSize(int(out.Fd())); err == nil {
					return w, h
				}
			}
			return 80, 24
		}}
		return b.show, b.end
	}
	return nil, func() {}
}

var stateNames = map[store.State]string{store.Waiting: "waiting", store.Fetching: "fetching", store.Ready: "verified",
	store.Unpacked: "unpacked", store.Present: "present"}

// bars draws a line for each layer, over the lines drawn before. Layers that do not fit are summed up in the last line.
type bars struct {
	w      interface{ Write([]byte) (int, error) }
	size   func() (width, height int)
	order  []image.Digest
	events map[image.Digest]store.Event
	lines  int // drawn
	drawn  time.Time
}

const redraw = 100 * time.Millisecond

func (b *bars) show(ev store.Event) {
	old, known := b.events[ev.Layer]
	if !known {
		b.order = append(b.order, ev.Layer)
	}
	b.events[ev.Layer] = ev
	if known && old.State == ev.State && time.Since(b.drawn) < redraw {
		return
	}
	b.draw()
}

func (b *bars) draw() {
	b.drawn = time.Now()
	width, height := b.size()
	var text strings.Builder
	if b.lines > 0 {
		fmt.Fprintf(&text, "\x1b[%dA", b.lines)
	}
	b.lines = 0
	var done, total int64
	for i, d := range b.order {
		ev := b.events[d]
		done, total = done+ev.Done, total+ev.Total
		if i < height-2 {
			fmt.Fprintf(&text, "\r\x1b[K%s\n", barLine(ev, width))
			b.lines++
		}
	}
	fmt.Fprintf(&text, "\r\x1b[K%d layers, %s of %s\n", len(b.order), size(done), size(total))
	b.lines++
	fmt.Fprint(b.w, text.String())
}

func (b *bars) end() {
	if len(b.order) > 0 {
		b.draw()
	}
}

// barLine is "0123456789ab [=====>    ]  12 MB of 40 MB fetching", as much as fits.
func barLine(ev store.Event, width int) string {
	tail := fmt.Sprintf(" %s of %s %s", size(ev.Done), size(ev.Total), stateNames[ev.State])
	line := ev.Layer.Hex()[:12]
	if n := min(width-len(line)-4-38, 40); n >= 5 {
		full := n
		if ev.Total > 0 {
			full = int(int64(n) * ev.Done / ev.Total)
		}
		head := ""
		if full < n {
			head = ">"
		}
		line += " [" + fmt.Sprintf("%-*s", n, strings.Repeat("=", full)+head) + "]"
	}
	if line += tail; len(line) >= width {
		line = line[:max(width-1, 0)]
	}
	return line
}
