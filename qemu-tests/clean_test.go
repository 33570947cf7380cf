package qemutests

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/proa-os/proa/qemu-tests/provision"
)

// findings takes what AssertClean reports in place of a test.
type findings struct {
	ctx   context.Context
	found []string
}

func (f *findings) Helper()                  {}
func (f *findings) Context() context.Context { return f.ctx }
func (f *findings) Errorf(format string, args ...any) {
	f.found = append(f.found, fmt.Sprintf(format, args...))
}

// TestUncleanMachineIsSeen provisions a machine with one of each thing that no story may have, and asks whether it is clean.
func TestUncleanMachineIsSeen(t *testing.T) {
	s := begin(t)
	config := provision.New().
		// The health gate would wait five minutes for the failed units to mend.
		File("/etc/proa/update/config.json", 0o644, `{"server":"http://127.0.0.1:1/","channel":"stable","health_deadline_seconds":5}`+"\n").
		Unit("lab-fails.service", true, "[Service]\nExecStart=/bin/false\n[Install]\nWantedBy=multi-user.target\n").
		Unit("lab-egg.service", true, "[Unit]\nAfter=lab-hen.service\n[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n").
		Unit("lab-hen.service", true, "[Unit]\nAfter=lab-egg.service\n[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n").
		Unit("lab-crash.service", true, "[Service]\nExecStart=/bin/mkdir /run/lab\nSystemCallFilter=~mkdir mkdirat\n[Install]\nWantedBy=multi-user.target\n").
		Unit("lab-typo.service", true, "[Unit]\nAfterr=x\n[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n").
		Unit("lab-kernel.service", true, "[Service]\nExecStart=/bin/sh -c \"echo '<4>WARNING: CPU: 0 PID: 1 at lab.c:1' >/dev/kmsg\"\n[Install]\nWantedBy=multi-user.target\n").
		Unit("lab-log.service", true, "[Service]\nExecStart=/bin/sh -c \"echo '<3>something is wrong'; echo '<4>open /x: Permission denied'\"\n[Install]\nWantedBy=multi-user.target\n")
	m := s.machine("unclean", s.image("1.0.0", ""), config)
	if out, err := m.Run(t.Context(), "root", "systemctl is-system-running --wait"); err == nil || strings.TrimSpace(out) != "degraded" {
		t.Errorf("got system state %q, %v, want degraded", out, err)
	}
	f := &findings{ctx: t.Context()}
	m.AssertClean(f)
	all := strings.Join(f.found, "\n")
	for what, want := range map[string][]string{
		"a failed unit":          {"systemctl: failed unit: lab-fails.service", "systemctl: failed unit: lab-crash.service"},
		"an ordering cycle":      {"ordering cycle: ", "lab-hen.service"},
		"a crash":                {"lab-crash.service: Main process exited, code="},
		"a unit that is wrong":   {"bad unit: ", "Unknown key 'Afterr'"},
		"a kernel warning":       {"kernel warning: ", "WARNING: CPU: 0 PID: 1 at lab.c:1"},
		"an error in a log":      {"journal: error: ", "something is wrong"},
		"a denial, as a warning": {"denial: ", "open /x: Permission denied"},
	} {
		for _, w := range want {
			if !strings.Contains(all, w) {
				t.Errorf("%s was not seen: no %q in\n%s", what, w, all)
			}
		}
	}
}
