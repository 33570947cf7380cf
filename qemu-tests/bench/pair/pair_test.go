package pair

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/proa-os/proa/image-builder/lock"
	"github.com/proa-os/proa/internal/digest"
)

const repository = "../../.."

func todaysLock(t *testing.T) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(repository, "manifests/image.lock.json"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Every class can be made of today's checkout: its packages are pinned and in the image, its changes find their lines, and both sides differ.
func TestClasses(t *testing.T) {
	b := todaysLock(t)
	before, err := lock.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{}
	for _, c := range classes() {
		var locks [][]byte
		for _, v := range []variant{c.old, c.new} {
			got, err := v.lock(b)
			if err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			l, err := lock.Parse(got)
			if err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			if len(l.Packages) != len(before.Packages) {
				t.Errorf("%s: %d packages, today's image has %d", c.name, len(l.Packages), len(before.Packages))
			}
			for _, name := range v.packages {
				used[name] = true
				if !slices.ContainsFunc(l.Packages, func(p lock.Package) bool { return p.String() == name }) {
					t.Errorf("%s: %s is not in the lock", c.name, name)
				}
			}
			for _, change := range v.changes {
				text, err := os.ReadFile(filepath.Join(repository, change.file))
				if err != nil {
					t.Fatal(err)
				}
				if changed, err := change.apply(change.file, text); err != nil || bytes.Equal(changed, text) {
					t.Errorf("%s: %s: %v, or nothing has changed", c.name, change.file, err)
				}
			}
			locks = append(locks, got)
		}
		if bytes.Equal(locks[0], locks[1]) && len(c.new.changes) == 0 {
			t.Errorf("%s: both releases are the same", c.name)
		}
	}
	known, err := packages()
	if err != nil {
		t.Fatal(err)
	}
	for name := range known {
		if !used[name] {
			t.Errorf("packages.json: nothing uses %s", name)
		}
	}
}

func TestLockRefuses(t *testing.T) {
	b := todaysLock(t)
	if _, err := (variant{packages: []string{"libssl3t64 9"}}).lock(b); err == nil || !strings.Contains(err.Error(), "packages.json has no libssl3t64 9") {
		t.Errorf("got %v", err)
	}
	none := bytes.ReplaceAll(b, []byte(`"name":"zlib1g"`), []byte(`"name":"zlib1h"`))
	if _, err := (variant{packages: []string{"zlib1g 1:1.3.dfsg+really1.3.1-1+b1"}}).lock(none); err == nil || !strings.Contains(err.Error(), "has no zlib1g") {
		t.Errorf("got %v", err)
	}
}

// small is a checkout with a lock and a program.
func small(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod": "module x\n", "manifests/image.lock.json": string(todaysLock(t)), "manifests/peers.toml": "one", "internal/digest/digest.go": "package digest\n",
		"init/cmd/init/main.go": "func main() {\n}\n", "init/init_test.go": "test", "out/big": "big", ".git/HEAD": "ref", "docs/x.md": "doc", "qemu-tests/x.go": "x",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// The key of an image depends on all that it is made of, and on nothing else.
func TestCheckout(t *testing.T) {
	repo := small(t)
	sum := func(v variant) digest.SHA256 {
		t.Helper()
		_, s, err := v.checkout(repo, filepath.Join(t.TempDir(), "copy"))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	first := sum(variant{})
	if sum(variant{}) != first {
		t.Error("the same checkout has another key")
	}
	for _, name := range []string{"init/init_test.go", "out/big", "docs/x.md", "qemu-tests/x.go", "manifests/peers.toml"} {
		if err := os.WriteFile(filepath.Join(repo, name), []byte("other"), 0o644); err != nil {
			t.Fatal(err)
		}
		if sum(variant{}) != first {
			t.Errorf("%s: no image depends on it, the key does", name)
		}
	}
	line := change{"init/cmd/init/main.go", "func main() {\n", "\tprintln()\n"}
	changed := variant{changes: []change{line}}
	older := variant{packages: []string{"zlib1g 1:1.3.dfsg+really1.3.1-1+b1"}}
	if a, b := sum(changed), sum(older); a == first || b == first || a == b {
		t.Error("variants have the same key")
	}
	dir := filepath.Join(t.TempDir(), "copy")
	if _, _, err := changed.checkout(repo, dir); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, line.file)); err != nil || string(b) != "func main() {\n\tprintln()\n}\n" {
		t.Errorf("got %q, %v", b, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "out")); !os.IsNotExist(err) {
		t.Errorf("out was copied: %v", err)
	}
	line.behind = "func absent() {\n"
	if _, _, err := (variant{changes: []change{line}}).checkout(repo, filepath.Join(t.TempDir(), "copy")); err == nil || !strings.Contains(err.Error(), "expected the line") {
		t.Errorf("got %v", err)
	}
	if err := os.WriteFile(filepath.Join(repo, "init/cmd/init/main.go"), []byte("other"), 0o644); err != nil {
		t.Fatal(err)
	}
	if sum(variant{}) == first {
		t.Error("another program has the same key")
	}
}

func TestMakeRefuses(t *testing.T) {
	if _, err := Make(t.Context(), Options{}, "absent"); err == nil || !strings.Contains(err.Error(), "expected one of openssl, zlib") {
		t.Errorf("got %v", err)
	}
}
