package debian

import (
	"archive/tar"
	"bytes"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/proa-os/proa/image-builder/fat"
	"github.com/proa-os/proa/image-builder/lock"
	"github.com/proa-os/proa/internal/gpt"
	"github.com/proa-os/proa/qemu-tests/vm"
)

// The lock in the repository is that of the manifest, and holds what the comparison is about.
func TestManifest(t *testing.T) {
	m, err := lock.ReadManifest("../../../manifests/debian.toml")
	if err != nil {
		t.Fatal(err)
	}
	l, err := lock.Read("../../../manifests/debian.lock.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Check(m.Packages); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"systemd-sysv", "openssh-server", "systemd-resolved", "initramfs-tools", "linux-image-amd64", "base-passwd", "dpkg"} {
		if _, ok := l.Find(name); !ok {
			t.Errorf("%s is not locked", name)
		}
	}
	mk := &maker{lock: l}
	if order := mk.order(); order[0].Name != "base-files" || len(order) != len(l.Packages) {
		t.Errorf("got %s first of %d, want base-files of %d", order[0].Name, len(order), len(l.Packages))
	}
}

func TestCacheKey(t *testing.T) {
	a := &lock.Lock{Format: lock.Format, Arch: "amd64"}
	b := &lock.Lock{Format: lock.Format, Arch: "amd64", Packages: []lock.Package{{Name: "a", Version: "1"}}}
	keyA, err := cacheKey(a)
	if err != nil {
		t.Fatal(err)
	}
	keyB, err := cacheKey(b)
	if err != nil {
		t.Fatal(err)
	}
	if keyA == keyB || len(keyA) != 16 {
		t.Errorf("got %s and %s, want two keys of 16 digits", keyA, keyB)
	}
}

func TestUnpackEntry(t *testing.T) {
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for _, h := range []tar.Header{
		{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755},
		{Typeflag: tar.TypeDir, Name: "./usr/bin/", Mode: 0o755},
		{Typeflag: tar.TypeSymlink, Name: "./bin", Linkname: "usr/bin"},
		{Typeflag: tar.TypeDir, Name: "./bin/", Mode: 0o755}, // Another package's idea of /bin.
		{Typeflag: tar.TypeReg, Name: "./bin/su", Mode: 0o4755, Size: 2},
		{Typeflag: tar.TypeLink, Name: "./usr/bin/hard", Linkname: "./bin/su"},
		{Typeflag: tar.TypeDir, Name: "./tmp/", Mode: 0o1777},
	} {
		if err := unpackEntry(root, &h, strings.NewReader("su")); err != nil {
			t.Errorf("%s: %v", h.Name, err)
		}
	}
	if b, err := os.ReadFile(filepath.Join(dir, "usr/bin/hard")); err != nil || string(b) != "su" {
		t.Errorf("got %q, %v", b, err)
	}
	for name, want := range map[string]fs.FileMode{"usr/bin/su": 0o755, "tmp": fs.ModeDir | fs.ModeSticky | 0o777} {
		if fi, err := os.Lstat(filepath.Join(dir, name)); err != nil || fi.Mode() != want {
			t.Errorf("%s: got %v, %v, want %v", name, fi.Mode(), err, want)
		}
	}
	for want, h := range map[string]tar.Header{
		"leads out":     {Typeflag: tar.TypeReg, Name: "../evil", Mode: 0o644},
		"not expected":  {Typeflag: tar.TypeChar, Name: "./null"},
		"file exists":   {Typeflag: tar.TypeReg, Name: "./usr/bin/su", Mode: 0o644},
		"path escapes":  {Typeflag: tar.TypeLink, Name: "./x", Linkname: "../../etc/passwd"},
		"no such file ": {Typeflag: tar.TypeLink, Name: "./y", Linkname: "./none"},
	} {
		if err := unpackEntry(root, &h, strings.NewReader("")); err == nil || !strings.Contains(err.Error(), strings.TrimSpace(want)) {
			t.Errorf("%s: got %v, want %q", h.Name, err, want)
		}
	}
}

// The disk's parts are where table, firmware and kernel look for them.
func TestDiskParts(t *testing.T) {
	table, err := layout()
	if err != nil {
		t.Fatal(err)
	}
	root, err := table.Find("root")
	if err != nil {
		t.Fatal(err)
	}
	if root.Number != 2 || table.Size(root) != rootSize { // guest mounts /dev/vda2.
		t.Errorf("got partition %d of %d bytes, want the second of %d", root.Number, table.Size(root), int64(rootSize))
	}
	name := filepath.Join(t.TempDir(), "disk")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(DiskSize); err != nil {
		t.Fatal(err)
	}
	if err := table.Write(f); err != nil {
		t.Fatal(err)
	}
	if err := writeESP(f, table, fat.BytesFile("loader/entries/debian.conf", []byte("title Debian\n"))); err != nil {
		t.Fatal(err)
	}
	content := filepath.Join(t.TempDir(), "root")
	want := append(make([]byte, mib), "behind a hole"...)
	if err := os.WriteFile(content, want, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := copyAt(t.Context(), f, table.Offset(root), content); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(want))
	if _, err := f.ReadAt(got, table.Offset(root)); err != nil || !bytes.Equal(got, want) {
		t.Errorf("got other bytes in the root partition, %v", err)
	}
	if read, err := gpt.Read(f, DiskSize, sectorSize); err != nil || len(read.Partitions) != 2 {
		t.Errorf("got %v, %v", read, err)
	}
	esp, err := table.Find("esp")
	if err != nil {
		t.Fatal(err)
	}
	v, err := fat.Open(io.NewSectionReader(f, table.Offset(esp), table.Size(esp)))
	if err != nil {
		t.Fatal(err)
	}
	files, err := v.Files()
	if err != nil || len(files) != 1 || files[0].Path != "loader/entries/debian.conf" {
		t.Errorf("got %v, %v", files, err)
	}
}

// The cache gets a whole image or none, and with it the key that logs in.
func TestFinish(t *testing.T) {
	key, err := vm.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	cache := t.TempDir()
	m := &maker{Options: Options{Progress: io.Discard}, work: filepath.Join(cache, ".work"), key: key}
	if err := os.MkdirAll(filepath.Join(m.work, "machine"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"disk.raw", "console.log", "qemu.log"} {
		if err := os.WriteFile(filepath.Join(m.work, "machine", name), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	image := Image{Dir: filepath.Join(cache, "debian-1")}
	if err := m.finish(image.Dir); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"disk.img": "disk.raw", "configure.log": "console.log"} {
		if b, err := os.ReadFile(filepath.Join(image.Dir, name)); err != nil || string(b) != want {
			t.Errorf("%s: got %q, %v, want %s", name, b, err, want)
		}
	}
	if got, err := image.Key(); err != nil || got.AuthorizedKey() != key.AuthorizedKey() {
		t.Errorf("got another key, %v", err)
	}
}

// What a failed machine has said stays.
func TestKeepLogs(t *testing.T) {
	cache := t.TempDir()
	m := &maker{work: filepath.Join(cache, ".work")}
	if saved := m.keepLogs(filepath.Join(cache, "debian-1")); saved != "" {
		t.Errorf("got %s without logs", saved)
	}
	if err := os.MkdirAll(filepath.Join(m.work, "machine"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(m.work, "machine", "console.log"), []byte("debian: failed"), 0o644); err != nil {
		t.Fatal(err)
	}
	saved := m.keepLogs(filepath.Join(cache, "debian-1"))
	if b, err := os.ReadFile(filepath.Join(saved, "console.log")); err != nil || string(b) != "debian: failed" {
		t.Errorf("got %q in %s, %v", b, saved, err)
	}
}
