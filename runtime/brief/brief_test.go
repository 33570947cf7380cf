package brief

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
)

// TestPrepare: the thread that Go started first, which is its monitor, has more slack afterwards; this one and its children have not.
func TestPrepare(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	tid := monitor()
	self, err := os.Readlink("/proc/thread-self") // PID/task/TID
	if err != nil {
		t.Fatal(err)
	}
	if tid == "" || strings.HasSuffix(self, "/"+tid) {
		t.Fatalf("monitor %q: want another thread than this one, %s", tid, self)
	}
	if os.Getuid() != 0 {
		t.Skip("SKIPPED, NOT CHECKED: needs root (CAP_SYS_NICE)")
	}
	own := self[strings.LastIndexByte(self, '/')+1:]
	before := slackOf(t, own)
	Prepare()
	if got := slackOf(t, tid); got != slack {
		t.Errorf("monitor's slack %s, want %s", got, slack)
	}
	if got := slackOf(t, own); got != before {
		t.Errorf("this thread's slack %s, want %s", got, before)
	}
	out, err := exec.Command("cat", "/proc/self/timerslack_ns").Output()
	if got := strings.TrimSpace(string(out)); err != nil || got != before {
		t.Errorf("a child's slack %s, want %s; %v", got, before, err)
	}
}

func slackOf(t *testing.T, tid string) string {
	t.Helper()
	b, err := os.ReadFile("/proc/" + tid + "/timerslack_ns")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}
