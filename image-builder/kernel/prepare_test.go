package kernel

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/testenv"
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
	err := unpack(archive(t, "./boot/vmlinuz-6.12.1", "./boot/config-6.12.1", mods+"modules.order", mods+"kernel/fs/erofs/erofs.ko.xz"), dir)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{
		"vmlinuz": true, "usr/lib/modules/6.12.1/modules.order": true, "usr/lib/modules/6.12.1/kernel/fs/erofs/erofs.ko.xz": true, "boot": false,
	} {
		if _, err := os.Stat(filepath.Join(dir, name)); (err == nil) != want {
			t.Errorf("%s: present %v, want %v", name, err == nil, want)
		}
	}
	if err := unpack(archive(t, mods+"../../../../../out"), t.TempDir()); err == nil {
		t.Error("a path that leads out: no error")
	}
}

// Prepare keeps the selected modules, plain and as they came, and indexes only them.
func TestPrepare(t *testing.T) {
	tools := testenv.Tools(t)
	moduleDir, version := toolsKernel(t, tools)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(name string, content []byte) {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content))}); err != nil {
			t.Fatal(err)
		}
		w.Write(content)
	}
	add("./boot/vmlinuz-"+version, []byte("kernel"))
	add("./usr/lib/modules/"+version+"/modules.builtin", nil)
	add("./usr/lib/modules/"+version+"/modules.order", nil)
	for _, m := range []string{"drivers/md/dm-mod", "drivers/md/dm-bufio", "drivers/md/dm-verity", "drivers/md/dm-zero", "lib/reed_solomon/reed_solomon"} {
		content, err := os.ReadFile(filepath.Join(moduleDir, "kernel", m+".ko.xz"))
		if err != nil {
			t.Fatal(err)
		}
		add("./usr/lib/modules/"+version+"/kernel/"+m+".ko.xz", content)
	}
	w.Close()
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil }
	source := Source{Builder: digest.Of([]byte("builder")), Package: digest.Of(b.Bytes()), Open: open, Rules: Rules{Keep: []string{"kernel/drivers/md/dm-verity"}}}
	cache := t.TempDir()
	k, err := Prepare(t.Context(), tools, source, cache)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	old := time.Now().Add(-2 * time.Hour)
	for _, name := range []string{working + "1", damaged + "2", "1", "2", "3"} { // three others, used since
		if err := os.Mkdir(filepath.Join(cache, "kernel", name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{working + "1", damaged + "2", filepath.Base(k.Dir), "1"} {
		if err := os.Chtimes(filepath.Join(cache, "kernel", name), old, old); err != nil {
			t.Fatal(err)
		}
	}
	source.Open = func() (io.ReadCloser, error) { return nil, errors.New("it is there already") }
	again, err := Prepare(t.Context(), tools, source, cache)
	if err != nil || again.Dir != k.Dir {
		t.Fatalf("again: %v", err)
	}
	again.Close()
	var names []string
	entries, err := os.ReadDir(filepath.Join(cache, "kernel"))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if err != nil || !slices.Equal(names, []string{"2", "3", filepath.Base(k.Dir)}) {
		t.Errorf("left: %q, %v", names, err)
	}
	index, err := k.Index()
	if err != nil {
		t.Fatal(err)
	}
	got, err := index.Order([]string{"dm-verity"})
	want := []string{"kernel/drivers/md/dm-mod.ko", "kernel/drivers/md/dm-bufio.ko", "kernel/lib/reed_solomon/reed_solomon.ko", "kernel/drivers/md/dm-verity.ko"}
	slices.Sort(got)
	slices.Sort(want)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	if _, err := index.Order([]string{"dm-zero"}); err == nil {
		t.Error("dm-zero is still there")
	}
	for _, m := range got {
		plain, err := os.ReadFile(filepath.Join(k.ModulesDir(), m))
		if err != nil || !bytes.HasPrefix(plain, []byte("\x7fELF")) || !bytes.HasSuffix(plain, []byte("~Module signature appended~\n")) {
			t.Errorf("%s: %v, not a plain module with its signature", m, err)
		}
		if packed, err := os.ReadFile(k.Packed(m)); err != nil || !bytes.HasPrefix(packed, []byte("\xfd7zXZ")) {
			t.Errorf("%s: %v, not there as it came", m, err)
		}
	}
}

// A kernel that another builder, or from something else, was prepared is not taken.
func TestKey(t *testing.T) {
	sample := Source{Builder: digest.Of([]byte("b")), Package: digest.Of([]byte("p")), Rules: Rules{Keep: []string{"k"}}}
	seen := map[digest.SHA256]string{sample.key("/cache/tools/1"): "sample"}
	for name, c := range map[string]struct {
		change func(*Source)
		tools  string
	}{
		"builder": {func(s *Source) { s.Builder = digest.Of([]byte("b2")) }, "1"},
		"package": {func(s *Source) { s.Package = digest.Of([]byte("p2")) }, "1"},
		"keep":    {func(s *Source) { s.Rules.Keep = []string{"k2"} }, "1"},
		"drop":    {func(s *Source) { s.Rules.Drop = []string{"k"} }, "1"},
		"tools":   {func(*Source) {}, "2"},
	} {
		s := sample
		c.change(&s)
		key := s.key("/cache/tools/" + c.tools)
		if other, ok := seen[key]; ok {
			t.Errorf("%s: the key is that of %s", name, other)
		}
		seen[key] = name
	}
	if sample.key("/elsewhere/tools/1") != sample.key("/cache/tools/1") {
		t.Error("the key depends on the cache's place")
	}
}
