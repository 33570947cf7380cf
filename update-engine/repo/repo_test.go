package repo_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/update-engine/repo"
	"github.com/proa-os/proa/update-engine/repotest"
)

// files returns the repository's files with their content.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(p)
		rel, _ := filepath.Rel(dir, p)
		all[rel] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestPublishedFilesNeverChange(t *testing.T) {
	r := repotest.New(t)
	before := files(t, r.Dir)
	for _, v := range []string{"1.0.0", "1.0.1"} {
		r.Release(t, repotest.NewBuild(t, v))
		r.Time = r.Time.Add(time.Hour)
		after := files(t, r.Dir)
		for name, content := range before {
			if name != "metadata/timestamp.json" && name != ".lock" && after[name] != content {
				t.Errorf("release %s changed or removed %s", v, name)
			}
		}
		before = after
	}
	for name := range before {
		if base := filepath.Base(name); base != ".lock" && strings.HasPrefix(base, ".") || strings.HasPrefix(name, "staged") {
			t.Errorf("left over: %s", name)
		}
	}
}

func TestStageRefuses(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*repotest.Build)
		want   string
	}{
		{"a changed byte in the root image", func(b *repotest.Build) { b.Root[5000] ^= 1 }, "root.img: expected sha256"},
		{"a truncated root image", func(b *repotest.Build) { b.Root = b.Root[:len(b.Root)-4096] }, "root.img: expected"},
		{"a root hash that is not the tree's", func(b *repotest.Build) { b.Release.Root.RootHash[0] ^= 1 }, "rebuilt verity tree has root hash"},
		{"a boot program of another release", func(b *repotest.Build) {
			b.Boot = repotest.BootProgram(t, "1.0.1", digest.Of([]byte("other")), repotest.RootSize)
			b.Release.Boot.Size, b.Release.Boot.SHA256 = int64(len(b.Boot)), digest.Of(b.Boot)
		}, "boot.efi: its command line boots root hash"},
		{"a boot program that is none", func(b *repotest.Build) {
			b.Boot = []byte("#!/bin/sh\n")
			b.Release.Boot.Size, b.Release.Boot.SHA256 = int64(len(b.Boot)), digest.Of(b.Boot)
		}, "boot.efi: open boot program"},
		{"a version that no file can have", func(b *repotest.Build) { b.Release.Version = "1.0.1+build" }, "build metadata"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := repotest.New(t)
			b := repotest.NewBuild(t, "1.0.1")
			c.change(b)
			b.Write(t)
			before := files(t, r.Dir)
			if _, err := r.Stage(t.Context(), b.Dir, repo.Options{}); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
			if after := files(t, r.Dir); len(after) != len(before) {
				t.Errorf("the repository has %d files after the refusal, %d before", len(after), len(before))
			}
		})
	}
}

func TestStageTwice(t *testing.T) {
	r := repotest.New(t)
	b := repotest.NewBuild(t, "1.0.1")
	r.Release(t, b)
	if _, err := r.Stage(t.Context(), b.Dir, repo.Options{}); err == nil || !strings.Contains(err.Error(), "never reused") {
		t.Errorf("got %v, want a refusal", err)
	}
}

func TestInitRefusesFullFolder(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := repo.Init(dir, repo.KeyDir(t.TempDir()), repo.Thresholds{Keys: 1, Needed: 1}, time.Now())
	if err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("got %v", err)
	}
}

// What a power cut has left is removed by the next command; what another desk works on is not.
func TestLeftovers(t *testing.T) {
	t.Parallel()
	d := honest(t)
	dir := filepath.Join(d.Dir, "targets/releases/1.0.0/amd64")
	for _, name := range []string{"metadata/.3.targets.json.new", "metadata/3.targets.json", "metadata/9.snapshot.json", "staged/.request.json.new"} {
		if err := os.WriteFile(filepath.Join(d.Dir, name), []byte("{"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{".payload-left", ".payload-used"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	used, err := os.Open(filepath.Join(dir, ".payload-used"))
	if err != nil {
		t.Fatal(err)
	}
	defer used.Close()
	if err := unix.Flock(int(used.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Refresh(); err != nil {
		t.Fatal(err)
	}
	for name := range files(t, d.Dir) {
		if base := filepath.Base(name); strings.HasPrefix(base, ".") && base != ".lock" && base != ".payload-used" || strings.Contains(name, "3.targets") || strings.Contains(name, "9.snapshot") {
			t.Errorf("left over: %s", name)
		}
	}
	if _, err := os.Stat(used.Name()); err != nil {
		t.Errorf("taken from under another desk: %v", err)
	}
}

func TestKeysAreGuarded(t *testing.T) {
	t.Parallel()
	dir := repo.KeyDir(t.TempDir())
	made, err := dir.NewKeys("targets", 2)
	if err != nil || len(made) != 2 || made[0].ID == made[1].ID {
		t.Fatalf("%+v, %v", made, err)
	}
	for _, k := range made {
		if fi, err := os.Stat(k.Private); err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", k.Private, fi.Mode(), err)
		}
		private, err := repo.PublicKey(k.Private)
		if err != nil {
			t.Fatal(err)
		}
		public, err := repo.PublicKey(k.Public)
		if err != nil {
			t.Fatal(err)
		}
		a, _ := private.ID()
		if b, _ := public.ID(); a != b || a != k.ID {
			t.Errorf("ids %s, %s, %s", a, b, k.ID)
		}
		if secret, err := os.ReadFile(k.Public); err != nil || strings.Contains(string(secret), "PRIVATE") {
			t.Errorf("%s: %v, %s", k.Public, err, secret)
		}
	}
	if err := os.Chmod(made[0].Private, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := dir.Signers("targets"); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a key that others can read: got %v", err)
	}
	if _, err := dir.NewKeys("admin", 1); err == nil || !strings.Contains(err.Error(), "unknown role") {
		t.Errorf("got %v", err)
	}
}
