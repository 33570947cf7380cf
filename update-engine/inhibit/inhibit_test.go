package inhibit

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/update-engine/reboot"
)

func TestOfLocks(t *testing.T) {
	got := OfLocks([]Lock{
		{"shutdown", "backup", "copies\nthe database", "block", 0, 1},
		{"sleep:shutdown:idle", "web", "", "delay", 0, 2},
		{"shutdown", "shell", "", "block-weak", 1000, 3},
		{"sleep", "networkd", "", "delay", 0, 4},
		{"handle-power-key", "desk", "", "block", 0, 5},
	})
	want := []reboot.Inhibitor{{Who: "backup", Why: "copies the database"}, {Who: "web", Delay: true}, {Who: "shell"}}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "inhibit.d")
	if got, err := Files(dir); err != nil || got != nil {
		t.Errorf("no folder: %+v, %v", got, err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"backup": "copies the database\nsince noon\n", "empty": "", ".hidden": "x", "long": strings.Repeat("ä", 1000), "evil": "\x1b[2J\x00now",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(filepath.Join(dir, "pipe"), 0o644); err != nil { // reading it would wait for ever
		t.Fatal(err)
	}
	got, err := Files(dir)
	want := []reboot.Inhibitor{
		{Who: "backup", Why: "copies the database"}, {Who: "empty"}, {Who: "evil", Why: "[2J now"}, {Who: "long", Why: strings.Repeat("ä", 100)}, {Who: "pipe"},
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}

// A container can change the folder between listing and opening: whatever is there then, its name inhibits and nothing else is read or waited for.
func TestSwappedIn(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(t.TempDir(), "shadow")
	in := func(name string) string { return filepath.Join(dir, name) }
	for _, err := range []error{
		os.WriteFile(secret, []byte("root:secret\n"), 0o644),
		unix.Mkfifo(in("fifo"), 0o644),
		os.Symlink(secret, in("link")),
		os.Symlink("loop", in("loop")),
		os.Symlink("nowhere", in("dangling")),
		os.Mkdir(in("folder"), 0o755),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"fifo", "link", "loop", "dangling", "folder"} {
		done := make(chan struct{})
		go func() {
			defer close(done)
			if why, err := firstLine(in(name)); why != "" || err == nil || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: got %q, %v, want an error", name, why, err)
			}
		}()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: opening it blocks", name)
		}
	}
	got, err := Files(dir)
	want := []reboot.Inhibitor{{Who: "dangling"}, {Who: "fifo"}, {Who: "folder"}, {Who: "link"}, {Who: "loop"}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}
