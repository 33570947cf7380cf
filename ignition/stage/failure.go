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

// maxShown is how many issues fit on a screen of 25 lines.
const maxShown = 2

func writeFailure(name string, err error) error {
	if name == "" {
		return nil
	}
	return writeRuntimeFile(name, []byte(details(err)), 0o600)
}

// details is the middle of the screen: the issues of err, or its text. It holds no secrets, as errors do not.
func details(err error) string {
	var issues config.Issues
	var p *apply.Problem
	var b strings.Builder
	switch {
	case errors.As(err, &issues):
		for n, i := range issues {
			if n == maxShown {
				fmt.Fprintf(&b, "\n  ... and %d more: run `ignition check` on the config\n", len(issues)-n)
				break
			}
			if n > 0 {
				b.WriteByte('\n')
			}
			b.WriteString(i.Screen())
		}
	case errors.As(err, &p):
		b.WriteString(p.Issue().Screen())
	default:
		b.WriteString(config.Of(config.Place{}, "", err, apply.NextStep(err)).Screen())
	}
	return b.String()
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
