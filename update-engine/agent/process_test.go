package agent_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/proa-os/proa/update-engine/agent"
	"github.com/proa-os/proa/update-engine/client"
	"github.com/proa-os/proa/update-engine/stick"
)

// The test binary is the fetching process too, as update-engine is on a machine.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "fetch" {
		if err := client.RunChild(context.Background(), os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child is the source of the agent on a machine: a process for each file.
func child(t *testing.T, n client.Network) *client.Child {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return &client.Child{Command: []string{exe, "fetch"}, Network: n}
}

// becomes checks that an agent brings the machine to a release by a delta, in one run.
func (m *machine) becomes(a *agent.Agent, version string) {
	m.t.Helper()
	if _, err := a.Apply(m.t.Context(), true); err != nil {
		m.t.Fatal(err)
	}
	m.boot()
	m.wantRuns(version)
	if err := m.health(nil); err != nil {
		m.t.Error(err)
	}
}

// A machine whose only way out is a proxy that wants a password, and which cannot resolve names itself, updates itself through it.
func TestOverAProxy(t *testing.T) {
	m := newDeltaMachine(t, smallRoot)
	behind, err := url.Parse(m.server.URL)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var seen []string
	forward := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(behind) }}
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		seen = append(seen, r.Host)
		mu.Unlock()
		if r.Header.Get("Proxy-Authorization") == "" {
			http.Error(w, "who are you", http.StatusProxyAuthRequired)
			return
		}
		forward.ServeHTTP(w, r)
	}))
	t.Cleanup(proxy.Close)
	n, err := client.ReadNetwork(strings.Replace(proxy.URL, "://", "://machine:s3cret@", 1), "")
	if err != nil {
		t.Fatal(err)
	}
	a := m.agent()
	a.Config.Server = "http://updates.invalid"
	a.Client.Source = child(t, n)
	m.becomes(a, "1.0.1")
	if len(seen) < 3 || len(m.asked(deltaFile)) != 1 {
		t.Errorf("the proxy saw %q, the server %q", seen, m.server.Requests())
	}
	for _, host := range seen {
		if host != "updates.invalid" {
			t.Errorf("the proxy was asked for %s", host)
		}
	}
	if strings.Contains(m.log.String(), "s3cret") {
		t.Error("the password is in the log")
	}
}

// A socket is where a stick with a repository is plugged in; mounting it makes the files appear.
type socket struct {
	mu      sync.Mutex
	content string // folder; empty: nothing is plugged in
	mounts  int
}

func (s *socket) Mount(label, dir string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.content == "" || label != "PROA-REPO" {
		return errors.New("no such file system")
	}
	s.mounts++
	return os.Symlink(s.content, dir)
}

func (s *socket) Unmount(dir string) error { return os.Remove(dir) }

// A machine without any network updates itself from a stick, which may be pulled out afterwards.
func TestFromAStick(t *testing.T) {
	m := newDeltaMachine(t, smallRoot)
	dir := filepath.Join(t.TempDir(), "stick")
	s := &socket{}
	try := func() *agent.Agent {
		a := m.agent()
		a.Config.Server = "file://" + dir
		files := stick.NewWith(child(t, client.Network{Proxy: "direct"}), s, dir, time.Millisecond)
		t.Cleanup(func() { files.Close() })
		a.Client.Source = files
		return a
	}
	if _, err := try().Apply(t.Context(), true); err == nil || m.rebooted {
		t.Fatalf("nothing is plugged in: %v, rebooted %v", err, m.rebooted)
	}
	s.content = m.repo.Dir
	m.becomes(try(), "1.0.1")
	if s.mounts == 0 || len(m.server.Requests()) > 0 {
		t.Errorf("mounted %d times, over the network %q", s.mounts, m.server.Requests())
	}
	for range 100 {
		if _, err := os.Lstat(dir); err != nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("still mounted when nobody reads it")
}
