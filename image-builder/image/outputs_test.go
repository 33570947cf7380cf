package image

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestArtifacts(t *testing.T) {
	dir := t.TempDir()
	if _, err := Artifacts(dir); err == nil || !strings.Contains(err.Error(), "no release.json") {
		t.Errorf("an empty directory: got %v", err)
	}
	write(t, "{}", dir, "release.json")
	write(t, "log", dir, "run/console.log")
	f, err := os.Create(filepath.Join(dir, "disk.img"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(1 << 30); err != nil {
		t.Fatal(err)
	}
	list, err := Artifacts(dir)
	if err != nil || len(list) != 2 || list[0].Name != "disk.img" || list[0].Size != 1<<30 || list[0].Disk > 1<<20 || list[1].Size != 2 {
		t.Errorf("got %+v, %v", list, err)
	}
}

// Where nobody watches, a step is one line, and a second one if it took long.
func TestClock(t *testing.T) {
	var b bytes.Buffer
	c := newClock(&b)
	c.stop() // nothing has begun
	c.start("one")
	c.start("two")
	c.from = time.Now().Add(-3 * time.Second)
	c.stop()
	c.stop()
	if want := "==> one\n==> two\n    took 3.0 s\n"; b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}

// On a terminal the seconds of the current step are counted in its line.
func TestClockLive(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c := &clock{w: w, live: true}
	c.start("one")
	out := bufio.NewReader(r)
	first, err := out.ReadString('\r') // blocks until the first tick, however late it comes
	if err != nil || first != "==> one\r" {
		t.Errorf("got %q, %v", first, err)
	}
	c.stop()
	w.Close()
	rest, err := io.ReadAll(out)
	if err != nil || !strings.HasPrefix(string(rest), "==> one: ") || !strings.HasSuffix(string(rest), " s\n") {
		t.Errorf("got %q, %v", rest, err)
	}
}
