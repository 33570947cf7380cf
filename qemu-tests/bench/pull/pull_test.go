package pull

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestReport(t *testing.T) {
	row := func(name string, ms ...int) Row {
		var s []sample
		for _, m := range ms {
			s = append(s, sample{time.Duration(m) * time.Millisecond, time.Duration(m) * time.Millisecond})
		}
		return newRow(name, "1", s)
	}
	for name, c := range map[string]struct {
		rows []Row
		met  bool
		want string
	}{
		"met":       {[]Row{row("containerctl", 300, 100, 200), row("containerd", 400, 400, 400), row("podman", 800, 700, 900)}, true, "podman                 0.25  bar 0.35  met"},
		"missed":    {[]Row{row("containerctl", 300, 300, 300), row("containerd", 400, 400, 400), row("podman", 800, 700, 900)}, false, "0.75  bar 0.60  MISSED"},
		"not there": {[]Row{row("containerctl", 300, 300, 300), row("containerd", 900, 900, 900)}, false, "not measured: podman"},
		"not ours":  {[]Row{row("containerd", 400, 400, 400), row("podman", 800, 700, 900)}, false, "MISSED"},
	} {
		var b strings.Builder
		r := Report{Rounds: 3, Plain: 1e6, Rows: c.rows}
		if met := r.WriteText(&b); met != c.met || !strings.Contains(b.String(), c.want) {
			t.Errorf("%s: met %v, want %v with %q in\n%s", name, met, c.met, c.want, b.String())
		}
	}
}

func TestUsage(t *testing.T) {
	if got, err := parseUsage([]byte("usage_usec 1500000\nuser_usec 3\n")); err != nil || got != 1500*time.Millisecond {
		t.Errorf("%v %v", got, err)
	}
	if _, err := parseUsage([]byte("user_usec 3\n")); err == nil {
		t.Error("no usage, and no error")
	}
}

// TestHasFiles: who has unpacked next to nothing is not measured.
func TestHasFiles(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "one"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := hasFiles(dir); err == nil || !strings.Contains(err.Error(), "only 2 files") {
		t.Errorf("got %v", err)
	}
}
