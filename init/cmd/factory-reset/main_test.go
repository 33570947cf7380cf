package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/proa-os/proa/internal/testenv"
)

// No careless call does anything.
func TestRefusals(t *testing.T) {
	for _, tt := range []struct {
		args         []string
		uid, code    int
		stdout, want string
	}{
		{[]string{"--help"}, 1000, 0, "systemctl start factory-reset.target", ""},
		{nil, 0, 2, "", "--yes is missing"},
		{[]string{"yes"}, 0, 2, "", `unexpected argument "yes"`},
		{[]string{"--yes", "now"}, 0, 2, "", `unexpected argument "now"`},
		{[]string{"--force"}, 0, 2, "", "-force"},
		{[]string{"--yes"}, 1000, 1, "", "only root"},
	} {
		var stdout, stderr bytes.Buffer
		if code := run(tt.args, tt.uid, &stdout, &stderr); code != tt.code || !strings.Contains(stdout.String(), tt.stdout) || !strings.Contains(stderr.String(), tt.want) {
			t.Errorf("%q as %d: code %d, %q, %q; want %d, %q, %q", tt.args, tt.uid, code, &stdout, &stderr, tt.code, tt.stdout, tt.want)
		}
	}
}

// systemd understands how the machine is restarted, and logind, which may refuse, is not asked.
func TestReboot(t *testing.T) {
	tools := testenv.Tools(t)
	if out, err := tools.Command(t.Context(), "systemctl", append(reboot(), "--help")...).CombinedOutput(); err != nil {
		t.Errorf("systemctl %q: %v\n%s", reboot(), err, out)
	}
	if words := reboot(); words[0] != "start" || !slices.Contains(words, "reboot.target") {
		t.Errorf("systemctl %q asks logind", words)
	}
}
