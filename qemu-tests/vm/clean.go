package vm

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// Reporter is the part of testing.TB that AssertClean needs.
type Reporter interface {
	Helper()
	Errorf(format string, args ...any)
	Context() context.Context
}

// AssertClean reports everything on the console since it was last asked, in the journal of this boot and among the
// units that a healthy machine does not have and allow does not cover. The machine must be on and let root in.
func (m *Machine) AssertClean(t Reporter, allow ...Allowance) {
	t.Helper()
	found := m.scanConsole(allow)
	more, err := m.scanInside(t.Context(), allow)
	if err != nil {
		t.Errorf("look into machine %s: %v", m.cfg.Name, err)
	}
	for _, f := range append(found, more...) {
		t.Errorf("machine %s is not clean: %s", m.cfg.Name, f)
	}
}

// AssertCleanConsole is AssertClean for a machine that is off or lets nobody in.
func (m *Machine) AssertCleanConsole(t Reporter, allow ...Allowance) {
	t.Helper()
	for _, f := range m.scanConsole(allow) {
		t.Errorf("machine %s is not clean: %s", m.cfg.Name, f)
	}
}

func (m *Machine) scanConsole(allow []Allowance) []Finding {
	m.mu.Lock()
	from := m.scanned
	lines := m.console.Lines(from)
	m.scanned += len(lines)
	m.mu.Unlock()
	return scanConsole(lines, allow...)
}

// scanInside looks at the failed units, at every error in the journal, and at its warnings by the rules of Scan.
func (m *Machine) scanInside(ctx context.Context, allow []Allowance) ([]Finding, error) {
	units, err := m.Run(ctx, "root", "systemctl list-units --failed --no-legend --plain --no-pager")
	errs, err2 := m.Run(ctx, "root", "journalctl -b -q --no-pager -o short -p err")
	warnings, err3 := m.Run(ctx, "root", "journalctl -b -q --no-pager -o short -p warning..warning")
	found := scanUnits(units, allow)
	found = append(found, scanErrors(errs, allow)...)
	found = append(found, Scan("journal", splitLines(warnings), allow...)...)
	return found, errors.Join(err, err2, err3)
}

// scanUnits reads `systemctl list-units --failed --plain`.
func scanUnits(list string, allow []Allowance) []Finding {
	var found []Finding
	for _, line := range splitLines(list) {
		if !allowed(allow, line) {
			found = append(found, Finding{"systemctl", strings.TrimSpace(line), "failed unit"})
		}
	}
	return found
}

// scanErrors takes every line of priority err and worse for a finding.
func scanErrors(journal string, allow []Allowance) []Finding {
	var found []Finding
	allow = append(commonAllowances(), allow...)
	for _, line := range splitLines(journal) {
		if !allowed(allow, line) {
			found = append(found, Finding{"journal", strings.TrimSpace(line), "error"})
		}
	}
	return found
}

func splitLines(s string) []string {
	var lines []string
	for line := range strings.Lines(s) {
		if line = strings.TrimSpace(Plain([]byte(line))); line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}

// Explain is what a failed story prints: where the machine's folder is, what its CPUs do and how its console ends.
func (m *Machine) Explain() string {
	state := "on"
	if err := m.whyOff(); err != nil {
		state = err.Error()
	}
	return fmt.Sprintf("machine %s (%s, boot %d, %s): console.log, qemu.log with the command line, and the disk are in %s\n%s%s",
		m.cfg.Name, state, m.Boots(), m.verdict.Use, m.cfg.Dir, m.cpus(), m.console.Tail(40))
}

// cpus tells a guest that waits from one that QEMU has forgotten: where each CPU is, whether it is halted, and its timer.
func (m *Machine) cpus() string {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var b strings.Builder
	for _, command := range []string{"info registers -a", "info lapic"} {
		var text string
		if err := m.Execute(ctx, "human-monitor-command", map[string]any{"command-line": command}, &text); err != nil {
			return "" // It is off, or QEMU has gone: the rest says so.
		}
		for line := range strings.Lines(text) {
			if cpuLineRE.MatchString(line) {
				b.WriteString("      " + strings.TrimSpace(line) + "\n")
			}
		}
	}
	return b.String()
}

// What cpus takes of QEMU's lines.
var cpuLineRE = regexp.MustCompile(`^CPU#|\bHLT=|^(ISR|IRR|LVTT|Timer)\b`)
