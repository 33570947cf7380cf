package tooltree_test

import (
	"context"
	"debug/elf"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/proa-os/proa/internal/arch"
	"github.com/proa-os/proa/internal/testenv"
	"github.com/proa-os/proa/internal/tooltree"
)

// TestPrograms starts every program that the build and the tests use, with an argument that makes it say who it is.
func TestPrograms(t *testing.T) {
	tree := testenv.Tools(t)
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"qemu-system-x86_64", "--version"}, "QEMU emulator version 10."},
		{[]string{"qemu-img", "--version"}, "qemu-img version 10."},
		{[]string{"mkfs.erofs", "--version"}, "mkfs.erofs"},
		{[]string{"fsck.erofs", "--version"}, "fsck.erofs"},
		{[]string{"dump.erofs", "--version"}, "dump.erofs"},
		{[]string{"veritysetup", "--version"}, "veritysetup 2."},
		{[]string{"apt-get", "--version"}, "apt 3."},
		{[]string{"gpgv", "--version"}, "gpgv (GnuPG) 2."},
		{[]string{"dpkg", "--version"}, "package management program"},
		{[]string{"dpkg-deb", "--version"}, "package archive backend"},
		{[]string{"sfdisk", "--version"}, "sfdisk from util-linux"},
		{[]string{"mke2fs", "-V"}, "mke2fs 1.47"},
		{[]string{"e2fsck", "-V"}, "e2fsck 1.47"},
		{[]string{"debugfs", "-V"}, "debugfs 1.47"},
		{[]string{"fsck.fat", "--help"}, "fsck.fat"},
		{[]string{"mcopy", "--version"}, "mtools"},
		{[]string{"cpio", "--version"}, "GNU cpio"},
		{[]string{"depmod", "--version"}, "kmod version"},
		{[]string{"modinfo", "--version"}, "kmod version"},
		{[]string{"busybox", "true"}, ""},
		{[]string{"xz", "--version"}, "liblzma"},
		{[]string{"zstd", "--version"}, "Zstandard"},
		{[]string{"objdump", "--version"}, "GNU objdump"},
		{[]string{"python3.13", "--version"}, "Python 3.13"},
		{[]string{"readelf", "--version"}, "GNU readelf"},
		{[]string{"ssh", "-V"}, "OpenSSH_10"},
		{[]string{"ssh-keygen", "-t", "ed25519", "-N", "", "-f", filepath.Join(t.TempDir(), "key")}, "SHA256:"},
	} {
		t.Run(tc.args[0], func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			out, err := tree.Command(ctx, tc.args[0], tc.args[1:]...).CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if !strings.Contains(string(out), tc.want) {
				t.Errorf("got %q, want it to contain %q", out, tc.want)
			}
		})
	}
}

func TestFiles(t *testing.T) {
	tree := testenv.Tools(t)
	for _, name := range []string{
		hostArch(t).Stub(),
		hostArch(t).BootLoader(),
		"usr/share/OVMF/OVMF_CODE_4M.fd",
		"usr/share/OVMF/OVMF_VARS_4M.fd",
		"usr/share/seabios/bios-256k.bin",
		"usr/share/qemu/kvmvapic.bin",
	} {
		if fi, err := os.Stat(tree.Path(name)); err != nil || !fi.Mode().IsRegular() {
			t.Errorf("%s: got %v, want a file", name, err)
		}
	}
}

func hostArch(t *testing.T) arch.Arch {
	t.Helper()
	host, err := arch.Host()
	if err != nil {
		t.Fatal(err)
	}
	return host
}

// fakeTree is a tree with a loader and the given files in usr/bin.
func fakeTree(t *testing.T, files map[string]string) *tooltree.Tree {
	t.Helper()
	dir := t.TempDir()
	host := hostArch(t)
	files["../../"+host.Loader] = "loader"
	files["../../"+host.LibDir()+"/private/libx.so.1"] = "library"
	for name, content := range files {
		file := filepath.Join(dir, "usr/bin", name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	tree, err := tooltree.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func TestCommandRefuses(t *testing.T) {
	tree := fakeTree(t, map[string]string{"script": "#!/bin/sh\nexit 0\n"})
	for program, want := range map[string]string{
		"absent":     "has no such program",
		"script":     "is not an ELF program",
		"../bin/env": "expected a name without a path",
		"":           "expected a name without a path",
	} {
		err := tree.Command(t.Context(), program).Run()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got error %v, want one with %q", program, err, want)
		}
	}
	if err := tree.Command(t.Context(), "absent").Run(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent program: got %v, want fs.ErrNotExist", err)
	}
}

// The test binary itself is a static ELF program or a dynamic one; either way Command must choose by its PT_INTERP.
func TestCommandStaticOrDynamic(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	tree := fakeTree(t, map[string]string{"prog": string(b)})
	f, err := elf.Open(exe)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	dynamic := f.Section(".interp") != nil
	args := tree.Command(t.Context(), "prog", "-x").Args
	if got := strings.HasSuffix(args[0], hostArch(t).Loader); got != dynamic {
		t.Errorf("through the loader: got %v, want %v (%q)", got, dynamic, args)
	}
	if args[len(args)-1] != "-x" {
		t.Errorf("got %q, want the argument at the end", args)
	}
	if dynamic && !strings.Contains(strings.Join(args, " "), hostArch(t).Triplet+"/private") {
		t.Errorf("got %q, want the private library directory in the library path", args)
	}
}

func TestEnvironment(t *testing.T) {
	t.Setenv("LD_PRELOAD", "/nonexistent.so")
	t.Setenv("LANG", "xx_YY")
	t.Setenv("PROA_TEST_KEEP", "1")
	exe, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	tree := fakeTree(t, map[string]string{"prog": string(exe)})
	env := tree.Command(t.Context(), "prog").Env
	for _, kv := range []string{"PROA_TEST_KEEP=1", "LC_ALL=C.UTF-8", "TZ=UTC", "MKE2FS_CONFIG=" + tree.Path("etc/mke2fs.conf")} {
		if !slices.Contains(env, kv) {
			t.Errorf("got %q, want %s in it", env, kv)
		}
	}
	for _, kv := range env {
		if strings.HasPrefix(kv, "LD_") || strings.HasPrefix(kv, "LANG=") {
			t.Errorf("got %s, want it removed", kv)
		}
	}
}

// TestOpenOtherArch: the tree of a cache that came from a machine of another kind.
func TestOpenOtherArch(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "usr/lib/riscv64-linux-gnu"), 0o755); err != nil {
		t.Fatal(err)
	}
	_, err := tooltree.OpenDir(dir)
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "no programs for this host, which is "+hostArch(t).Debian) {
		t.Errorf("got %v, want an error that names the host's architecture", err)
	}
}

func TestOpen(t *testing.T) {
	t.Setenv("PROA_TOOLS", "")
	t.Setenv("PROA_CACHE", t.TempDir())
	_, err := tooltree.Open()
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "image-builder tools") {
		t.Errorf("no tree: got %v, want fs.ErrNotExist and the command that makes one", err)
	}
	want := fakeTree(t, map[string]string{}).Dir()
	t.Setenv("PROA_TOOLS", want)
	tree, err := tooltree.Open()
	if err != nil || tree.Dir() != want {
		t.Errorf("PROA_TOOLS: got %v, %v, want the tree in %s", tree, err, want)
	}
}
