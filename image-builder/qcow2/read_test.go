package qcow2

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/proa-os/proa/internal/testenv"
)

// What QEMU and we write is read as the disk that it was.
func TestOpen(t *testing.T) {
	tools := testenv.Tools(t)
	for name, disk := range disks() {
		dir := t.TempDir()
		raw := disk.write(t, filepath.Join(dir, "raw"))
		for kind, args := range map[string]string{
			"ours": "", "plain": "", "zlib": "-c", "zstd": "-c -o compression_type=zstd", "version 2": "-o compat=0.10", "small clusters": "-c -o cluster_size=4096",
		} {
			img := filepath.Join(dir, kind)
			if kind == "ours" {
				if err := Write(img, raw, disk.size); err != nil {
					t.Fatal(err)
				}
			} else {
				all := append(strings.Fields("convert -f raw -O qcow2 "+args), raw.Name(), img)
				if out, err := tools.Command(t.Context(), "qemu-img", all...).CombinedOutput(); err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
			}
			f, err := os.Open(img)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			d, err := Open(f)
			if err != nil {
				t.Errorf("%s, %s: %v", name, kind, err)
				continue
			}
			if d.Size() != disk.size {
				t.Errorf("%s, %s: got %d bytes, want %d", name, kind, d.Size(), disk.size)
			}
			for at, piece := range disk.pieces {
				start := max(at-3*clusterSize/2, 0)
				got, want := make([]byte, len(piece)+3*clusterSize), make([]byte, len(piece)+3*clusterSize)
				n, errN := d.ReadAt(got, start)
				m, errM := raw.ReadAt(want, start)
				if n != m || errN != errM || !bytes.Equal(got, want) {
					t.Errorf("%s, %s: at %d other bytes: %d, %v; want %d, %v", name, kind, start, n, errN, m, errM)
				}
			}
		}
	}
}

func FuzzOpen(f *testing.F) {
	name := filepath.Join(f.TempDir(), "img")
	if err := Write(name, strings.NewReader(strings.Repeat("text", 50_000)), 200_000); err != nil {
		f.Fatal(err)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := Open(bytes.NewReader(b))
		if err != nil {
			return
		}
		buf := make([]byte, 100)
		for _, at := range []int64{0, d.Size() / 2, d.Size() - 1} {
			if n, err := d.ReadAt(buf, at); err == nil && n != len(buf) {
				t.Errorf("%d bytes at %d of %d and no error", n, at, d.Size())
			}
		}
	})
}
