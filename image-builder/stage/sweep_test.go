package stage

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// aged makes directories with a file in each, last used so long ago.
func aged(t *testing.T, dir string, ages map[string]time.Duration) {
	t.Helper()
	for name, age := range ages {
		sub := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Join(sub, "d"), 0o755); err != nil {
			t.Fatal(err)
		}
		then := time.Now().Add(-age)
		if err := os.Chtimes(sub, then, then); err != nil {
			t.Fatal(err)
		}
	}
}

func left(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// What a killed build has left goes; what a build holds, what is new, and what only looks alike stays.
func TestSweep(t *testing.T) {
	dir := t.TempDir()
	aged(t, dir, map[string]time.Duration{
		".work-1": 2 * time.Hour, ".work-2": 2 * time.Hour, ".work-3": time.Minute, ".work-mine": 2 * time.Hour, ".work-": 2 * time.Hour, "work-4": 2 * time.Hour,
	})
	held, err := LockDir(filepath.Join(dir, ".work-2"))
	if err != nil {
		t.Fatal(err)
	}
	Sweep(dir, ".work-")
	if got, want := left(t, dir), []string{".work-", ".work-2", ".work-3", ".work-mine", "work-4"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	held.Close()
	Sweep(dir, ".work-")
	if got := left(t, dir); slices.Contains(got, ".work-2") {
		t.Errorf("no longer held: got %q", got)
	}
	Sweep(filepath.Join(dir, "missing"), ".work-")
}

func TestPrune(t *testing.T) {
	dir := t.TempDir()
	ages := map[string]time.Duration{
		"new": 0, "a": 10 * time.Hour, "b": 20 * time.Hour, "current": 30 * time.Hour, "held": 40 * time.Hour, "used": 50 * time.Hour, ".hidden": 60 * time.Hour,
	}
	aged(t, dir, ages)
	held, err := LockDir(filepath.Join(dir, "held"))
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	Use(filepath.Join(dir, "used"))
	Prune(dir, 3, 15*time.Hour, "current") // the newest are new, used and a
	if got, want := left(t, dir), []string{".hidden", "a", "current", "held", "new", "used"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	Prune(dir, 1, 15*time.Hour)
	if got, want := left(t, dir), []string{".hidden", "a", "held", "new", "used"}; !slices.Equal(got, want) {
		t.Errorf("younger than the age: got %q, want %q", got, want)
	}
}
