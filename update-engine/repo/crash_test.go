package repo_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/config"
	"github.com/theupdateframework/go-tuf/v2/metadata/updater"

	"github.com/proa-os/proa/internal/release"
	"github.com/proa-os/proa/update-engine/plan"
	"github.com/proa-os/proa/update-engine/repo"
	"github.com/proa-os/proa/update-engine/repotest"
)

// A standardClient is go-tuf's own updater as its documentation uses it: HTTP, nothing of ours. It keeps what it trusts.
type standardClient struct {
	dir, url string
	anchor   []byte
	now      time.Time
}

// serve offers a folder as any web server does.
func serve(t testing.TB, dir string) string {
	t.Helper()
	s := httptest.NewServer(http.FileServer(http.Dir(dir)))
	t.Cleanup(s.Close)
	return s.URL
}

// read follows the channel to its release and returns the version; every file on the way is verified by the updater.
func (c standardClient) read(channel string) (string, error) {
	trusted, err := os.ReadFile(filepath.Join(c.dir, "root.json"))
	if errors.Is(err, fs.ErrNotExist) {
		trusted, err = c.anchor, nil
	}
	if err != nil {
		return "", err
	}
	cfg, err := config.New(c.url+"/metadata", trusted)
	if err != nil {
		return "", err
	}
	cfg.LocalMetadataDir, cfg.LocalTargetsDir, cfg.RemoteTargetsURL = c.dir, c.dir, c.url+"/targets"
	u, err := updater.New(cfg)
	if err != nil {
		return "", err
	}
	u.UnsafeSetRefTime(c.now)
	if err := u.Refresh(); err != nil {
		return "", err
	}
	get := func(name string) ([]byte, error) {
		info, err := u.GetTargetInfo(name)
		if err != nil {
			return nil, err
		}
		_, b, err := u.DownloadTarget(info, filepath.Join(c.dir, "target"), "")
		return b, err
	}
	b, err := get(plan.Target(channel))
	if err != nil {
		return "", err
	}
	p, err := plan.Parse(b, channel)
	if err != nil {
		return "", err
	}
	if b, err = get("releases/" + p.Release + "/amd64/release.json"); err != nil {
		return "", err
	}
	r, err := release.Parse(b)
	if err != nil {
		return "", err
	}
	info, err := u.GetTargetInfo(r.Payloads.Full.Name)
	if err != nil {
		return "", err
	}
	sum := fmt.Sprintf("%s", info.Hashes["sha256"])
	resp, err := http.Head(c.url + "/targets/releases/" + p.Release + "/amd64/" + sum + ".full.payload")
	if err != nil {
		return "", err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.ContentLength != info.Length {
		return "", fmt.Errorf("payload of %s: status %d, %d bytes", p.Release, resp.StatusCode, resp.ContentLength)
	}
	return r.Version, nil
}

// standard makes a client that knows the first root.
func standard(t testing.TB, d *repo.Desk, url string) standardClient {
	t.Helper()
	anchor, err := os.ReadFile(filepath.Join(d.Dir, "metadata/1.root.json"))
	if err != nil {
		t.Fatal(err)
	}
	return standardClient{dir: t.TempDir(), url: url, anchor: anchor, now: d.Now()}
}

// again is the same client with a copy of what it trusts.
func (c standardClient) again(t testing.TB) standardClient {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(c.dir)); err != nil {
		t.Fatal(err)
	}
	c.dir = dir
	return c
}

// small makes builds that are quick to pack.
func small(t testing.TB, version string) *repotest.Build {
	t.Helper()
	return repotest.FromRoot(t, version, bytes.Repeat([]byte(version+" "), 16<<10)[:64<<10])
}

// honest is a careful desk of a repository in which release 1.0.0 is on channel stable, 1.0.1 and new keys for all roles are staged.
func honest(t testing.TB) *repo.Desk {
	t.Helper()
	r := repotest.New(t)
	d := &repo.Desk{Dir: r.Dir, Keys: r.Keys, Now: r.Now}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err := d.Stage(t.Context(), small(t, "1.0.0").Dir, repo.Options{})
	must(err)
	_, err = d.PublishStaged(&repo.PlanEdit{Channel: "stable", Version: "1.0.0"})
	must(err)
	return d
}

func stage(t testing.TB, d *repo.Desk, version string) {
	t.Helper()
	if _, err := d.Stage(t.Context(), small(t, version).Dir, repo.Options{}); err != nil {
		t.Fatal(err)
	}
}

// rotateAll stages a new key for every role, in place of its first.
func rotateAll(t testing.TB, d *repo.Desk) {
	t.Helper()
	s, err := d.Status()
	if err != nil {
		t.Fatal(err)
	}
	for _, role := range s.Roles {
		made, err := d.Keys.(repo.KeyDir).NewKeys(role.Role, 1)
		if err != nil {
			t.Fatal(err)
		}
		key, err := repo.PublicKey(made[0].Public)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Rotate(repo.Rotation{Role: role.Role, Add: []*metadata.Key{key}, Remove: role.Keys[:1]}); err != nil {
			t.Fatal(err)
		}
	}
}

// twin is the desk on a copy of the repository. Files are links: none is written in place.
func twin(t testing.TB, d *repo.Desk) *repo.Desk {
	t.Helper()
	dir := t.TempDir()
	err := filepath.WalkDir(d.Dir, func(p string, e os.DirEntry, err error) error {
		if err != nil || filepath.Base(p) == ".lock" {
			return err
		}
		rel, _ := filepath.Rel(d.Dir, p)
		if e.IsDir() {
			return os.MkdirAll(filepath.Join(dir, rel), 0o755)
		}
		return os.Link(p, filepath.Join(dir, rel))
	})
	if err != nil {
		t.Fatal(err)
	}
	copied := &repo.Desk{Dir: dir, Keys: d.Keys, Now: d.Now}
	copied.On(quickDisk(dir))
	return copied
}

// A quickDisk is the real one without the syncs, which take most of the time.
type quickDisk string

func (d quickDisk) path(name string) string { return filepath.Join(string(d), name) }

func (d quickDisk) Write(name string, b []byte) error { return os.WriteFile(d.path(name), b, 0o644) }

func (d quickDisk) Rename(from, to string) error { return os.Rename(d.path(from), d.path(to)) }

func (d quickDisk) Remove(name string) error {
	if err := os.Remove(d.path(name)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

var errPower = errors.New("the power is gone")

// A badDisk fails at its n-th call. After a power cut it does nothing more; a cut in a rename or removal is before or after it, one in a
// write leaves a part. A full disk fails there as well, and works again.
type badDisk struct {
	real      repo.Disk
	n, calls  int
	done      bool // the failing call has its effect
	full      bool
	onlyWrite bool // count writes only
	dead      bool
}

func (d *badDisk) call(isWrite bool, do, part func() error) error {
	if d.dead {
		return errPower
	}
	if d.onlyWrite && !isWrite {
		return do()
	}
	d.calls++
	if d.calls != d.n+1 {
		return do()
	}
	if d.full {
		return errors.Join(part(), syscall.ENOSPC)
	}
	d.dead = true
	if d.done {
		return errors.Join(do(), errPower)
	}
	return errors.Join(part(), errPower)
}

func nothing() error { return nil }

func (d *badDisk) Write(name string, b []byte) error {
	return d.call(true, func() error { return d.real.Write(name, b) }, func() error { return d.real.Write(name, b[:len(b)/2]) })
}

func (d *badDisk) Rename(from, to string) error {
	return d.call(false, func() error { return d.real.Rename(from, to) }, nothing)
}

func (d *badDisk) Remove(name string) error {
	return d.call(false, func() error { return d.real.Remove(name) }, nothing)
}

// commands are what may be cut: what they begin with, what they do, and what machines may see then.
func commands(t *testing.T) []struct {
	name     string
	desk     *repo.Desk
	do       func(*repo.Desk) error
	old, new string
} {
	staged, rotated := honest(t), honest(t)
	stage(t, staged, "1.0.1")
	stage(t, rotated, "1.0.1")
	rotateAll(t, rotated)
	build := small(t, "1.0.1")
	publish := func(d *repo.Desk) error {
		_, err := d.PublishStaged(&repo.PlanEdit{Channel: "stable", Version: "1.0.1"})
		return err
	}
	plain := honest(t)
	return []struct {
		name     string
		desk     *repo.Desk
		do       func(*repo.Desk) error
		old, new string
	}{
		{"publish", staged, publish, "1.0.0", "1.0.1"},
		{"publish new keys", rotated, publish, "1.0.0", "1.0.1"},
		{"plan", staged, func(d *repo.Desk) error {
			_, err := d.PublishPlan(repo.PlanEdit{Channel: "stable", Version: "1.0.0", Halt: new(bool)})
			return err
		}, "1.0.0", "1.0.0"},
		{"refresh", plain, func(d *repo.Desk) error { _, err := d.Refresh(); return err }, "1.0.0", "1.0.0"},
		{"sign", staged, func(d *repo.Desk) error { _, _, err := d.Sign(); return err }, "1.0.0", "1.0.0"},
		{"discard", staged, func(d *repo.Desk) error { _, err := d.Discard(); return err }, "1.0.0", "1.0.0"},
		{"stage", plain, func(d *repo.Desk) error {
			_, err := d.Stage(context.Background(), build.Dir, repo.Options{})
			if err != nil && strings.Contains(err.Error(), "exists already") {
				return nil // it was staged before the cut
			}
			return err
		}, "1.0.0", "1.0.0"},
	}
}

// The power is cut in every write, rename and removal of every command. A standard client, new or with what it trusted before, then
// reads the old state or the new one; the same command again brings the new one, and nothing is left over.
func TestPowerCutAnywhere(t *testing.T) {
	t.Parallel()
	for _, c := range commands(t) {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			counted := twin(t, c.desk)
			all := &badDisk{real: quickDisk(counted.Dir), n: -1}
			counted.On(all)
			if err := c.do(counted); err != nil {
				t.Fatal(err)
			}
			before := standard(t, c.desk, serve(t, c.desk.Dir))
			if v, err := before.read("stable"); err != nil || v != c.old {
				t.Fatalf("before: %s, %v", v, err)
			}
			for n := range all.calls {
				for _, done := range []bool{false, true} {
					d := twin(t, c.desk)
					d.On(&badDisk{real: quickDisk(d.Dir), n: n, done: done})
					if err := c.do(d); !errors.Is(err, errPower) {
						t.Fatalf("cut %d: got %v", n, err)
					}
					url := serve(t, d.Dir)
					for _, r := range []standardClient{standard(t, d, url), before.again(t)} {
						r.url = url
						if v, err := r.read("stable"); err != nil || v != c.old && v != c.new {
							t.Errorf("cut in call %d of %d (had its effect: %v): read %q, %v", n+1, all.calls, done, v, err)
						}
					}
					d.On(quickDisk(d.Dir))
					if err := c.do(d); err != nil {
						t.Errorf("cut in call %d (%v): again: %v", n+1, done, err)
					}
					if v, err := standard(t, d, url).read("stable"); err != nil || v != c.new {
						t.Errorf("cut in call %d (%v), and again: read %q, %v", n+1, done, v, err)
					}
					whole(t, d)
				}
			}
			if all.calls < 2 {
				t.Errorf("only %d calls: the power is cut nowhere", all.calls)
			}
		})
	}
}

// whole holds a repository against the desk's own check, and looks for what was left over.
func whole(t *testing.T, d *repo.Desk) {
	t.Helper()
	checked, err := d.Check(t.Context(), nil, true)
	if err != nil || len(checked.Problems) > 0 || len(checked.Unused) > 0 {
		t.Errorf("%v, problems %q, unused %v", err, checked.Problems, checked.Unused)
	}
	for name := range files(t, d.Dir) {
		if base := filepath.Base(name); base != ".lock" && strings.HasPrefix(base, ".") {
			t.Errorf("left over: %s", name)
		}
	}
}

// The disk is full in every write of every command: the repository stays as it was, and the command can be given again.
func TestFullDiskAnywhere(t *testing.T) {
	t.Parallel()
	for _, c := range commands(t) {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			counted := twin(t, c.desk)
			all := &badDisk{real: quickDisk(counted.Dir), n: -1, onlyWrite: true}
			counted.On(all)
			if err := c.do(counted); err != nil {
				t.Fatal(err)
			}
			for n := range all.calls {
				d := twin(t, c.desk)
				before := files(t, d.Dir)
				d.On(&badDisk{real: quickDisk(d.Dir), n: n, onlyWrite: true, full: true})
				if err := c.do(d); !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "nothing was changed") {
					t.Fatalf("write %d: got %v", n, err)
				}
				after := files(t, d.Dir)
				delete(after, ".lock")
				if !maps.Equal(before, after) {
					t.Errorf("full at write %d of %d: files %v, want %v", n+1, all.calls, slices.Sorted(maps.Keys(after)), slices.Sorted(maps.Keys(before)))
				}
				d.On(quickDisk(d.Dir))
				if err := c.do(d); err != nil {
					t.Errorf("full at write %d, again with room: %v", n+1, err)
				}
			}
		})
	}
}

// Machines read all the time while a desk publishes, plans, refreshes and changes all keys: nobody is refused, nobody sees a release that
// was not planned. Only what a client does not do in a single read is left out: sleep between asking for roots and for the timestamp until
// the keys were changed and the timestamp was renewed once more.
func TestReadersNeverSeeHalf(t *testing.T) {
	t.Parallel()
	d := honest(t)
	url := serve(t, d.Dir)
	stop := make(chan struct{})
	var readers sync.WaitGroup
	var reads [2]atomic.Int64
	for i := range reads {
		known := standard(t, d, url) // it walks on with what it trusts
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				c := known
				if i == 1 {
					dir, err := os.MkdirTemp(known.dir, "new-")
					if err != nil {
						t.Error(err)
						return
					}
					c.dir = dir // a new machine each time
				}
				if v, err := c.read("stable"); err != nil || v != "1.0.0" && v != "1.0.1" {
					t.Errorf("read %d: %q, %v", reads[i].Load(), v, err)
				}
				reads[i].Add(1)
			}
		})
	}
	// letThemEnd waits until every read that has begun is over.
	letThemEnd := func() {
		for i := range reads {
			for before := reads[i].Load(); reads[i].Load() == before && !t.Failed(); time.Sleep(time.Millisecond) {
			}
		}
	}
	stage(t, d, "1.0.1")
	for turn := range 4 {
		if turn > 0 {
			rotateAll(t, d)
		}
		if _, err := d.PublishStaged(&repo.PlanEdit{Channel: "stable", Version: []string{"1.0.1", "1.0.0"}[turn%2]}); err != nil {
			t.Error(err)
		}
		letThemEnd()
		for range 5 {
			if _, err := d.Refresh(); err != nil {
				t.Error(err)
			}
		}
	}
	letThemEnd()
	close(stop)
	readers.Wait()
}

// Several desks at a time: each waits for the other, nothing that one has published is lost.
func TestDesksWaitForEachOther(t *testing.T) {
	t.Parallel()
	d := honest(t)
	var desks sync.WaitGroup
	for i := range 8 {
		desks.Go(func() {
			other := &repo.Desk{Dir: d.Dir, Keys: d.Keys, Now: d.Now}
			if _, err := other.PublishPlan(repo.PlanEdit{Channel: fmt.Sprintf("channel-%d", i), Version: "1.0.0"}); err != nil {
				t.Error(err)
			}
		})
	}
	desks.Wait()
	s, err := d.Status()
	if err != nil || len(s.Channels) != 9 {
		t.Errorf("%v, channels %v", err, s.Channels)
	}
	whole(t, d)
}
