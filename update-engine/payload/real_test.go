package payload

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestReal is for builds of image-builder, whose folders PROA_OLD and PROA_NEW name: it makes the payloads, proves them and prints what they cost.
func TestReal(t *testing.T) {
	newDir := os.Getenv("PROA_NEW")
	if newDir == "" {
		t.Skip("PROA_NEW names no build")
	}
	root, boot := realBuild(t, newDir)
	if oldDir := os.Getenv("PROA_OLD"); oldDir != "" {
		oldRoot, oldBoot := realBuild(t, oldDir)
		var b bytes.Buffer
		start := time.Now()
		m, err := CreateDelta(t.Context(), &b, Delta{Source: [32]byte{1}, OldRoot: oldRoot, OldBoot: oldBoot, NewRoot: root, NewBoot: boot}, Options{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("delta: %d bytes, manifest %d, %.1f s", b.Len(), m.size, time.Since(start).Seconds())
		for _, o := range m.Outputs {
			t.Logf("%s: %d runs, %d made in %d segments", o.Kind, len(o.Runs), o.Made(), len(o.Segments))
			for i, s := range o.Segments {
				t.Logf("  %d %s %d %+v", i, s.Op, s.Length, s.Streams)
			}
		}
		start = time.Now()
		if _, err := Prove(&b, Sources{Root: oldRoot.R, RootSize: oldRoot.Size, Boot: oldBoot.R, BootSize: oldBoot.Size}, t.TempDir()); err != nil {
			t.Error(err)
		}
		t.Logf("proved in %.1f s", time.Since(start).Seconds())
	}
	if os.Getenv("PROA_FULL") == "" {
		return
	}
	var b bytes.Buffer
	start := time.Now()
	m, err := Create(t.Context(), &b, []Input{root, boot}, Options{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("full: %d bytes, %.1f %% of %d, manifest %d, %.1f s", b.Len(), 100*float64(b.Len())/float64(root.Size+boot.Size), root.Size+boot.Size, m.size, time.Since(start).Seconds())
	o := m.Output(BootProgram)
	t.Logf("%s: %d runs, %d made in %d segments %+v", o.Kind, len(o.Runs), o.Made(), len(o.Segments), o.Segments)
	if _, err := Prove(&b, Sources{}, t.TempDir()); err != nil {
		t.Error(err)
	}
}

func realBuild(t *testing.T, dir string) (root, boot Input) {
	t.Helper()
	var r struct {
		Root struct {
			HashOffset int64 `json:"hash_offset"`
		} `json:"root_image"`
	}
	b, err := os.ReadFile(filepath.Join(dir, "release.json"))
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err != nil {
		t.Fatal(err)
	}
	open := func(name string) (*os.File, int64) {
		f, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		fi, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		return f, fi.Size()
	}
	f, _ := open("root.img")
	root = Input{Kind: RootImage, R: f, Size: r.Root.HashOffset}
	f, n := open("boot.efi")
	return root, Input{Kind: BootProgram, R: f, Size: n}
}
