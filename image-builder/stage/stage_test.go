package stage

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/proa-os/proa/internal/digest"
)

func open(t *testing.T, limit int64) *Cache {
	t.Helper()
	c, err := Open(filepath.Join(t.TempDir(), "stages"), limit)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// fill makes an entry of one file and counts how often it does.
func fill(text string, calls *atomic.Int32) Fill {
	return func(dir string) (map[string]digest.SHA256, error) {
		calls.Add(1)
		return nil, os.WriteFile(filepath.Join(dir, "f"), []byte(text), 0o644)
	}
}

func read(t *testing.T, e *Entry) string {
	t.Helper()
	b, err := os.ReadFile(e.Path("f"))
	if err != nil {
		t.Fatal(err)
	}
	if got := e.Sum("f"); got != digest.Of(b) {
		t.Errorf("got sum %s, want %s", got, digest.Of(b))
	}
	return string(b)
}

func make1(t *testing.T, c *Cache, name, text string, calls *atomic.Int32) (string, bool) {
	t.Helper()
	e, hit, err := c.Make(NewKey(name).Sum(), fill(text, calls))
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	return read(t, e), hit
}

func TestMake(t *testing.T) {
	c := open(t, 1<<20)
	var calls atomic.Int32
	for i, wantHit := range []bool{false, true, true} {
		if got, hit := make1(t, c, "a", "text", &calls); got != "text" || hit != wantHit {
			t.Errorf("call %d: got %q, hit %v", i, got, hit)
		}
	}
	if got, hit := make1(t, c, "b", "other", &calls); got != "other" || hit {
		t.Errorf("another key: got %q, hit %v", got, hit)
	}
	if calls.Load() != 2 {
		t.Errorf("filled %d times, want 2", calls.Load())
	}
}

// Lists of inputs that only look the same when joined must have different keys.
func TestKey(t *testing.T) {
	seen := map[digest.SHA256]int{}
	for i, k := range []*Key{
		NewKey("s"), NewKey("t"), NewKey("s").Add("a", ""), NewKey("s").Add("", "a"), NewKey("s").Add("a", "b=1:c"),
		NewKey("s").Add("a", "b").Add("c", "d"), NewKey("s").Add("a", "b\n1:c=1:d"), NewKey("s").Add("c", "d").Add("a", "b"),
	} {
		if j, ok := seen[k.Sum()]; ok {
			t.Errorf("keys %d and %d are the same", i, j)
		}
		seen[k.Sum()] = i
	}
}

// A damaged entry is never used, whatever the damage; one that was only moved or linked is.
func TestDamage(t *testing.T) {
	for name, damage := range map[string]func(f string) error{
		"flipped": func(f string) error { return os.WriteFile(f, []byte("tExt"), 0o644) },
		"flipped, old time": func(f string) error {
			fi, err := os.Stat(f)
			if err != nil {
				return err
			}
			return errors.Join(os.WriteFile(f, []byte("tExt"), 0o644), os.Chtimes(f, fi.ModTime(), fi.ModTime()))
		},
		"short":     func(f string) error { return os.Truncate(f, 3) },
		"gone":      os.Remove,
		"no seal":   func(f string) error { return os.Remove(filepath.Join(filepath.Dir(f), sealName)) },
		"torn seal": func(f string) error { return os.Truncate(filepath.Join(filepath.Dir(f), sealName), 9) },
		"a link":    func(f string) error { return errors.Join(os.Rename(f, f+"2"), os.Symlink("f2", f)) },
	} {
		t.Run(name, func(t *testing.T) {
			c := open(t, 1<<20)
			var calls atomic.Int32
			make1(t, c, "a", "text", &calls)
			if err := damage(filepath.Join(c.dir, NewKey("a").Sum().String(), "f")); err != nil {
				t.Fatal(err)
			}
			if got, hit := make1(t, c, "a", "text", &calls); got != "text" || hit || calls.Load() != 2 {
				t.Errorf("got %q, hit %v, filled %d times", got, hit, calls.Load())
			}
		})
	}
	c := open(t, 1<<20)
	var calls atomic.Int32
	make1(t, c, "a", "text", &calls)
	f := filepath.Join(c.dir, NewKey("a").Sum().String(), "f")
	if err := os.Link(f, filepath.Join(t.TempDir(), "link")); err != nil {
		t.Fatal(err)
	}
	if _, hit := make1(t, c, "a", "text", &calls); !hit {
		t.Error("an entry with the same content was made anew")
	}
}

// A file without a sum is compared by identity alone.
func TestSealWithoutSum(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "f")
	if err := os.WriteFile(name, []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	s, err := NewSeal(dir, map[string]digest.SHA256{"f": {}})
	if err != nil {
		t.Fatal(err)
	}
	if renewed, err := s.Check(dir); err != nil || renewed {
		t.Errorf("untouched: %v, %v", renewed, err)
	}
	if err := os.Chtimes(name, time.Unix(1e9, 0), time.Unix(1e9, 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Check(dir); err == nil || !strings.Contains(err.Error(), "f: was written to") {
		t.Errorf("touched: got %v", err)
	}
}

func TestFillFails(t *testing.T) {
	c := open(t, 1<<20)
	broken := errors.New("broken")
	_, _, err := c.Make(NewKey("a").Sum(), func(dir string) (map[string]digest.SHA256, error) {
		return nil, errors.Join(os.WriteFile(filepath.Join(dir, "half"), nil, 0o644), broken)
	})
	if !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	if left, err := os.ReadDir(c.dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// Eviction takes the oldest, spares what is in use, and clears what a killed build has left.
func TestEvict(t *testing.T) {
	c := open(t, 2500)
	var calls atomic.Int32
	text := strings.Repeat("x", 600) // with its seal more than 800 bytes, less than 1200
	names := []string{"a", "b", "c"}
	dir := func(name string) string { return filepath.Join(c.dir, NewKey(name).Sum().String()) }
	var held *Entry
	for i, name := range names[:2] {
		make1(t, c, name, text, &calls)
		old := time.Now().Add(time.Duration(i-10) * time.Hour)
		if name == "a" {
			var err error
			if held, err = c.Get(NewKey("a").Sum()); err != nil || held == nil {
				t.Fatal(err)
			}
		}
		if err := os.Chtimes(dir(name), old, old); err != nil {
			t.Fatal(err)
		}
	}
	killed := filepath.Join(c.dir, working+"1")
	if err := os.Mkdir(killed, 0o755); err != nil {
		t.Fatal(err)
	}
	long := time.Now().Add(-2 * abandoned)
	if err := os.Chtimes(killed, long, long); err != nil {
		t.Fatal(err)
	}
	make1(t, c, "c", text, &calls)
	for name, want := range map[string]bool{"a": true, "b": false, "c": true} { // a is older than b, but in use
		if _, err := os.Stat(dir(name)); (err == nil) != want {
			t.Errorf("%s: %v, want it kept: %v", name, err, want)
		}
	}
	if _, err := os.Stat(killed); err == nil {
		t.Error("the directory of a killed build is still there")
	}
	if got := read(t, held); got != text {
		t.Errorf("an entry in use changed to %q", got)
	}
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestConcurrent(t *testing.T) {
	c := open(t, 2000) // so small that they evict each other's entries all the time
	var wg sync.WaitGroup
	var calls atomic.Int32
	for i := range 8 {
		wg.Go(func() {
			for j := range 20 {
				name := string(rune('a' + (i+j)%4))
				text := strings.Repeat(name, 500)
				e, _, err := c.Make(NewKey(name).Sum(), fill(text, &calls))
				if err != nil {
					t.Error(err)
					return
				}
				if got := read(t, e); got != text {
					t.Errorf("%s: got %.10q", name, got)
				}
				e.Close()
			}
		})
	}
	wg.Wait()
}

func TestPathIsAbsolute(t *testing.T) {
	t.Chdir(t.TempDir())
	c, err := Open("stages", 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	var calls atomic.Int32
	e, _, err := c.Make(NewKey("a").Sum(), fill("text", &calls))
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if !filepath.IsAbs(e.Path("f")) {
		t.Errorf("got %s", e.Path("f"))
	}
}

// The sum is that of the program that runs, also when another one has taken its name since it was started.
func TestSelf(t *testing.T) {
	const replaced = "PROA_TEST_REPLACED"
	if name := os.Getenv(replaced); name != "" {
		if err := errors.Join(os.Remove(name), os.WriteFile(name, []byte("a newer builder"), 0o755)); err != nil {
			t.Fatal(err)
		}
		self, err := Self()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println("self", self)
		return
	}
	name := filepath.Join(t.TempDir(), "builder")
	b, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = os.WriteFile(name, b, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(name, "-test.run=^TestSelf$")
	cmd.Env = append(os.Environ(), replaced+"="+name)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "self "+digest.Of(b).String()) {
		t.Errorf("got %v, %s, want %s", err, out, digest.Of(b))
	}
}

// Whoever writes right after a file was sealed, or looked at anew, gives it another time: the tick of the clock that stamps files is over.
func TestSettled(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "f")
	late := func(when string) {
		t.Helper()
		_, id, err := look(name)
		if err != nil {
			t.Fatal(err)
		}
		if age := time.Since(time.Unix(0, id.Changed)); age < 20*time.Millisecond {
			t.Errorf("%s: the file's time is %v ago: a write may get the same one", when, age)
		}
	}
	if err := os.WriteFile(name, []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	s, err := NewSeal(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	late("sealed")
	if err := os.WriteFile(name, []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	if renewed, err := s.Check(dir); err != nil || !renewed {
		t.Fatalf("rewritten: %v, %v", renewed, err)
	}
	late("checked")
	began := time.Now()
	Settle(began.Add(time.Hour))
	if took := time.Since(began); took > time.Minute {
		t.Errorf("a time in the future was waited for: %v", took)
	}
}
