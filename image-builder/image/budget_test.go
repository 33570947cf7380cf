package image

import (
	"bytes"
	"strings"
	"testing"

	"github.com/proa-os/proa/image-builder/manifest"
	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/release"
	"github.com/proa-os/proa/internal/testenv"
)

// A release that passes a budget is refused, with the table and with what is large; one that does not is only counted.
func TestBudgetIsChecked(t *testing.T) {
	in := sample(t)
	var out bytes.Buffer
	in.clock = newClock(&out)
	in.work, in.tools = t.TempDir(), testenv.Tools(t)
	write(t, "usr/bin/su: file 4755 0:0 90000000 "+digest.Of(nil).String()+" login\n", in.work, treeFile)
	write(t, "the root image", in.work, rootFile)
	r := &release.Release{Root: release.RootImage{Size: 91e6, SHA256: digest.Of([]byte("root"))}, Boot: release.BootProgram{Size: 20e6}}

	in.manifest.Budget.RootImage, in.manifest.Budget.RootImageZstd, in.manifest.Budget.SetuidFiles = 100e6, 30e6, 1
	if err := checkBudget(t.Context(), in, r); err != nil {
		t.Errorf("within budgets: %v", err)
	}
	if got := out.String(); !strings.Contains(got, "root image                  91.0 MB of   100.0 MB   91 %") || !strings.Contains(got, "root image, zstd -3 ") {
		t.Errorf("got table\n%s", got)
	}
	// What was measured with zstd -19 is nearer to the truth than -3.
	write(t, "31000000\n", in.CacheDir, "budget", r.Root.SHA256.String()+".zstd-19")
	in.manifest.Budget.BootProgram, in.manifest.Budget.SetuidFiles = 19e6, 0
	in.manifest.Budget.Files = map[string]manifest.Size{"usr/bin/su": 8e6}
	err := checkBudget(t.Context(), in, r)
	for _, want := range []string{"boot program is 20.0 MB", "root image, zstd -19 is 31.0 MB", "usr/bin/su is 90.0 MB, the budget is 8.0 MB", "setgid files is 1, the budget is 0: usr/bin/su", "90.0 MB  login"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %v", want, err)
		}
	}
	in.manifest.Budget.Files = map[string]manifest.Size{"usr/bin/gone": 8e6}
	if err := checkBudget(t.Context(), in, r); err == nil || !strings.Contains(err.Error(), "usr/bin/gone, which the root image does not have") {
		t.Errorf("a limit for nothing: got %v", err)
	}
}
