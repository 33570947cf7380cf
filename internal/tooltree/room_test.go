package tooltree_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/internal/testenv"
	"github.com/proa-os/proa/internal/tooltree"
)

func enter(t *testing.T, o tooltree.RoomOptions) *tooltree.Room {
	t.Helper()
	tree := testenv.Judges(t)
	if os.Getuid() != 0 {
		t.Skip("SKIPPED, NOT CHECKED: a room needs root")
	}
	room, err := tree.Enter(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(room.Close)
	return room
}

// TestRoom: programs start with the tree's own libraries, see what was shared and nothing else of the host, and leave no mount.
func TestRoom(t *testing.T) {
	shared, before := t.TempDir(), readFile(t, "/proc/self/mounts")
	if err := os.WriteFile(filepath.Join(shared, "file"), []byte("host"), 0o600); err != nil {
		t.Fatal(err)
	}
	room := enter(t, tooltree.RoomOptions{Binds: []string{shared}})
	err := room.Do(func() error {
		var st unix.Statfs_t
		if err := unix.Statfs("/sys/fs/cgroup", &st); err != nil || st.Type != unix.CGROUP2_SUPER_MAGIC {
			t.Errorf("/sys/fs/cgroup has type %#x, %v", st.Type, err)
		}
		if _, err := os.Stat("/usr/bin/podman"); err != nil {
			t.Error(err)
		}
		if err := os.WriteFile("/usr/bin/x", nil, 0o755); !errors.Is(err, unix.EROFS) {
			t.Errorf("write below /usr: %v", err)
		}
		if _, err := os.Stat("/boot"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the host's /boot: %v", err)
		}
		return os.WriteFile(filepath.Join(shared, "back"), []byte("room"), 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := readFile(t, filepath.Join(shared, "back")); got != "room" {
		t.Errorf("the room's file has %q", got)
	}
	// A program with libraries, by name; the network is the room's own.
	out, err := room.Output(room.Command(t.Context(), "ip", "-o", "link"))
	if err != nil || strings.Count(string(out), "\n") < 1 || strings.Contains(string(out), "UP,") {
		t.Errorf("%v %s", err, out)
	}
	if after := readFile(t, "/proc/self/mounts"); after != before {
		t.Errorf("the host's mounts changed:\n%s", after)
	}
}

// TestRoomEnds: with the room its programs end.
func TestRoomEnds(t *testing.T) {
	tree := testenv.Judges(t)
	if os.Getuid() != 0 {
		t.Skip("SKIPPED, NOT CHECKED: a room needs root")
	}
	room, err := tree.Enter(tooltree.RoomOptions{})
	if err != nil {
		t.Fatal(err)
	}
	cmd := room.Command(t.Context(), "ip", "monitor")
	if err := room.Start(cmd); err != nil {
		t.Fatal(err)
	}
	room.Close()
	if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("got %v, want it killed", err)
	}
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
