package qcow2

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/proa-os/proa/internal/testenv"
)

// A disk is zeros with pieces in them.
type disk struct {
	size   int64
	pieces map[int64][]byte // by their offset
}

// write makes the raw image, a sparse file.
func (d disk) write(t *testing.T, name string) *os.File {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(d.size); err != nil {
		t.Fatal(err)
	}
	for at, b := range d.pieces {
		if _, err := f.WriteAt(b, at); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// disks touch every kind of cluster and table.
func disks() map[string]disk {
	noise := make([]byte, 5*clusterSize)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(noise)
	text := bytes.Repeat([]byte("words that compress well; "), 40_000)
	const large = 600 << 20 // two L2 tables
	return map[string]disk{
		"empty": {1 << 20, nil}, "one byte": {clusterSize, map[int64][]byte{clusterSize - 1: {1}}}, "odd": {3 * sector, map[int64][]byte{0: text[:3*sector]}},
		"noise": {int64(len(noise)), map[int64][]byte{0: noise}},
		"mixed": {large, map[int64][]byte{3*clusterSize - 100: text, 100 * clusterSize: noise, 106 * clusterSize: text, large - 1000: text[:1000]}},
	}
}

// What we write, QEMU finds faultless and the same as the disk.
func TestJudge(t *testing.T) {
	tools := testenv.Tools(t)
	for name, disk := range disks() {
		dir := t.TempDir()
		raw, img := filepath.Join(dir, "raw"), filepath.Join(dir, "qcow2")
		if err := Write(img, disk.write(t, raw), disk.size); err != nil {
			t.Fatal(err)
		}
		for _, judge := range []struct{ want, args string }{
			{"No errors were found", "check -f qcow2 " + img},
			{"Images are identical", "compare -f raw -F qcow2 " + raw + " " + img},
			{"compression type: zstd", "info -f qcow2 " + img},
		} {
			out, err := tools.Command(t.Context(), "qemu-img", strings.Fields(judge.args)...).CombinedOutput()
			if err != nil || !strings.Contains(string(out), judge.want) {
				t.Errorf("%s: qemu-img %s: %v\n%s", name, judge.args, err, out)
			}
		}
		if name == "mixed" {
			if fi, err := os.Stat(img); err != nil || fi.Size() > 2<<20 {
				t.Errorf("%d bytes, %v: nothing was compressed", fi.Size(), err)
			}
		}
	}
}

// Neither timing nor where the disk has holes may show.
func TestSameBytes(t *testing.T) {
	d := disk{8 << 20, disks()["mixed"].pieces}
	delete(d.pieces, 600<<20-1000)
	dir := t.TempDir()
	sparse := d.write(t, filepath.Join(dir, "sparse"))
	dense := make([]byte, d.size)
	if _, err := sparse.ReadAt(dense, 0); err != nil {
		t.Fatal(err)
	}
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	if err := errors.Join(Write(a, bytes.NewReader(dense), d.size), Write(b, sparse, d.size)); err != nil {
		t.Fatal(err)
	}
	x, errX := os.ReadFile(a)
	y, errY := os.ReadFile(b)
	if errX != nil || errY != nil || !bytes.Equal(x, y) {
		t.Errorf("%v, %v: %d and %d bytes, not the same", errX, errY, len(x), len(y))
	}
}

func TestWriteFails(t *testing.T) {
	name := filepath.Join(t.TempDir(), "img")
	if err := Write(name, strings.NewReader("short"), clusterSize); err == nil {
		t.Error("a disk shorter than it says was written")
	}
	if _, err := os.Stat(name); err == nil {
		t.Error("half an image was left behind")
	}
	if err := os.WriteFile(name, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Write(name, strings.NewReader("x"), 1); err == nil {
		t.Error("a file that was there was replaced")
	}
}
