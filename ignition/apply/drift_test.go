package apply

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/proa-os/proa/ignition/plan"
)

func driftText(t *testing.T, root *os.Root, owners Owners) string {
	t.Helper()
	all, err := Drift(root, owners, nil)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, d := range all {
		lines = append(lines, d.Subject+": "+strings.Join(d.Changes, "; "))
	}
	return strings.Join(lines, "\n")
}

// Right after provisioning nothing differs, whatever the config.
func TestNothingDriftsByItself(t *testing.T) {
	for _, name := range cases(t) {
		t.Run(filepath.Base(name), func(t *testing.T) {
			root, owners := newTree(t), ownerMap{}
			build(t, root, owners, read(t, name+".before"))
			ops := planOf(t, name, read(t, name+".ign"))
			if err := Run(t.Context(), root, ops, options(owners)); err != nil {
				t.Fatal(err)
			}
			if err := Record(root, ops, owners, nil); err != nil {
				t.Fatal(err)
			}
			if got := driftText(t, root, owners); got != "" {
				t.Errorf("got\n%s", got)
			}
		})
	}
}

const driftConfig = `{"ignition":{"version":"3.4.0"},
 "passwd":{"users":[{"name":"core","passwordHash":"$6$hash","sshAuthorizedKeys":["ssh-ed25519 AAAA x"]},{"name":"gone","shouldExist":false}],"groups":[{"name":"web","gid":700}]},
 "storage":{"directories":[{"path":"/srv/d"}],"files":[{"path":"/etc/a","contents":{"source":"data:,secret"}},{"path":"/etc/b"}],"links":[{"path":"/etc/l","target":"a"}]},
 "systemd":{"units":[{"name":"x.service","enabled":true,"contents":"[Install]\nWantedBy=multi-user.target\n"}]}}`

func TestDrift(t *testing.T) {
	root, owners := newTree(t), ownerMap{}
	build(t, root, owners, accountsBefore)
	if _, err := Drift(root, owners, nil); err == nil || !strings.Contains(err.Error(), "nothing is known of a provisioning") {
		t.Errorf("of a tree that nothing was applied to: %v", err)
	}
	ops := planOf(t, "c.ign", driftConfig)
	if err := Run(t.Context(), root, ops, options(owners)); err != nil {
		t.Fatal(err)
	}
	if err := Record(root, ops, owners, nil); err != nil {
		t.Fatal(err)
	}
	record, err := root.ReadFile(appliedFile)
	if err != nil || strings.Contains(string(record), "secret") || strings.Contains(string(record), "$6$") {
		t.Errorf("the record holds a secret: %v\n%s", err, record)
	}
	r := observer(root, owners)
	edit := func(file, old, with string) {
		t.Helper()
		b, err := root.ReadFile(file)
		if err != nil || !strings.Contains(string(b), old) {
			t.Fatalf("%s has no %q: %v\n%s", file, old, err, b)
		}
		if err := root.WriteFile(file, []byte(strings.Replace(string(b), old, with, 1)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	edit("etc/a", "secret", "other")
	edit("etc/passwd", "/home/core:/bin/sh", "/home/core:/bin/false")
	edit("etc/passwd", "root:", "gone:x:1001:1001::/:/bin/sh\nroot:")
	edit("etc/shadow", "$6$hash", "$6$changed")
	edit("etc/group", "web:x:700:", "web:x:700:core")
	edit("home/core/.ssh/authorized_keys.d/ignition", "AAAA", "BBBB")
	for _, err := range []error{
		root.Chmod("etc/b", 0o600), owners.Lchown(root, "srv/d", 7, 8), root.Remove("etc/l"), root.Symlink("b", "etc/l"),
		root.Remove("etc/systemd/system/multi-user.target.wants/x.service"), root.Remove("etc/systemd/system/x.service"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	want := `group web: members: was none, is core
user core: groups: was none, is web; password: changed; shell: was /bin/sh, is /bin/false
user gone: exists again
ssh keys core: contents: changed
directory /srv/d: owner: was 0:0, is 7:8
file /etc/a: contents: changed
file /etc/b: mode: was 0644, is 0600
link /etc/l: target: was a, is b
file /etc/systemd/system/x.service: is gone
unit x.service: links: was /etc/systemd/system/multi-user.target.wants/x.service, is none`
	if got := driftText(t, root, owners); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	// Provisioning again puts right what it may.
	if err := r.remove("etc/l"); err != nil {
		t.Fatal(err)
	}
	fix := []plan.Op{plan.Link{Path: "/etc/l", Target: "a"}}
	if err := Run(t.Context(), root, fix, options(owners)); err != nil {
		t.Fatal(err)
	}
	if got := driftText(t, root, owners); strings.Contains(got, "/etc/l") {
		t.Errorf("got\n%s", got)
	}
}

func TestRequestReset(t *testing.T) {
	root, owners := newTree(t), ownerMap{}
	build(t, root, owners, accountsBefore+"home link 0:0 -> var/home\nusr dir 0755 0:0\nusr/x file 0644 0:0\nvar dir 0755 0:0\nvar/home dir 0755 0:0\nvar/home/core dir 0700 0:0\nvar/lib dir 0755 0:0\nvar/lib/ignition dir 0755 0:0\n")
	kept, err := RequestReset(root, []string{"/home/core", "/etc/profile", "/var/home"})
	if err != nil || strings.Join(kept, " ") != "home/core lib/etc/upper/profile home" {
		t.Errorf("got %v, %v", kept, err)
	}
	const want = "reset 1\nhome/core\nlib/etc/upper/profile\nhome\n"
	if b, err := root.ReadFile("var/lib/ignition/reset"); string(b) != want {
		t.Errorf("got %q, %v", b, err)
	}
	for p, want := range map[string]string{
		"home/core":         `expected an absolute path, found "home/core"`,
		"/etc/none":         "expected something that exists, found /etc/none",
		"/usr/x":            "expected a path below /var or /etc",
		"/var":              "expected a path below /var or /etc",
		"/etc":              "expected a path below /var or /etc",
		"/var/lib":          "expected a path without /var/lib/ignition",
		"/var/lib/ignition": "expected a path without /var/lib/ignition",
	} {
		if _, err := RequestReset(root, []string{p}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", p, err, want)
		}
	}
	if b, _ := root.ReadFile("var/lib/ignition/reset"); string(b) != want {
		t.Errorf("a refused request changed the file: %q", b)
	}
}
