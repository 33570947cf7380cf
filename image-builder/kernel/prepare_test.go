package kernel

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func archive(t *testing.T, names ...string) *tar.Reader {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, n := range names {
		if err := w.WriteHeader(&tar.Header{Name: n, Mode: 0o644, Size: 1}); err != nil {
			t.Fatal(err)
		}
		w.Write([]byte("x"))
	}
	w.Close()
	return tar.NewReader(&b)
}

const mods = "./usr/lib/modules/6.12.1/"

func TestUnpack(t *testing.T) {
	dir := t.TempDir()
	got, err := unpack(archive(t, "./boot/vmlinuz-6.12.1", "./boot/config-6.12.1", mods+"modules.order",
		mods+"kernel/fs/erofs/erofs.ko.xz", mods+"kernel/sound/snd.ko.xz"), []string{"kernel/sound"}, dir)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"usr/lib/modules/6.12.1/kernel/fs/erofs/erofs.ko.xz"}; !reflect.DeepEqual(got, want) {
		t.Errorf("modules: got %q, want %q", got, want)
	}
	for name, want := range map[string]bool{
		"vmlinuz": true, "usr/lib/modules/6.12.1/modules.order": true, "usr/lib/modules/6.12.1/kernel/sound": false, "boot": false,
	} {
		if _, err := os.Stat(filepath.Join(dir, name)); (err == nil) != want {
			t.Errorf("%s: present %v, want %v", name, err == nil, want)
		}
	}
}

func TestUnpackRefuses(t *testing.T) {
	if _, err := unpack(archive(t, mods+"kernel/a.ko.xz"), []string{"kernel/soundd"}, t.TempDir()); err == nil || !strings.Contains(err.Error(), "kernel/soundd") {
		t.Errorf("dead drop entry: got %v", err)
	}
	if _, err := unpack(archive(t, mods+"../../../../../out"), nil, t.TempDir()); err == nil {
		t.Error("a path that leads out: no error")
	}
}
