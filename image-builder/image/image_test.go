package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/proa-os/proa/image-builder/manifest"
	"github.com/proa-os/proa/internal/cmdline"
	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/release"
)

func TestLayout(t *testing.T) {
	table, err := layout(&release.Release{Arch: "amd64"})
	if err != nil {
		t.Fatal(err)
	}
	if err := table.Validate(); err != nil {
		t.Fatal(err)
	}
	for i, want := range []struct {
		name  string
		start int64 // MiB
		size  int64
	}{{"esp", 1, 512}, {"bios", 513, 1}, {"root-a", 514, 1024}, {"root-b", 1538, 1024}} {
		p := table.Partitions[i]
		if p.Name != want.name || p.Number != i+1 || table.Offset(p) != want.start*mib || table.Size(p) != want.size*mib {
			t.Errorf("got partition %+v, want %+v", p, want)
		}
	}
	if _, err := layout(&release.Release{Arch: "vax"}); err == nil || !strings.Contains(err.Error(), "vax") {
		t.Errorf("got %v for an unknown architecture", err)
	}
}

// What the builder writes on the command line is what /init reads there.
func TestCommandLine(t *testing.T) {
	in := &inputs{Options: &Options{CommandLine: "quiet"}, manifest: &manifest.Manifest{Boot: manifest.Boot{CommandLine: "panic=10"}}}
	r := &release.Release{Root: release.RootImage{RootHash: digest.Of([]byte("x")), HashOffset: 8192}}
	line := in.commandLine(r)
	root, offset, err := cmdline.Proa(cmdline.Parse(line))
	if err != nil || root != r.Root.RootHash || offset != r.Root.HashOffset || !strings.HasSuffix(line, " panic=10 quiet") {
		t.Errorf("got %q: %v, %d, %v", line, root, offset, err)
	}
}

func TestCheckSpace(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "yet")
	if err := checkSpace(dir, 1, "--out"); err != nil {
		t.Error(err)
	}
	if err := checkSpace(dir, 1<<60, "--out"); err == nil || !strings.Contains(err.Error(), "MiB free") || !strings.Contains(err.Error(), "set --out") {
		t.Errorf("got %v, want the free space, the needed one and the option", err)
	}
}

// Where there is no room, the setting that moves the full directory is named, not another one's.
func TestMakeRoomNamesSetting(t *testing.T) {
	in := sample(t)
	in.CacheDir = "/proc" // a file system without any space
	defer in.close()
	if err := makeRoom(t.Context(), in, nil); err == nil || !strings.Contains(err.Error(), "set PROA_CACHE") || strings.Contains(err.Error(), "--out") {
		t.Errorf("no room in the cache: got %v", err)
	}
	in = sample(t)
	in.Out = "/proc/out"
	if err := makeRoom(t.Context(), in, nil); err == nil || !strings.Contains(err.Error(), "set --out") || strings.Contains(err.Error(), "PROA_CACHE") {
		t.Errorf("no room for the build: got %v", err)
	}
}

// A mistyped overlay is an error before anything is fetched or made.
func TestBuildRefusesMissingOverlay(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	write(t, "", file)
	for overlay, want := range map[string]string{filepath.Join(dir, "missing"): "no such file or directory", file: "it is no directory"} {
		out := filepath.Join(dir, "out", "1.0.0")
		_, err := Build(t.Context(), Options{Version: "1.0.0", Out: out, Overlays: []string{dir, overlay}})
		if err == nil || !strings.Contains(err.Error(), "overlay "+overlay) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s and %q", err, overlay, want)
		}
		if _, err := os.Stat(filepath.Dir(out)); err == nil {
			t.Error("something was made before")
		}
	}
}

// An interrupt is said once, by the step that noticed it, or by none.
func TestRunInterrupted(t *testing.T) {
	for name, result := range map[string]error{"noticed": fmt.Errorf("fetch: %w", context.Canceled), "not noticed": nil} {
		ctx, cancel := context.WithCancel(t.Context())
		in := &inputs{clock: newClock(nil)}
		again := false
		err := in.run(ctx, nil, func(context.Context, *inputs, *release.Release) error { cancel(); return result },
			func(context.Context, *inputs, *release.Release) error { again = true; return nil })
		if !errors.Is(err, context.Canceled) || strings.Count(err.Error(), "context canceled") != 1 || again {
			t.Errorf("%s: got %q, next step run: %v", name, err, again)
		}
	}
}

func TestBuildRefusesVersions(t *testing.T) {
	for _, v := range []string{"", "1.0", "v1.0.0", "1.0.0+build", "one"} {
		if _, err := Build(t.Context(), Options{Version: v}); err == nil || !strings.Contains(err.Error(), "expected semver") {
			t.Errorf("version %q: got %v", v, err)
		}
	}
}

// A build replaces an earlier one, never anything else.
func TestBuildKeepsForeignDirectories(t *testing.T) {
	dir := t.TempDir()
	precious := filepath.Join(dir, "precious")
	if err := os.WriteFile(precious, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Build(t.Context(), Options{Version: "1.0.0", Out: dir}); err == nil || !strings.Contains(err.Error(), "no release.json") {
		t.Errorf("got %v, want the directory to be refused", err)
	}
	if _, err := os.Stat(precious); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "release.json"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, ok := range []string{dir, t.TempDir(), filepath.Join(dir, "new")} {
		if err := checkOut(ok); err != nil {
			t.Error(err)
		}
	}
}
