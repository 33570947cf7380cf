package qemutests

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/proa-os/proa/qemu-tests/provision"
	"github.com/proa-os/proa/qemu-tests/vm"
)

// plain is a machine of release 1.0.0 under UEFI that has come up for the first time, clean, provisioned with keys for core and root and nothing
// else. It boots once; stories about something else than a first boot go on from there, each on a machine of its own (story.goOn).
var plain struct {
	once  sync.Once
	dir   string
	saved *vm.Saved
	err   error
}

// TestMain takes plain away in the end: its memory and its disk are large.
func TestMain(m *testing.M) {
	code := m.Run()
	if plain.dir != "" {
		os.RemoveAll(plain.dir)
	}
	os.Exit(code)
}

// plainMachine boots it for the first story that asks.
func (s *story) plainMachine() *vm.Saved {
	s.t.Helper()
	plain.once.Do(func() {
		plain.err = errors.New("the first boot of the machine that stories go on from has failed: see the story that it was for")
		plain.dir = filepath.Join(s.out, "stories", "plain")
		check(s.t, os.RemoveAll(plain.dir))
		key := must(vm.NewKey())(s.t)
		config := must(provision.New().SSHKey("core", key.AuthorizedKey()).SSHKey("root", key.AuthorizedKey()).JSON())(s.t)
		m := must(vm.Start(context.Background(), vm.Config{Name: "plain", Dir: plain.dir, Disk: s.image("1.0.0", "").Disk(), Ignition: config, Key: key, CPUs: 1}))(s.t)
		defer m.Close()
		defer func() {
			if s.t.Failed() {
				s.t.Log(m.Explain())
			}
		}()
		boots(s.t, m, "1.0.0")
		m.AssertClean(s.t)
		if s.t.Failed() {
			return
		}
		run(s.t, m, "sync")
		check(s.t, m.Snapshot(s.t.Context(), "up"))
		saved := must(m.Saved("up"))(s.t)
		check(s.t, m.Close())
		s.t.Logf("machine plain: %.0f s of CPU", m.CPUTime().Seconds())
		plain.saved, plain.err = saved, os.Remove(m.Disk())
	})
	check(s.t, plain.err)
	return plain.saved
}

// goOn is a machine that goes on from plain; edit may add hardware, which is there from its next boot on.
func (s *story) goOn(name string, edit ...func(*vm.Config)) *vm.Machine {
	s.t.Helper()
	c := vm.Config{Name: name, Dir: filepath.Join(s.dir, name), Resume: s.plainMachine()}
	for _, e := range edit {
		e(&c)
	}
	m := s.start(c)
	run(s.t, m, fmt.Sprintf("date -u -s @%d", time.Now().Unix())) // since the snapshot an hour may have passed
	return m
}

// put writes a file on a machine as its operator does, in a folder that need not be there.
func put(t *testing.T, m *vm.Machine, name string, mode os.FileMode, content string) {
	t.Helper()
	run(t, m, "mkdir -p "+path.Dir(name))
	check(t, m.CopyTo(t.Context(), "root", name, mode, []byte(content)))
}

// follows has a machine follow a repository: its trust anchor, and what its agent is told of it, in JSON.
func follows(t *testing.T, m *vm.Machine, root []byte, config string) {
	t.Helper()
	put(t, m, "/etc/proa/update/root.json", 0o644, string(root))
	put(t, m, "/etc/proa/update/config.json", 0o644, config)
	run(t, m, "sync")
}
