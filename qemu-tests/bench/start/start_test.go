package start

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/proa-os/proa/runtime/spec"
)

// TestExitProgram: the kernel takes the program, and it does what `true` does.
func TestExitProgram(t *testing.T) {
	b, err := exitProgram()
	if err != nil {
		t.Skipf("SKIPPED, NOT CHECKED: %v", err)
	}
	file := filepath.Join(t.TempDir(), "true")
	if err := os.WriteFile(file, b, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(file).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("%v %s", err, out)
	}
}

func TestBundles(t *testing.T) {
	for _, name := range profiles {
		dir := t.TempDir()
		if err := WriteBundle(dir, name); err != nil {
			t.Fatal(err)
		}
		if _, _, err := spec.Load(dir); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestReport(t *testing.T) {
	row := func(name string, ms ...int) Row {
		var s []sample
		for _, m := range ms {
			s = append(s, sample{time.Duration(m) * time.Millisecond, time.Duration(m) * time.Millisecond / 2})
		}
		return newRow(name, s, 3)
	}
	for _, c := range []struct {
		own  []int
		met  bool
		want string
	}{{[]int{3, 1, 2}, true, "0.50 0.40"}, {[]int{5, 5, 5}, false, "MISSED"}} {
		r := Report{Rounds: 3, Size: 2, Profiles: []Profile{{Name: "p", Rows: []Row{row("oci-runtime", c.own...), row("crun", 5, 2, 9)}}}}
		var b strings.Builder
		if met := r.WriteText(&b); met != c.met || !strings.Contains(b.String(), c.want) {
			t.Errorf("met %v, want %v; %q in\n%s", met, c.met, c.want, b.String())
		}
	}
}
