package payload_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/update-engine/payload"
	"github.com/proa-os/proa/update-engine/squeeze"
)

// TestReal is for builds of image-builder. PROA_PAYLOAD_NEW names the folder of one, whose full payload is made; PROA_PAYLOAD_OLD another, from
// which a delta is made instead. The payload is proven, and what it costs printed. PROA_PAYLOAD_OUT keeps it.
func TestReal(t *testing.T) {
	newDir, oldDir := os.Getenv("PROA_PAYLOAD_NEW"), os.Getenv("PROA_PAYLOAD_OLD")
	if newDir == "" {
		t.Skip("PROA_PAYLOAD_NEW names no build")
	}
	press, err := squeeze.Open()
	if err != nil {
		t.Fatal(err)
	}
	o := payload.Options{Packer: press}
	root, boot := realBuild(t, newDir)
	var b bytes.Buffer
	var m *payload.Manifest
	var src payload.Sources
	cpu := stopwatch()
	if oldDir != "" {
		oldRoot, oldBoot := realBuild(t, oldDir)
		d := payload.Delta{Source: digest.Of([]byte("old")), OldRoot: oldRoot, OldBoot: oldBoot, NewRoot: root, NewBoot: boot}
		src = payload.Sources{Root: oldRoot.R, RootSize: oldRoot.Size, Boot: oldBoot.R, BootSize: oldBoot.Size}
		m, err = payload.CreateDelta(t.Context(), &b, d, o, nil)
	} else {
		m, err = payload.Create(t.Context(), &b, []payload.Input{root, boot}, o, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("payload: %d bytes, %.2f %% of %d, made in %.1f CPU seconds with %s", b.Len(), 100*float64(b.Len())/float64(root.Size+boot.Size), root.Size+boot.Size, cpu(), press)
	for _, o := range m.Outputs {
		var stored [4]int64 // by operation
		for _, s := range o.Segments {
			stored[s.Op] += s.Stored()
		}
		t.Logf("%s: %d bytes, %d runs, %d bytes made in %d segments, DIFF %d, REPLACE %d", o.Kind, o.Size, len(o.Runs), o.Made(), len(o.Segments), stored[payload.Diff], stored[payload.Replace])
	}
	cpu = stopwatch()
	if _, err := payload.Prove(bytes.NewReader(b.Bytes()), src, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	t.Logf("proven in %.2f CPU seconds", cpu())
	name := os.Getenv("PROA_PAYLOAD_OUT")
	if name == "" {
		name = filepath.Join(t.TempDir(), "payload")
	}
	if err := os.WriteFile(name, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	e := errand{Payload: name, Out: t.TempDir()}
	if oldDir != "" {
		e.Root, e.Boot = filepath.Join(oldDir, "root.img"), filepath.Join(oldDir, "boot.efi")
	}
	c := e.run(t)
	t.Logf("applied in %.2f CPU seconds and %.1f MB, its hashing included", c.CPU, float64(c.Resident)/1e6)
}

// stopwatch returns what tells the CPU seconds since, those of finished children included.
func stopwatch() func() float64 {
	now := func() time.Duration {
		var sum time.Duration
		for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
			var u syscall.Rusage
			if err := syscall.Getrusage(who, &u); err != nil {
				panic(err)
			}
			sum += time.Duration(u.Utime.Nano() + u.Stime.Nano())
		}
		return sum
	}
	start := now()
	return func() float64 { return (now() - start).Seconds() }
}

func realBuild(t *testing.T, dir string) (root, boot payload.Input) {
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
	root = payload.Input{Kind: payload.RootImage, R: f, Size: r.Root.HashOffset}
	f, n := open("boot.efi")
	return root, payload.Input{Kind: payload.BootProgram, R: f, Size: n}
}
