package image

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/proa-os/proa/image-builder/kernel"
	"github.com/proa-os/proa/image-builder/lock"
	"github.com/proa-os/proa/image-builder/manifest"
	"github.com/proa-os/proa/image-builder/program"
	"github.com/proa-os/proa/image-builder/stage"
	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/release"
	"github.com/proa-os/proa/internal/tooltree"
)

func write(t *testing.T, text string, elem ...string) {
	t.Helper()
	name := filepath.Join(elem...)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func toolTree(t *testing.T, name string) *tooltree.Tree {
	t.Helper()
	dir := filepath.Join(t.TempDir(), name)
	write(t, "", dir, "usr/lib64/ld-linux-x86-64.so.2")
	write(t, "", dir, "usr/lib/x86_64-linux-gnu/libc.so.6")
	tools, err := tooltree.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return tools
}

func sample(t *testing.T) *inputs {
	t.Helper()
	o := &Options{Version: "1.0.0", Out: filepath.Join(t.TempDir(), "out"), Module: t.TempDir(), CacheDir: t.TempDir()}
	write(t, "proa", o.Module, "manifests/files/etc/hostname")
	in := &inputs{
		Options: o, clock: newClock(nil), sums: map[string]digest.SHA256{}, tools: toolTree(t, "tools"), self: digest.Of([]byte("builder")),
		manifest: &manifest.Manifest{Programs: map[string]string{"usr/bin/p": "./p"}, Boot: manifest.Boot{CommandLine: "panic=10"}},
		lock:     &lock.Lock{Arch: "amd64", Packages: []lock.Package{{Name: "libc6", Version: "2.41"}}},
		kernel:   &kernel.Kernel{Version: "6.12", Dir: "/cache/kernel/1"},
		sources:  &program.Listing{Inputs: map[string]string{"./p": "p 1", initProgram: "init 1"}},
	}
	readInputs(t, in)
	return in
}

// remember writes the receipt of what is in Out.
func remember(t *testing.T, in *inputs) {
	t.Helper()
	r, err := in.receipt(in.Out)
	if err == nil {
		err = in.remember(r)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// readInputs is what a build does before it makes anything.
func readInputs(t *testing.T, in *inputs) {
	t.Helper()
	if err := readFiles(t.Context(), in, nil); err != nil {
		t.Fatal(err)
	}
}

// A cache lies when an input is not in its key. Each of these must change the keys, and what only the boot program is made of the
// release's key alone.
func TestKeys(t *testing.T) {
	root := map[string]func(*testing.T, *inputs){
		"builder":         func(_ *testing.T, in *inputs) { in.self = digest.Of([]byte("another builder")) },
		"version":         func(_ *testing.T, in *inputs) { in.Version = "1.0.1" },
		"package":         func(_ *testing.T, in *inputs) { in.lock.Packages[0].Version = "2.42" },
		"package's bytes": func(_ *testing.T, in *inputs) { in.lock.Packages[0].SHA256 = digest.Of([]byte("other")) },
		"tools":           func(t *testing.T, in *inputs) { in.tools = toolTree(t, "other") },
		"kernel":          func(_ *testing.T, in *inputs) { in.kernel.Dir = "/cache/kernel/2" },
		"program":         func(_ *testing.T, in *inputs) { in.sources.Inputs["./p"] = "p 2" },
		"program's place": func(_ *testing.T, in *inputs) { in.manifest.Programs = map[string]string{"usr/bin/q": "./p"} },
		"mode":            func(_ *testing.T, in *inputs) { in.manifest.Tree.Modes = []manifest.Mode{{Path: "tmp", Mode: "1777"}} },
		"removed file":    func(_ *testing.T, in *inputs) { in.manifest.Tree.Remove = []string{"usr/share/doc"} },
		"file":            func(t *testing.T, in *inputs) { write(t, "proa2", in.Module, "manifests/files/etc/hostname") },
		"new file":        func(t *testing.T, in *inputs) { write(t, "", in.Module, "manifests/files/etc/motd") },
		"file's mode": func(t *testing.T, in *inputs) {
			if err := os.Chmod(filepath.Join(in.Module, "manifests/files/etc/hostname"), 0o755); err != nil {
				t.Fatal(err)
			}
		},
		"overlay": func(t *testing.T, in *inputs) { in.Overlays = []string{t.TempDir()} },
	}
	boot := map[string]func(*testing.T, *inputs){
		"command line":   func(_ *testing.T, in *inputs) { in.manifest.Boot.CommandLine = "quiet" },
		"--command-line": func(_ *testing.T, in *inputs) { in.CommandLine = "debug" },
		"modules":        func(_ *testing.T, in *inputs) { in.manifest.Initramfs.Always = []string{"ext4"} },
		"budget":         func(_ *testing.T, in *inputs) { in.manifest.Budget.RootImage = 1 },
		"manifest file":  func(_ *testing.T, in *inputs) { in.manifest.Sum = digest.Of([]byte("with a comment")) },
	}
	nothing := map[string]func(*testing.T, *inputs){
		"nothing": func(*testing.T, *inputs) {},
		"file's time": func(t *testing.T, in *inputs) {
			write(t, "proa", in.Module, "manifests/files/etc/hostname")
		},
		"places": func(t *testing.T, in *inputs) {
			in.Out, in.CacheDir, in.tools = "elsewhere", "cache", toolTree(t, "tools")
		},
	}
	for _, group := range []struct {
		changes                   map[string]func(*testing.T, *inputs)
		rootChanges, wholeChanges bool
	}{{root, true, true}, {boot, false, true}, {nothing, false, false}} {
		for _, name := range slices.Sorted(maps.Keys(group.changes)) {
			in := sample(t)
			oldRoot, oldWhole := keys(t, in)
			group.changes[name](t, in)
			readInputs(t, in)
			newRoot, newWhole := keys(t, in)
			if got := newRoot != oldRoot; got != group.rootChanges {
				t.Errorf("%s: root image's key changed: %v", name, got)
			}
			if got := newWhole != oldWhole; got != group.wholeChanges {
				t.Errorf("%s: release's key changed: %v", name, got)
			}
		}
	}
}

func keys(t *testing.T, in *inputs) (root, whole digest.SHA256) {
	t.Helper()
	root, err := in.rootKey()
	if err != nil {
		t.Fatal(err)
	}
	if whole, err = in.releaseKey(); err != nil {
		t.Fatal(err)
	}
	return root, whole
}

// What a build has left is taken for finished only while it is just that.
func TestFinished(t *testing.T) {
	r := &release.Release{Version: "1.0.0", Arch: "amd64",
		Root: release.RootImage{Size: 3 * 4096, HashOffset: 4096, RootHash: digest.Of([]byte("root")), SHA256: digest.Of([]byte("image"))},
		Boot: release.BootProgram{Size: 1, SHA256: digest.Of([]byte("boot"))}}
	text, err := r.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(t *testing.T, in *inputs)
		want   bool
	}{
		"untouched":       {func(*testing.T, *inputs) {}, true},
		"with machine":    {func(t *testing.T, in *inputs) { write(t, "", in.Out, "run/console.log") }, true},
		"rewritten":       {func(t *testing.T, in *inputs) { write(t, "root", in.Out, "root.img") }, true},
		"another input":   {func(t *testing.T, in *inputs) { in.CommandLine = "debug" }, false},
		"damaged":         {func(t *testing.T, in *inputs) { write(t, "tOOr", in.Out, "root.img") }, false},
		"used disk":       {func(t *testing.T, in *inputs) { write(t, "disk", in.Out, "disk.img") }, false},
		"a file less":     {func(t *testing.T, in *inputs) { os.Remove(filepath.Join(in.Out, "disk.img")) }, false},
		"no cache":        {func(t *testing.T, in *inputs) { in.NoCache = true }, false},
		"qcow2 left out":  {func(t *testing.T, in *inputs) { in.NoQcow2 = true }, true},
		"elsewhere":       {func(t *testing.T, in *inputs) { in.Out += "2" }, false},
		"damaged receipt": {func(t *testing.T, in *inputs) { name, _ := in.receiptFile(); write(t, "{", name) }, false},
	} {
		in := sample(t)
		for file, text := range map[string]string{"root.img": "root", "disk.img": "disk", qcow2File: "qcow2", "release.json": string(text)} {
			write(t, text, in.Out, file)
		}
		if in.finished() != nil {
			t.Errorf("%s: finished before the first build", name)
		}
		remember(t, in)
		c.change(t, in)
		if got := in.finished(); (got != nil) != c.want || got != nil && got.Version != r.Version {
			t.Errorf("%s: finished: %v, want %v", name, got != nil, c.want)
		}
	}
}

// What is saved while a build runs is not in its receipt: the next build makes it.
func TestSavedDuringBuild(t *testing.T) {
	in := sample(t)
	in.NoQcow2 = true
	r := &release.Release{Version: "1.0.0", Arch: "amd64",
		Root: release.RootImage{Size: 3 * 4096, HashOffset: 4096, RootHash: digest.Of([]byte("root")), SHA256: digest.Of([]byte("image"))},
		Boot: release.BootProgram{Size: 1, SHA256: digest.Of([]byte("boot"))}}
	text, err := r.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	write(t, string(text), in.Out, "release.json")
	write(t, "saved", in.Module, "manifests/files/etc/hostname")
	remember(t, in)
	readInputs(t, in)
	if in.finished() != nil {
		t.Error("finished, without the file that was saved")
	}
	write(t, "proa", in.Module, "manifests/files/etc/hostname")
	readInputs(t, in)
	if in.finished() == nil {
		t.Error("not finished, with the files it was made of")
	}
}

// A root image is kept under the key of the overlays it was filled from; if they change all the time, none is.
func TestSavedDuringRootImage(t *testing.T) {
	for saves, wantError := range map[int]bool{0: false, 1: false, 9: true} {
		in := sample(t)
		var err error
		if in.stages, err = stage.Open(t.TempDir(), 1<<20); err != nil {
			t.Fatal(err)
		}
		hostname := filepath.Join(in.Module, "manifests/files/etc/hostname")
		filled := 0
		fill := func(dir string) (map[string]digest.SHA256, error) {
			filled++
			b, err := os.ReadFile(hostname)
			if err != nil {
				return nil, err
			}
			if filled <= saves {
				write(t, fmt.Sprint("saved ", filled), hostname)
			}
			return nil, os.WriteFile(filepath.Join(dir, rootFile), b, 0o644)
		}
		e, err := in.makeRoot(t.Context(), fill)
		if wantError {
			if err == nil || !strings.Contains(err.Error(), "changes all the time") {
				t.Errorf("%d saves: got %v", saves, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		now, err := os.ReadFile(hostname)
		if err != nil {
			t.Fatal(err)
		}
		if e.Sum(rootFile) != digest.Of(now) || filled != saves+1 {
			t.Errorf("%d saves: filled %d times, and not from %q", saves, filled, now)
		}
		readInputs(t, in)
		if again, err := in.makeRoot(t.Context(), fill); err != nil || filled != saves+1 || again.Sum(rootFile) != digest.Of(now) {
			t.Errorf("%d saves: the second build: %v, filled %d times", saves, err, filled)
		}
		in.close()
	}
}

// A build without a qcow2 image does not finish one that is to have it.
func TestFinishedWithoutQcow2(t *testing.T) {
	in := sample(t)
	write(t, "", in.Out, "release.json")
	in.NoQcow2 = true
	remember(t, in)
	in.NoQcow2 = false
	if in.finished() != nil {
		t.Error("finished without disk.qcow2")
	}
}

func TestForget(t *testing.T) {
	in := sample(t)
	write(t, "", in.Out, "release.json")
	old := filepath.Join(in.CacheDir, "receipts", "old.json")
	write(t, "{}", old)
	if err := os.Chtimes(old, time.Unix(1e9, 0), time.Unix(1e9, 0)); err != nil {
		t.Fatal(err)
	}
	in.NoQcow2 = true
	remember(t, in)
	if left, err := os.ReadDir(filepath.Dir(old)); err != nil || len(left) != 1 || left[0].Name() == "old.json" {
		t.Errorf("got %v, %v", left, err)
	}
}
