package oneshot

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/proa-os/proa/internal/testenv"
	"github.com/proa-os/proa/qemu-tests/bench/rounds"
)

func TestReport(t *testing.T) {
	samples := func(ms ...int) (out []rounds.Sample) {
		for _, m := range ms {
			out = append(out, rounds.Sample{Wall: time.Duration(m) * time.Millisecond, CPU: time.Duration(m) * time.Millisecond / 2})
		}
		return out
	}
	for _, c := range []struct {
		own, none []rounds.Sample
		met       bool
		want      string
	}{
		{samples(4, 4, 4), samples(8, 40, 12), true, "1.20  bar 1.5  met"},
		{samples(4, 4, 4), samples(16, 16, 16), false, "1.60  bar 1.5  MISSED"},
		{samples(4, 4, 4), nil, false, "0.00  bar 1.5  MISSED"},
		{samples(8, 8, 8), samples(8, 8, 8), false, "0.80  bar 0.7  MISSED"},
		{samples(9, 9, 9), samples(8, 8, 8), false, "0.90  bar 0.8  MISSED"},
	} {
		r := newReport(3, "tcg", map[string][]rounds.Sample{Crun: samples(10, 5, 20), OCIRuntime: c.own, None: c.none, Bridge: samples(24, 24, 24)})
		var b strings.Builder
		if met := r.WriteText(&b); met != c.met || !strings.Contains(b.String(), c.want) {
			t.Errorf("met %v, want %v; %q in\n%s", met, c.met, c.want, b.String())
		}
	}
	var b strings.Builder
	if newReport(3, "tcg", nil).WriteText(&b) {
		t.Errorf("nothing measured meets the bar:\n%s", b.String())
	}
}

// TestLibraries: a program's libraries, and theirs; a static program has none.
func TestLibraries(t *testing.T) {
	sh, err := exec.LookPath("ls")
	if err != nil {
		testenv.Missing(t, "%v", err)
	}
	out, err := exec.Command("ldd", sh).Output()
	if err != nil {
		testenv.Missing(t, "ldd: %v", err)
	}
	var libc string
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) > 2 && f[0] == "libc.so.6" {
			libc = f[2]
		}
	}
	if libc == "" {
		testenv.Missing(t, "no libc.so.6 in %q", out)
	}
	got, err := libraries(sh, strings.TrimSuffix(libc, "/libc.so.6"))
	if err != nil {
		t.Fatal(err)
	}
	if want, err := os.ReadFile(libc); err != nil || string(got["libc.so.6"]) != string(want) {
		t.Errorf("got %d bytes of libc.so.6, want %d, %v", len(got["libc.so.6"]), len(want), err)
	}
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) > 2 && f[1] == "=>" && strings.HasPrefix(f[2], "/") && len(got[f[0]]) == 0 {
			t.Errorf("%s is missing", f[0])
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := libraries(self, "/"); err != nil || len(got) != 0 {
		t.Errorf("got %d libraries of a static program, %v", len(got), err)
	}
}
