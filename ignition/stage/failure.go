package stage

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/ignition/apply"
	"github.com/proa-os/proa/ignition/config"
)

// Every text console has 25 rows of 80 columns at least. The last row is the cursor's.
const (
	rows    = 25 - 1
	columns = 80
)

func writeFailure(name string, err error) error {
	if name == "" {
		return nil
	}
	return writeRuntimeFile(name, []byte(details(err)), 0o600)
}

// details is the middle of the screen: the issues of err, as many as there is room for, or its text. It holds no secrets, as errors do not.
func details(err error) string {
	room := rows - height(Screen(""))
	var issues config.Issues
	var p *apply.Problem
	switch {
	case errors.As(err, &issues):
		return several(issues, room)
	case errors.As(err, &p):
		return fit(p.Issue().Screen(), room, "the journal")
	}
	return fit(config.Of(config.Place{}, "", err, apply.NextStep(err)).Screen(), room, "the journal")
}

// several shows those issues, in their order, that fit.
func several(issues config.Issues, room int) string {
	const more = "\n  ... and %d more: `ignition check` on the config shows all\n"
	if len(issues) > 1 {
		room -= height(fmt.Sprintf(more, len(issues)))
	}
	text := fit(issues[0].Screen(), room, "`ignition check` on the config")
	for n, i := range issues[1:] {
		next := text + "\n" + i.Screen()
		if height(next) > room {
			return text + fmt.Sprintf(more, len(issues)-1-n)
		}
		text = next
	}
	return text
}

// fit shortens the longest lines of a text until it has room. all is what has the whole of it.
func fit(text string, room int, all string) string {
	if height(text) <= room {
		return text
	}
	lines := strings.SplitAfter(text, "\n")
	rest := "\n  ... " + all + " has all of it\n"
	for height(strings.Join(lines, "")+rest) > room {
		longest := 0
		for n := range lines {
			if height(lines[n]) > height(lines[longest]) {
				longest = n
			}
		}
		if height(lines[longest]) == 1 {
			break
		}
		lines[longest] = shorten(lines[longest])
	}
	return strings.Join(lines, "") + rest
}

// shorten takes the last row off a line.
func shorten(line string) string {
	const dots = "...\n"
	was, runes := height(line), []rune(strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "..."))
	for len(runes) > 0 && height(string(runes)+dots) >= was {
		runes = runes[:len(runes)-1]
	}
	return string(runes) + dots
}

// height is how many rows a text of whole lines takes. A line that fills a row takes the next one, too, on a terminal that wraps at once.
func height(text string) int {
	n := 0
	for line := range strings.Lines(text) {
		width := 0
		for _, r := range strings.TrimSuffix(line, "\n") {
			if width++; r >= 0x1100 { // East Asian scripts and symbols, which may be two columns wide
				width++
			}
		}
		n += 1 + width/columns
	}
	return n
}

// Screen is what a person sees on the consoles of a machine that could not be provisioned.
func Screen(details string) string {
	const rule = "======================================================================\n"
	return "\n" + rule + "  THIS MACHINE COULD NOT BE PROVISIONED. Nothing else was started.\n\n" +
		details + "\n  Correct the config and restart the machine: it tries again at every\n  boot until it succeeds. Ctrl-Alt-Del restarts it.\n" + rule
}

// ShowFailure writes the screen to every console the kernel uses (/sys/class/tty/console/active, beneath sys) and
// to out. A console that cannot be written to does not keep the others from it.
func ShowFailure(failure, sys, dev string, out io.Writer) error {
	text, err := os.ReadFile(failure)
	if err != nil {
		text = []byte("  problem:   a unit of provision.target failed\n  next step: look at the messages above\n")
	}
	screen := Screen(string(text))
	if _, err := io.WriteString(out, screen); err != nil {
		return err
	}
	active, err := os.ReadFile(filepath.Join(sys, "class/tty/console/active"))
	if err != nil {
		active = []byte("console")
	}
	var errs []error
	for _, name := range strings.Fields(string(active)) {
		errs = append(errs, writeConsole(filepath.Join(dev, filepath.Base(name)), screen))
	}
	return errors.Join(errs...)
}

func writeConsole(name, text string) error {
	f, err := os.OpenFile(name, os.O_WRONLY|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	// A serial line that nobody reads may hold the text back for ever. What is no terminal has no deadline.
	if err := f.SetWriteDeadline(time.Now().Add(10 * time.Second)); err != nil && !errors.Is(err, os.ErrNoDeadline) {
		return errors.Join(err, f.Close())
	}
	_, err = io.WriteString(f, text)
	return errors.Join(err, f.Close())
}
