package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// plannedTree names the tree to TestPlanWithoutRoot in its own child process.
const plannedTree = "IGNITION_TEST_PLANNED_TREE"

// A plan needs no root: what only root may read is either not needed for it, or is said not to be readable.
func TestPlanWithoutRoot(t *testing.T) {
	dir := os.Getenv(plannedTree)
	if dir == "" {
		dir = t.TempDir()
		unreadable(t, dir)
		if os.Geteuid() == 0 {
			asNobody(t, dir)
			return
		}
	}
	out, log, err := do(t, "plan", "--root", dir, dir+"/c.ign")
	if err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	const keyless = "not readable: run as root to see"
	for operation, want := range map[string]string{
		"user core":             "there already, with uid 1000: made as described",
		"user new":              "new",
		"ssh keys of user core": keyless,
		"file /etc/a":           "there is a file: kept if its contents are the same, refused if not",
		"file /home/core/b":     keyless,
		"directory /etc/there":  "there already",
	} {
		_, after, found := strings.Cut(out, operation+" ")
		_, after, _ = strings.Cut(after, "\n")
		line, _, _ := strings.Cut(after, "\n")
		if !found || strings.TrimSpace(line) != want {
			t.Errorf("%s: got %q, want %q in\n%s", operation, line, want, out)
		}
	}
}

// unreadable makes a tree of which parts are root's, or nobody's, alone.
func unreadable(t *testing.T, dir string) {
	t.Helper()
	secret, private := os.FileMode(0o600), os.FileMode(0o700)
	if os.Geteuid() != 0 {
		secret, private = 0, 0
	}
	t.Cleanup(func() { os.Chmod(dir+"/home/core", 0o700) })
	config := `{"ignition":{"version":"3.4.0"},
 "passwd":{"users":[{"name":"core","sshAuthorizedKeys":["ssh-ed25519 AAAA a"]},{"name":"new"}]},
 "storage":{"directories":[{"path":"/etc/there"}],"files":[{"path":"/etc/a","contents":{"source":"data:,x"}},{"path":"/home/core/b","contents":{"source":"data:,x"}}]}}`
	err := errors.Join(os.Chmod(filepath.Dir(dir), 0o755), os.Chmod(dir, 0o755), os.MkdirAll(dir+"/etc/there", 0o755), os.MkdirAll(dir+"/home/core/.ssh", 0o700), os.Chmod(dir+"/home", 0o755))
	for name, text := range map[string]string{
		"etc/passwd": "root:x:0:0::/root:/bin/sh\ncore:x:1000:1000::/home/core:/bin/sh\n", "etc/group": "root:x:0:\ncore:x:1000:\n",
		"etc/shadow": "core:*::0:99999:7:::\n", "etc/gshadow": "core:!::\n", "etc/a": "x", "c.ign": config,
	} {
		err = errors.Join(err, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	for _, name := range []string{"etc/shadow", "etc/gshadow", "etc/a"} {
		err = errors.Join(err, os.Chmod(filepath.Join(dir, name), secret))
	}
	if err = errors.Join(err, os.Chmod(dir+"/home/core", private)); err != nil {
		t.Fatal(err)
	}
}

// asNobody runs the test in a process that is not root's.
func asNobody(t *testing.T, dir string) {
	t.Helper()
	c := exec.Command("/proc/self/exe", "-test.run=^TestPlanWithoutRoot$")
	c.Env = append(os.Environ(), plannedTree+"="+dir)
	c.Dir = "/"
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := c.CombinedOutput(); err != nil || !strings.HasPrefix(string(out), "PASS") {
		t.Errorf("%v\n%s", err, out)
	}
}
