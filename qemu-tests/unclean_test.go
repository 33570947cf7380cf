package qemutests

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/proa-os/proa/qemu-tests/vm"
)

// found collects what is reported of an unclean machine.
type found struct {
	ctx  context.Context
	text strings.Builder
}

func (f *found) Helper()                           {}
func (f *found) Context() context.Context          { return f.ctx }
func (f *found) Errorf(format string, args ...any) { fmt.Fprintf(&f.text, format+"\n", args...) }

// unclean makes a clean machine ill in each way that the end of every step looks for, and wants all of it found: without that, the
// other stories would prove nothing by being clean.
func unclean(t *testing.T, m *vm.Machine) {
	t.Helper()
	run(t, m, `systemd-run --quiet --wait --unit=lab-fails /bin/false || true
systemd-run --quiet --wait --unit=lab-crashes /bin/sh -c 'kill -SEGV $$$$' || true
cd /run/systemd/system
printf '[Unit]\nAfter=lab-second.service\nRequires=lab-second.service\n[Service]\nExecStart=/bin/true\n' > lab-first.service
printf '[Unit]\nAfter=lab-first.service\nRequires=lab-first.service\n[Service]\nExecStart=/bin/true\n' > lab-second.service
systemctl daemon-reload
systemctl start lab-first.service || true
echo '<2>lab: something is very wrong' > /dev/kmsg`)
	judge := &found{ctx: t.Context()}
	m.AssertClean(judge)
	for _, want := range []string{"systemctl: failed unit: lab-fails.service", ": crash: ", "ordering cycle", "lab: something is very wrong"} {
		if !strings.Contains(judge.text.String(), want) {
			t.Errorf("the machine has %q and nobody noticed; what was found:\n%s", want, &judge.text)
		}
	}
}
