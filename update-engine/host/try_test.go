package host

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// The program behind proa-try.timer, with a systemctl that says what the health check of the boot does and an agent that answers so.
func TestTryDeadline(t *testing.T) {
	b, err := os.ReadFile("../../manifests/files/usr/lib/proa/try-deadline")
	if err != nil {
		t.Fatal(err)
	}
	const stop = "--no-block stop proa-try.timer"
	uptime, err := os.ReadFile("/proc/uptime")
	if err != nil {
		t.Fatal(err)
	}
	var now float64
	if _, err := fmt.Sscan(string(uptime), &now); err != nil {
		t.Fatal(err)
	}
	ago := func(seconds float64) string { return strconv.FormatInt(int64((now-seconds)*1e6), 10) }
	for _, c := range []struct{ state, status, verdictBy, agent, want, ended string }{
		{"activating", "0", "", "0", "", ""},
		{"activating", "0", "999999999", "0", "", ""},
		{"activating", "0", "1", "0", "reboot --force", "activating"}, // it hangs itself
		{"active", "0", "1", "0", stop, ""},
		{"inactive", "0", "", "0", "reboot --force", "inactive"}, // never started
		{"failed", "1", "", "0", "reboot --force", "failed"},     // no verdict, or one whose reboot did not happen
		{"failed", "2", "", "2", "reboot --force", "failed"},     // the agent itself is broken: a try is used up
		{"failed", "3", "", "0", stop, ""},
		{"inactive", "0", "", "3", stop, "inactive"},   // there is nothing else to boot
		{"", "", "", "0", "reboot --force", "unknown"}, // no answer at all
		// After a soft reboot the timer may come too early.
		{"inactive early", "0", "", "0", "", ""},
		{"activating early", "0", "", "0", "", ""},
		{"failed early", "1", "", "0", "reboot --force", "failed"},
		{"active early", "0", "", "0", stop, ""},
	} {
		state, early := strings.CutSuffix(c.state, " early")
		began := ago(400)
		if early {
			began = ago(30)
		}
		dir := t.TempDir()
		text := strings.NewReplacer("/usr/lib/proa/update-engine", dir+"/update-engine", "/run/proa-health/verdict-by", dir+"/verdict-by").Replace(string(b))
		files := map[string]string{
			"try-deadline": text,
			"systemctl": "#!/bin/sh\ncase $* in\n" +
				"'show -P ActiveState proa-health.service') echo " + state + " ;;\n" +
				"'show -P ActiveEnterTimestampMonotonic proa-try.timer') echo " + began + " ;;\n" +
				"'show -P ExecMainStatus proa-health.service') echo " + c.status + " ;;\n" +
				"*) echo \"$*\" > " + dir + "/done ;;\nesac\n",
			"update-engine": "#!/bin/sh\necho \"$*\" > " + dir + "/ended\nexit " + c.agent + "\n",
		}
		if c.verdictBy != "" {
			files["verdict-by"] = c.verdictBy + "\n"
		}
		for name, text := range files {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		cmd := exec.Command(filepath.Join(dir, "try-deadline"))
		cmd.Env = []string{"PATH=" + dir + ":/usr/bin:/bin"}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s %s: %v: %s", c.state, c.status, err, out)
		}
		did, _ := os.ReadFile(filepath.Join(dir, "done"))
		if got := strings.TrimSpace(string(did)); got != c.want {
			t.Errorf("health check %s with status %s: got %q, want %q", c.state, c.status, got, c.want)
		}
		ended, _ := os.ReadFile(filepath.Join(dir, "ended"))
		if got := string(ended); c.ended == "" && got != "" || c.ended != "" && (!strings.HasPrefix(got, "end-try no verdict") || !strings.HasSuffix(got, c.ended+"\n")) {
			t.Errorf("health check %s with status %s: asked the agent %q", c.state, c.status, got)
		}
	}
}
