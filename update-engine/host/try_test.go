package host

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The program behind proa-try.timer, with a systemctl that says what the health check of the boot does.
func TestTryDeadline(t *testing.T) {
	const script = "../../manifests/files/usr/lib/proa/try-deadline"
	for _, c := range []struct{ state, status, want string }{
		{"activating", "0", ""},
		{"active", "0", "--no-block stop proa-try.timer"},
		{"inactive", "0", "reboot --force"}, // never started
		{"failed", "1", "reboot --force"},   // no verdict, or one whose reboot did not happen
		{"failed", "2", "reboot --force"},   // the agent itself is broken
		{"failed", "3", "--no-block stop proa-try.timer"},
		{"", "", "reboot --force"}, // no answer at all
	} {
		dir := t.TempDir()
		fake := "#!/bin/sh\ncase $* in\n" +
			"'show -P ActiveState proa-health.service') echo " + c.state + " ;;\n" +
			"'show -P ExecMainStatus proa-health.service') echo " + c.status + " ;;\n" +
			"*) echo \"$*\" > " + dir + "/done ;;\nesac\n"
		if err := os.WriteFile(filepath.Join(dir, "systemctl"), []byte(fake), 0o755); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(script)
		cmd.Env = []string{"PATH=" + dir + ":/usr/bin:/bin"}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s %s: %v: %s", c.state, c.status, err, out)
		}
		did, _ := os.ReadFile(filepath.Join(dir, "done"))
		if got := strings.TrimSpace(string(did)); got != c.want {
			t.Errorf("health check %s with status %s: got %q, want %q", c.state, c.status, got, c.want)
		}
	}
}
