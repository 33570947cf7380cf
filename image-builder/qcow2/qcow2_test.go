package qcow2

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/proa-os/proa/internal/testenv"
)

// disks are contents that touch every kind of cluster and table.
func disks() map[string][]byte {
	noise := make([]byte, 5*clusterSize)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(noise)
	text := bytes.Repeat([]byte("words that compress well; "), 40_000)
	mixed := make([]byte, 600<<20) // two L2 tables
	copy(mixed[3*clusterSize-100:], text)
	copy(mixed[100*clusterSize:], noise) // does not compress
	copy(mixed[106*clusterSize:], text)
	copy(mixed[len(mixed)-1000:], text)
	return map[string][]byte{
		"empty": make([]byte, 1<<20), "one byte": append(make([]byte, clusterSize-1), 1), "odd": text[:3*sector], "noise": noise, "mixed": mixed,
	}
}

// What we write, QEMU finds faultless and the same as the disk.
func TestJudge(t *testing.T) {
	tools := testenv.Tools(t)
	for name, disk := range disks() {
		dir := t.TempDir()
		raw, img := filepath.Join(dir, "raw"), filepath.Join(dir, "qcow2")
		if err := os.WriteFile(raw, disk, 0o644); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(raw)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := Write(img, f, int64(len(disk))); err != nil {
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
	disk := disks()["mixed"]
	dir := t.TempDir()
	sparse, err := os.Create(filepath.Join(dir, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	defer sparse.Close()
	if err := sparse.Truncate(int64(len(disk))); err != nil {
		t.Fatal(err)
	}
	for at := 0; at < len(disk); at += 4096 {
		if b := disk[at : at+4096]; !bytes.Equal(b, make([]byte, 4096)) {
			if _, err := sparse.WriteAt(b, int64(at)); err != nil {
				t.Fatal(err)
			}
		}
	}
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	if err := Write(a, bytes.NewReader(disk), int64(len(disk))); err != nil {
		t.Fatal(err)
	}
	if err := Write(b, sparse, int64(len(disk))); err != nil {
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
