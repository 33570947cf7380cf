package tuf_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/proa-os/proa/update-engine/tuf"
)

// When nothing has changed a check asks for the next root, and for the timestamp by its tag, and for nothing else.
func TestPollCostsTwoRequests(t *testing.T) {
	f := newForge(t)
	f.tags = true
	v := f.visitor()
	v.ok("the first time", f)
	counter := &unchanged{Fetcher: f}
	f.asked = nil
	v.ok("again", counter)
	if want := []string{"metadata/2.root.json", "metadata/timestamp.json"}; !slices.Equal(f.asked, want) || counter.n != 1 {
		t.Errorf("asked for %v, %d of them unchanged; want %v, one unchanged", f.asked, counter.n, want)
	}
	f.release()
	f.asked = nil
	v.ok("a release", f)
	if len(f.asked) != 5 { // the plan's and the release's bytes are the same
		t.Errorf("asked for %v", f.asked)
	}
}

// unchanged counts the answers that are none.
type unchanged struct {
	tuf.Fetcher
	n int
}

func (u *unchanged) Get(ctx context.Context, url string, limit int64, tag string, accept func([]byte, string) error) error {
	return u.Fetcher.Get(ctx, url, limit, tag, func(b []byte, tag string) error {
		if b == nil {
			u.n++
		}
		return accept(b, tag)
	})
}

// A tag is worth as much as the timestamp that it belongs to: without that, or with another, the file is fetched.
func TestTagBelongsToWhatWasAccepted(t *testing.T) {
	for what, spoil := range map[string]func(f *forge, v *visitor){
		"the timestamp is lost":    func(f *forge, v *visitor) { os.Remove(filepath.Join(v.state, "timestamp.json")) },
		"the timestamp is damaged": func(f *forge, v *visitor) { damage(t, filepath.Join(v.state, "timestamp.json")) },
		"the tag is damaged":       func(f *forge, v *visitor) { damage(t, filepath.Join(v.state, "timestamp.tag")) },
		"the keys are replaced": func(f *forge, v *visitor) {
			f.next("root")
			f.replaceKeys("timestamp", "timestamp-new")
			f.putRoot()
			f.publish()
		},
	} {
		f := newForge(t)
		f.tags = true
		v := f.visitor()
		v.ok(what, f)
		spoil(f, v)
		counter := &unchanged{Fetcher: f}
		v.ok(what, counter)
		if counter.n != 0 {
			t.Errorf("%s: the server said %d times that nothing has changed", what, counter.n)
		}
	}
}

func damage(t *testing.T, name string) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(name, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// A server that says "not changed" to a machine that has nothing cannot make it believe something.
func TestUnchangedWithoutATag(t *testing.T) {
	f := newForge(t)
	if err := f.visitor().read(&lazy{f}); err == nil {
		t.Error("accepted nothing at all")
	}
}

type lazy struct{ *forge }

func (l *lazy) Get(ctx context.Context, url string, limit int64, tag string, accept func([]byte, string) error) error {
	if url == memory+"/metadata/timestamp.json" {
		return accept(nil, "")
	}
	return l.forge.Get(ctx, url, limit, tag, accept)
}

// What is kept of targets is only what the last check has read, and damage of it is noticed.
func TestKeptTargets(t *testing.T) {
	f := newForge(t)
	v := f.visitor()
	v.ok("the first time", f)
	for round := range 3 {
		f.add(f.plan, planName, fmt.Appendf(nil, "plan %d", round))
		f.release()
		v.ok("another plan", f)
	}
	files, err := filepath.Glob(filepath.Join(v.state, "cache/*"))
	if err != nil || len(files) != 2 {
		t.Fatalf("kept %v, %v; want plan and release", files, err)
	}
	for _, name := range files {
		damage(t, name)
	}
	v.ok("damaged", f)
}
