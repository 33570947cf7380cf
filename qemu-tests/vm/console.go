package vm

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync"
	"time"
)

// A Line is one line of the serial console, without escape sequences and control characters.
type Line struct {
	At   time.Duration // since the console was opened
	Boot int           // which start of the firmware it belongs to, from 1
	Text string
}

// Console collects what machines say on their serial port: whole lines with the time they began, written to a log
// as they end. It is safe for concurrent use.
//
// The log has one line per console line, `seconds text`, and `== text` for what the harness itself did.
type Console struct {
	mu      sync.Mutex
	log     io.Writer
	logErr  error
	start   time.Time
	boot    int
	lines   []Line
	partial []byte // the line the guest is in
	partAt  time.Duration
	next    int           // first line WaitFor has not consumed
	changed chan struct{} // closed and replaced at every change
	closed  error         // why no more lines will come
	tap     io.Writer     // who sees the bytes as they come
}

// maxLine ends a console line that has no end, in bytes.
const maxLine = 8192

// NewConsole returns an empty console that logs to log.
func NewConsole(log io.Writer) *Console {
	return &Console{log: log, start: time.Now(), changed: make(chan struct{})}
}

// Write takes bytes from the serial port. It never fails: a log that cannot be written is reported by Err.
func (c *Console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tap != nil {
		c.tap.Write(p) // A terminal that went away is no reason to stop the machine.
	}
	for _, b := range p {
		if len(c.partial) == 0 {
			c.partAt = time.Since(c.start)
		}
		if b == '\n' || len(c.partial) >= maxLine {
			c.endLine()
		}
		if b != '\n' {
			c.partial = append(c.partial, b)
		}
	}
	c.wake()
	return len(p), nil
}

func (c *Console) endLine() {
	text := Plain(c.partial)
	c.partial = c.partial[:0]
	c.lines = append(c.lines, Line{At: c.partAt, Boot: c.boot, Text: text})
	c.print("%9.3f %s\n", c.partAt.Seconds(), text)
}

func (c *Console) print(format string, args ...any) {
	if _, err := fmt.Fprintf(c.log, format, args...); err != nil && c.logErr == nil {
		c.logErr = fmt.Errorf("write console log: %w", err)
	}
}

func (c *Console) wake() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// PowerOn begins boot n: the unfinished line of the boot before ends here.
func (c *Console) PowerOn(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.partial) > 0 {
		c.endLine()
	}
	c.boot = n
	c.closed = nil
	c.print("%9.3f == boot %d\n", time.Since(c.start).Seconds(), n)
	c.wake()
}

// PowerOff says why no more lines come until the next PowerOn.
func (c *Console) PowerOff(why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.partial) > 0 {
		c.endLine()
	}
	c.closed = why
	c.print("%9.3f == %v\n", time.Since(c.start).Seconds(), why)
	c.wake()
}

// Note writes a line of the harness to the log.
func (c *Console) Note(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.print("%9.3f == %s\n", time.Since(c.start).Seconds(), text)
}

// Tap copies all further bytes to w as they come; nil ends it.
func (c *Console) Tap(w io.Writer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tap = w
}

// Err is the first error of writing the log.
func (c *Console) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.logErr
}

// Lines returns the finished lines from index from on.
func (c *Console) Lines(from int) []Line {
	c.mu.Lock()
	defer c.mu.Unlock()
	if from >= len(c.lines) {
		return nil
	}
	return append([]Line(nil), c.lines[from:]...)
}

// WaitFor returns the first line after the one it returned last that re matches. A line without an end, such as a
// login prompt, counts once the guest has paused in it. ctx ends the wait with an error that shows the last lines;
// a machine that is off ends it as well.
func (c *Console) WaitFor(ctx context.Context, re *regexp.Regexp) (Line, error) {
	for paused := false; ; {
		line, next, err := c.take(re, paused)
		if err != nil || next.changed == nil {
			return line, err
		}
		var pause <-chan time.Time
		if next.unfinished {
			pause = time.After(promptPause)
		}
		paused = false
		select {
		case <-ctx.Done():
			return Line{}, fmt.Errorf("wait for /%s/ on the console: %w\n%s", re, context.Cause(ctx), c.Tail(40))
		case <-next.changed:
		case <-pause:
			paused = true
		}
	}
}

// promptPause is how long an unfinished line must rest to be taken for a prompt. Under load a guest pauses anywhere, so
// patterns for unfinished lines should match their end.
const promptPause = 300 * time.Millisecond

// retry says when to look again: when changed is closed, or after a pause in an unfinished line that matches.
type retry struct {
	changed    chan struct{}
	unfinished bool
}

// take looks once; a nil channel says that line is the match.
func (c *Console) take(re *regexp.Regexp, paused bool) (Line, retry, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for ; c.next < len(c.lines); c.next++ {
		if l := c.lines[c.next]; re.MatchString(l.Text) {
			c.next++
			return l, retry{}, nil
		}
	}
	// next is len(lines)+1 after a match in the unfinished line, which is not looked at again.
	text := Plain(c.partial)
	unfinished := c.next == len(c.lines) && text != "" && re.MatchString(text)
	if unfinished && paused {
		c.next++
		return Line{At: c.partAt, Boot: c.boot, Text: text}, retry{}, nil
	}
	if c.closed != nil {
		return Line{}, retry{}, fmt.Errorf("wait for /%s/ on the console: %w\n%s", re, c.closed, c.tail(40))
	}
	return Line{}, retry{c.changed, unfinished}, nil
}

// SkipToEnd makes WaitFor look only at lines that begin from now on.
func (c *Console) SkipToEnd() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.next = len(c.lines)
	if len(c.partial) > 0 {
		c.next++
	}
}

// Tail is the last n lines for a message to people, each indented and with its time.
func (c *Console) Tail(n int) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tail(n)
}

func (c *Console) tail(n int) string {
	lines := c.lines
	if text := Plain(c.partial); text != "" {
		lines = append(lines[:len(lines):len(lines)], Line{At: c.partAt, Text: text})
	}
	if len(lines) == 0 {
		return "  the console is empty"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "  the last %d of %d console lines:", min(n, len(lines)), len(lines))
	for _, l := range lines[max(0, len(lines)-n):] {
		fmt.Fprintf(&b, "\n  %9.3f %s", l.At.Seconds(), l.Text)
	}
	return b.String()
}

// escapeRE is ECMA-48: CSI sequences, OSC strings and two-byte escapes, as firmware and systemd send them.
var escapeRE = regexp.MustCompile(`\x1b(?:\[[0-9:;<=>?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-Z\\^-~])`)

// Plain is b as text without escape sequences, control characters and bytes that are not UTF-8.
// Text that a carriage return goes back over stays.
func Plain(b []byte) string {
	b = escapeRE.ReplaceAll(b, nil)
	b = bytes.ToValidUTF8(b, []byte("�"))
	return strings.TrimRight(strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case r < ' ' || r == 0x7f:
			return -1
		}
		return r
	}, string(b)), " ")
}
