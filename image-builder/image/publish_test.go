package image

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/proa-os/proa/image-builder/stage"
	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/release"
)

// safeBuffer is read while a build writes to it.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// Two builds into one directory come one after the other; the second says that it waits, and an interrupt ends that.
func TestLockOut(t *testing.T) {
	first := sample(t)
	if err := lockOut(t.Context(), first, nil); err != nil {
		t.Fatal(err)
	}
	var out safeBuffer
	second := &inputs{Options: first.Options, clock: newClock(&out)}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := lockOut(ctx, second, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: got %v", err)
	}
	second.close()

	second = &inputs{Options: first.Options, clock: newClock(&out)}
	done := make(chan error, 1)
	go func() { done <- lockOut(t.Context(), second, nil) }()
	select {
	case err := <-done:
		t.Fatalf("two builds into one directory at once: %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	if want := "waiting for another build into " + first.Out; !strings.Contains(out.String(), want) {
		t.Errorf("got %q, want %q", out.String(), want)
	}
	first.close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	second.close()

	elsewhere := sample(t)
	if err := lockOut(t.Context(), elsewhere, nil); err != nil {
		t.Error(err)
	}
	elsewhere.close()
}

// What is in Out after publish is what the receipt says, whoever changes it at whatever moment: the seal is older than the name.
func TestPublish(t *testing.T) {
	r := &release.Release{Version: "1.0.0", Arch: "amd64",
		Root: release.RootImage{Size: 3 * 4096, HashOffset: 4096, RootHash: digest.Of([]byte("root")), SHA256: digest.Of([]byte("image"))},
		Boot: release.BootProgram{Size: 1, SHA256: digest.Of([]byte("boot"))}}
	text, err := r.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	in := sample(t)
	in.NoQcow2 = true
	for _, content := range []string{"first", "second"} {
		in.work = filepath.Join(filepath.Dir(in.Out), workPrefix+"1")
		in.programs = filepath.Join(in.work, "programs")
		for name, text := range map[string]string{"release.json": string(text), "disk.img": content, "programs/p": ""} {
			write(t, text, in.work, name)
		}
		if err := publish(t.Context(), in, r); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(filepath.Join(in.Out, "disk.img")); err != nil || string(b) != content {
			t.Errorf("got %q, %v, want the %s build", b, err, content)
		}
		if in.finished() == nil {
			t.Errorf("the %s build is not finished: its files lost their identity on the way", content)
		}
	}
	if left, err := os.ReadDir(filepath.Dir(in.Out)); err != nil || len(left) != 1 {
		t.Errorf("left beside %s: %v, %v", in.Out, left, err)
	}

	// A build that another one has replaced before its receipt was written does not vouch for the other's files.
	in.work = filepath.Join(filepath.Dir(in.Out), workPrefix+"2")
	write(t, string(text), in.work, "release.json")
	write(t, "third", in.work, "disk.img")
	written, err := in.receipt(in.work)
	if err != nil {
		t.Fatal(err)
	}
	if err := in.remember(written); err != nil { // Out holds the second build
		t.Fatal(err)
	}
	if in.finished() != nil {
		t.Error("another build's files were taken for this one's")
	}
}

// A build clears what a killed one has left beside Out, and holds its own directory against others that do.
func TestMakeRoomSweeps(t *testing.T) {
	in := sample(t)
	parent := filepath.Dir(in.Out)
	killed := filepath.Join(parent, workPrefix+"1")
	write(t, "", killed, "root.img")
	old := time.Now().Add(-2 * time.Hour)
	if err := os.Chtimes(killed, old, old); err != nil {
		t.Fatal(err)
	}
	if err := makeRoom(t.Context(), in, nil); err != nil {
		t.Fatal(err)
	}
	defer in.close()
	if _, err := os.Stat(killed); err == nil {
		t.Error("what a killed build has left is still there")
	}
	if err := os.Chtimes(in.work, old, old); err != nil {
		t.Fatal(err)
	}
	stage.Sweep(parent, workPrefix)
	if _, err := os.Stat(in.work); err != nil {
		t.Errorf("a build's directory was swept away while it was built in: %v", err)
	}
}

// When the new build cannot take the name, the old one keeps it.
func TestReplaceDirKeepsTheOld(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	write(t, "old", out, "release.json")
	if err := replaceDir(out, filepath.Join(dir, "missing")); err == nil {
		t.Error("no error")
	}
	if b, err := os.ReadFile(filepath.Join(out, "release.json")); err != nil || string(b) != "old" {
		t.Errorf("got %q, %v", b, err)
	}
}
