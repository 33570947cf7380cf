package tuf_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/proa-os/proa/update-engine/client"
	"github.com/proa-os/proa/update-engine/repotest"
	"github.com/proa-os/proa/update-engine/tuf"
)

// serve is the forge as a web server, with entity tags.
func (f *forge) serve() *httptest.Server {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, ok := f.files[strings.TrimPrefix(r.URL.Path, "/")]
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("ETag", fmt.Sprintf("%q", fmt.Sprintf("%x", len(b))+fmt.Sprint(f.timestamp.Signed.Version)))
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
	}))
	f.t.Cleanup(web.Close)
	return web
}

// through reads by way of the real client and these servers.
func (v *visitor) through(servers ...*httptest.Server) error {
	v.t.Helper()
	cl := &client.Client{Source: client.NewHTTP(5 * time.Second), Retry: client.Retry{Attempts: 1}, Server: servers[0].URL}
	for _, s := range servers[1:] {
		cl.Mirrors = append(cl.Mirrors, s.URL)
	}
	c, err := tuf.Open(v.t.Context(), tuf.Config{Fetcher: cl, Server: servers[0].URL, Anchor: v.anchor, State: v.state, Now: v.now})
	if err != nil {
		v.t.Fatal(err)
	}
	defer c.Close()
	for _, name := range []string{planName, releaseName} {
		if _, err := c.Read(name, 1<<20); err != nil {
			return err
		}
	}
	return nil
}

// A mirror that lags behind, lies, or has only a part does not matter while another is honest.
func TestBadMirrors(t *testing.T) {
	for what, spoil := range map[string]func(f *forge){
		"old":                   func(f *forge) { clear(f.files); old := newForge(t); f.files = old.files },
		"expired":               func(f *forge) { f.timestamp.Signed.Expires = start.Add(-time.Hour); f.next("timestamp"); f.publish() },
		"a stranger's":          func(f *forge) { f.put("timestamp.json", sign(t, f.timestamp, signer(t, "stranger"))) },
		"a page for everything": func(f *forge) { pages(f) },
		"without snapshot":      func(f *forge) { delete(f.files, "metadata/2.snapshot.json") },
		"without targets":       func(f *forge) { dropTargets(f) },
		"with other targets":    func(f *forge) { otherTargets(f) },
		"with garbage roots":    func(f *forge) { f.put("2.root.json", []byte("garbage")) },
		"empty":                 func(f *forge) { clear(f.files) },
	} {
		good, bad := secondRelease(t), secondRelease(t)
		spoil(bad)
		v := good.visitor()
		if err := v.through(bad.serve(), good.serve()); err != nil {
			t.Errorf("%s, first: %v", what, err)
		}
		if err := v.through(bad.serve(), good.serve()); err != nil {
			t.Errorf("%s, first, again: %v", what, err)
		}
		v.state = stateDir(t)
		if err := v.through(good.serve(), bad.serve()); err != nil {
			t.Errorf("%s, second: %v", what, err)
		}
	}
}

func secondRelease(t *testing.T) *forge {
	f := newForge(t)
	f.add(f.plan, planName, []byte("the second plan"))
	f.release()
	return f
}

func pages(f *forge) {
	for name := range f.files {
		f.files[name] = []byte("<html>log in to use this network</html>")
	}
	f.put("2.root.json", []byte("<html>log in to use this network</html>"))
}

func dropTargets(f *forge) {
	for name := range f.files {
		if strings.HasPrefix(name, "targets/") {
			delete(f.files, name)
		}
	}
}

func otherTargets(f *forge) {
	for name, b := range f.files {
		if strings.HasPrefix(name, "targets/") {
			f.files[name] = bytes.Repeat([]byte("x"), len(b))
		}
	}
}

// If no mirror is honest, the refusal says why, and of each server what was wrong with it.
func TestNoGoodMirror(t *testing.T) {
	a, b := secondRelease(t), secondRelease(t)
	v := a.visitor()
	a.put("timestamp.json", sign(t, a.timestamp, signer(t, "stranger")))
	b.timestamp.Signed.Expires = start.Add(-time.Hour)
	b.put("timestamp.json", sign(t, b.timestamp, b.keys["timestamp"]...))
	first, second := a.serve(), b.serve()
	err := v.through(first, second)
	var r *tuf.Refusal
	if !errors.As(err, &r) || r.Reason != tuf.WrongKey {
		t.Fatalf("got %v", err)
	}
	for _, words := range []string{second.URL, string(tuf.Expired)} {
		if !strings.Contains(err.Error(), words) {
			t.Errorf("%q does not say %q", err, words)
		}
	}
}

// fragile ends after a number of files, as a network or a machine does.
type fragile struct {
	tuf.Fetcher
	left int
}

func (f *fragile) Get(ctx context.Context, url string, limit int64, tag string, accept func([]byte, string) error) error {
	if f.left--; f.left < 0 {
		return errors.New("cut")
	}
	return f.Fetcher.Get(ctx, url, limit, tag, accept)
}

// Wherever a check is cut, what it had accepted stays: nothing older is taken, and the next check comes to the end.
func TestCutAfterEachFile(t *testing.T) {
	old, now := newForge(t), secondRelease(t)
	now.next("root")
	now.putRoot()
	for n := range 20 {
		v := old.visitor()
		v.ok("before", old)
		f := &fragile{Fetcher: now, left: n}
		err := v.read(f)
		if err == nil {
			if n < 7 {
				t.Errorf("only %d files were needed", n)
			}
			return
		}
		if n >= 3 { // two roots and the timestamp
			v.refused(fmt.Sprintf("the old repository after %d files", n), old, tuf.Rollback, "timestamp.json")
		}
		v.ok(fmt.Sprintf("after %d files", n), now)
	}
	t.Error("never came to its end")
}

// Whichever of the stored files a power cut has kept from the disk, nothing is stuck, and nothing older comes back while the timestamp is there.
func TestLostStateFiles(t *testing.T) {
	old, now := newForge(t), secondRelease(t)
	now.next("root")
	now.putRoot()
	v := old.visitor()
	v.ok("now", now)
	whole := v.state
	names := []string{"root.json", "timestamp.json", "snapshot.json", "targets.json", "plan.json", "anchor", "online-keys", "cache"}
	for set := range 1 << len(names) {
		v.state = stateDir(t)
		if err := os.CopyFS(v.state, os.DirFS(whole)); err != nil {
			t.Fatal(err)
		}
		var lost []string
		for i, name := range names {
			if set&(1<<i) != 0 {
				lost = append(lost, name)
				if err := os.RemoveAll(filepath.Join(v.state, name)); err != nil {
					t.Fatal(err)
				}
			}
		}
		if !slices.Contains(lost, "timestamp.json") {
			v.refused(fmt.Sprintf("an old repository without %v", lost), old, tuf.Rollback, "timestamp.json")
		}
		v.ok(fmt.Sprintf("without %v", lost), now)
	}
}

// The whole way, as on a machine: desk, web server, client. A check that finds nothing new costs two small answers.
func TestPollThroughServer(t *testing.T) {
	r := repotest.New(t)
	r.Release(t, repotest.NewBuild(t, "1.0.1"))
	server := r.Serve(t)
	m := newMachine(t, r)
	check := func() {
		t.Helper()
		cl := &client.Client{Source: client.NewHTTP(5 * time.Second), Retry: client.Retry{Attempts: 1}}
		c, err := tuf.Open(t.Context(), tuf.Config{Fetcher: cl, Server: server.URL, Anchor: m.anchor, State: m.state, Now: m.now})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for _, name := range []string{planName, "releases/1.0.1/amd64/release.json"} {
			if _, err := c.Read(name, 1<<20); err != nil {
				t.Fatal(err)
			}
		}
	}
	check()
	first := len(server.Requests())
	check()
	if got, want := server.Requests()[first:], []string{"GET /metadata/2.root.json", "GET /metadata/timestamp.json"}; !slices.Equal(got, want) {
		t.Errorf("asked for %v, want %v", got, want)
	}
	if tag, err := os.ReadFile(filepath.Join(m.state, "timestamp.tag")); err != nil || !bytes.Contains(tag, []byte(server.URL)) {
		t.Errorf("the tag that was kept: %s, %v", tag, err)
	}
}
