package state

import (
	"io/fs"
	"os"
	"strings"
	"testing"
)

// stateTree makes files below a new root and returns it.
func stateTree(t *testing.T, names ...string) *os.Root {
	t.Helper()
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	for _, name := range names {
		dir := name[:strings.LastIndexByte(name, '/')+1]
		if err := root.MkdirAll("./"+dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := root.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func filesOf(t *testing.T, root *os.Root) string {
	t.Helper()
	var names []string
	err := fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			names = append(names, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(names, " ")
}

func TestForget(t *testing.T) {
	names := []string{"home/core/.profile", "home/core/keep/a", "lib/etc/upper/machine-id", "lib/etc/upper/passwd", "lib/etc/work/work/x",
		"lib/ignition/provisioned", "lib/ignition/journal", "lib/proa/containers/blob", "log/x", "lost+found/#1"}
	const want = "home/core/keep/a lib/etc/upper/machine-id lib/proa/containers/blob lost+found/#1"
	const request = "reset 1\nhome/core/keep\nlib/etc/upper/machine-id\nlib/proa/containers\nnot/there\n"
	root := stateTree(t, names...)
	if did, err := Forget(root); did || err != nil {
		t.Fatalf("without a request: %v, %v", did, err)
	}
	// A power cut may leave any part of what a run removes; the next one ends the same.
	for missing := range len(names) + 1 {
		root := stateTree(t, names...)
		if err := root.WriteFile(ResetRequest, []byte(request), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, name := range names[:missing] {
			if !strings.Contains(want, name) {
				if err := root.Remove(name); err != nil {
					t.Fatal(err)
				}
			}
		}
		did, err := Forget(root)
		if got := filesOf(t, root); !did || err != nil || got != want {
			t.Fatalf("%d removed before: %v, %v, left %q, want %q", missing, did, err, got, want)
		}
	}
}

func TestForgetRefuses(t *testing.T) {
	root := stateTree(t, "lib/ignition/provisioned", "etc/x")
	if err := root.WriteFile(ResetRequest, []byte("reset 2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Forget(root)
	const want = `read request to forget state: lib/ignition/reset begins with "reset 2", expected "reset 1"; remove the file to go on with state as it is`
	if err == nil || err.Error() != want || filesOf(t, root) != "etc/x lib/ignition/provisioned lib/ignition/reset" {
		t.Errorf("got %v, left %s", err, filesOf(t, root))
	}
}

// An absolute path has no directory above it in state: it is refused before anything is forgotten, and does not hold up the boot.
func TestForgetRefusesAbsolutePaths(t *testing.T) {
	root := stateTree(t, "lib/ignition/provisioned", "etc/x")
	if err := root.WriteFile(ResetRequest, []byte("reset 1\netc\n/etc/x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	did, err := Forget(root)
	if did || err == nil || !strings.Contains(err.Error(), `line 3 of lib/ignition/reset is "/etc/x", expected a path relative to state`) {
		t.Errorf("got %v, %v, want line 3 refused", did, err)
	}
	if got := filesOf(t, root); got != "etc/x lib/ignition/provisioned lib/ignition/reset" {
		t.Errorf("left %s, want everything", got)
	}
}

// A link in state leads nowhere outside, and a kept path that is a link is not followed.
func TestForgetStaysInside(t *testing.T) {
	root, outside := stateTree(t, "lib/ignition/x"), stateTree(t, "precious")
	if err := root.Symlink(outside.Name(), "home"); err != nil {
		t.Fatal(err)
	}
	if err := root.WriteFile(ResetRequest, []byte("reset 1\nhome/core\n../../etc\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if did, err := Forget(root); !did || err != nil || filesOf(t, root) != "" || filesOf(t, outside) != "precious" {
		t.Errorf("%v, %v: left %q, outside %q", did, err, filesOf(t, root), filesOf(t, outside))
	}
}

// A factory reset's request forgets everything.
func TestRequest(t *testing.T) {
	root := stateTree(t, "home/core/.profile", "log/x", "lost+found/#1")
	if err := Request(root); err != nil {
		t.Fatal(err)
	}
	if did, err := Forget(root); !did || err != nil || filesOf(t, root) != "lost+found/#1" {
		t.Errorf("got %v, %v, left %q", did, err, filesOf(t, root))
	}
}
