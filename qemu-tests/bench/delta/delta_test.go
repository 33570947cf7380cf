package delta

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/proa-os/proa/update-engine/extent"
)

// The test binary is the child whose use is measured.
func TestMain(m *testing.M) {
	switch os.Getenv("PROA_TEST_CHILD") {
	case "busy":
		var b [][]byte
		for range 64 {
			b = append(b, bytes.Repeat([]byte{1}, 1<<20))
		}
		n := 0
		for range 50 {
			for _, c := range b {
				n += bytes.Count(c, []byte{1})
			}
		}
		os.Stdout.WriteString(strings.Repeat(".", n%7+1))
		os.Exit(0)
	case "fails":
		os.Stderr.WriteString(strings.Repeat("noise ", 1000) + "the reason")
		os.Exit(3)
	}
	os.Exit(m.Run())
}

func child(t *testing.T, what string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), "PROA_TEST_CHILD="+what)
	return cmd
}

func TestUsage(t *testing.T) {
	u, err := usage(child(t, "busy"))
	if err != nil {
		t.Fatal(err)
	}
	if u.Memory < 64<<20 || u.Memory > 1<<30 || u.CPU <= 0.01 || u.CPU > 100 {
		t.Errorf("got %+v of a child that fills 64 MiB and reads them", u)
	}
	if sum := u.and(Usage{CPU: 1, Memory: 1}); sum.CPU != u.CPU+1 || sum.Memory != u.Memory {
		t.Errorf("got %+v, want the sum of the times and the larger memory", sum)
	}
	_, err = usage(child(t, "fails"))
	if err == nil || !strings.HasSuffix(err.Error(), "the reason") || !strings.Contains(err.Error(), "exit status 3") || len(err.Error()) > 2200 {
		t.Errorf("got %v, want the end of what it said", err)
	}
}

func TestPeakMemory(t *testing.T) {
	before, err := peakMemory()
	if err != nil {
		t.Fatal(err)
	}
	b := bytes.Repeat([]byte{1}, int(before)+64<<20)
	after, err := peakMemory()
	if err != nil || after < before+64<<20 || bytes.Count(b, []byte{1}) != len(b) {
		t.Errorf("got %d, then %d with another %d bytes, %v", before, after, len(b), err)
	}
}

// A payload is applied here under the same limit as on a machine.
func TestAgentLimit(t *testing.T) {
	b, err := os.ReadFile("../../../manifests/files/usr/lib/systemd/system/update-engine.service")
	if err != nil || !strings.Contains(string(b), agentLimit+"\n") {
		t.Errorf("%v, or the agent's unit does not say %s", err, agentLimit)
	}
}

func TestDoRefuses(t *testing.T) {
	for want, task := range map[string]string{
		"read task":     "{",
		`no "sing"`:     `{"do":"sing"}`,
		"release.json":  `{"do":"delta","old":"/nonexistent","new":"/nonexistent","payload":"/nonexistent"}`,
		"/nonexistent2": `{"do":"apply","payload":"/nonexistent2"}`,
	} {
		var b bytes.Buffer
		if err := Do(t.Context(), task, &b); err == nil || !strings.Contains(err.Error(), want) || b.Len() > 0 {
			t.Errorf("%s: got %v and %q, want %q", task, err, b.String(), want)
		}
	}
}

// What a machine fetches with casync is the index and the new chunks only.
func TestTreeSize(t *testing.T) {
	dir := t.TempDir()
	err := errors.Join(os.MkdirAll(filepath.Join(dir, "a/b"), 0o755), os.WriteFile(filepath.Join(dir, "a/b/one"), make([]byte, 1000), 0o644),
		os.WriteFile(filepath.Join(dir, "two"), make([]byte, 234), 0o644), os.Symlink("two", filepath.Join(dir, "link")))
	if err != nil {
		t.Fatal(err)
	}
	if n, err := treeSize(dir); n != 1234 || err != nil {
		t.Errorf("got %d, %v", n, err)
	}
	if n, err := treeSize(filepath.Join(dir, "absent")); n != 0 || err != nil {
		t.Errorf("absent: got %d, %v", n, err)
	}
}

func TestCopyStart(t *testing.T) {
	dir := t.TempDir()
	b := make([]byte, 10_000)
	rand.NewChaCha8([32]byte{}).Read(b)
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	if err := os.WriteFile(from, b, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := copyStart(to, from, 4096); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(to); err != nil || !bytes.Equal(got, b[:4096]) {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
	if err := copyStart(to, from, 10_001); err == nil {
		t.Error("a file that is too short was taken")
	}
}

// A new file has nothing before it, which bsdiff would not take.
func TestWriteExtent(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	for _, c := range []struct {
		e    extent.Extent
		want string
	}{{extent.Extent{Offset: 2, Length: 5, Size: 3}, "234"}, {extent.Extent{}, "\x00"}} {
		if err := writeExtent(name, strings.NewReader("0123456789"), c.e); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(name); err != nil || string(b) != c.want {
			t.Errorf("%+v: got %q, %v, want %q", c.e, b, err, c.want)
		}
	}
}
