package repo_test

import (
	"context"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/proa-os/proa/internal/registrytest"
	"github.com/proa-os/proa/update-engine/artifact"
	"github.com/proa-os/proa/update-engine/client"
	"github.com/proa-os/proa/update-engine/repo"
	"github.com/proa-os/proa/update-engine/repotest"
)

// A port is a registry that does as between says, and what a desk needs to push there.
type port struct {
	*registrytest.Registry
	to  artifact.Address
	way http.RoundTripper
}

func newPort(t *testing.T, between func(w http.ResponseWriter, r *http.Request) (answered bool)) *port {
	t.Helper()
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	r, err := registrytest.StartHandler("127.0.0.1:0", func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if between == nil || !between(w, r) {
				h.ServeHTTP(w, r)
			}
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	p := &port{Registry: r, to: artifact.Address{Plain: true, Registry: r.Addr, Name: "os/updates", Tag: "latest"}}
	web := client.NewHTTP(time.Minute)
	t.Cleanup(web.Close)
	p.way = web.Registry(p.to)
	return p
}

// has reports which manifest the tag stands for.
func (p *port) has(t *testing.T) string {
	t.Helper()
	res, err := http.Get(p.to.URL("manifests/latest"))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	return res.Header.Get("Docker-Content-Digest")
}

func TestPushLeavesOutWhatIsStaged(t *testing.T) {
	d := careful(t)
	p := newPort(t, nil)
	issue(t, d, repotest.NewBuild(t, "1.0.0"), repo.Options{})
	if _, err := d.Stage(t.Context(), repotest.NewBuild(t, "1.0.1").Dir, repo.Options{}); err != nil {
		t.Fatal(err)
	}
	done, err := d.Push(t.Context(), p.to, p.way)
	if err != nil {
		t.Fatal(err)
	}
	published := 0
	for _, f := range done.Files {
		if strings.Contains(f.Name, "1.0.1") || strings.Contains(f.Name, "staged") {
			t.Errorf("%s is pushed, which nobody has signed", f.Name)
		}
		if strings.Contains(f.Name, "releases/1.0.0/") {
			published++
		}
	}
	if published != 2 {
		t.Errorf("%d files of the published release are pushed, want payload and release.json", published)
	}
	if _, err := (&repo.Desk{Dir: t.TempDir(), Now: d.Now}).Push(t.Context(), p.to, p.way); err == nil || !strings.Contains(err.Error(), "release init") {
		t.Errorf("got %v for a folder that is no repository", err)
	}
}

// A registry gets the last versions of metadata, not all there ever were, and the files of those.
func TestPushForgets(t *testing.T) {
	d := careful(t)
	p := newPort(t, nil)
	issue(t, d, repotest.NewBuild(t, "1.0.0"), repo.Options{})
	for i := range 12 {
		halt := i%2 == 0
		if _, err := d.PublishPlan(repo.PlanEdit{Channel: "stable", Halt: &halt}); err != nil {
			t.Fatal(err)
		}
	}
	done, err := d.Push(t.Context(), p.to, p.way)
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for _, f := range done.Files {
		_, role, _ := strings.Cut(strings.TrimSuffix(filepath.Base(f.Name), ".json"), ".")
		count[role]++
	}
	if count["root"] != 1 || count["plan"] != 10 || count["snapshot"] != 10 || count["full.payload"] != 1 || count["release"] != 1 || count["stable"] != 2 {
		t.Errorf("got %v of each kind", count)
	}
}

// A push that is slow does not take the tag back from one that began later, and keeps nobody from publishing.
func TestPushesComeOneAfterTheOther(t *testing.T) {
	d := careful(t)
	issue(t, d, repotest.NewBuild(t, "1.0.0"), repo.Options{})
	reached, goOn := make(chan struct{}), make(chan struct{})
	first := true
	p := newPort(t, func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/manifests/") && first {
			first = false
			close(reached)
			<-goOn
		}
		return false
	})
	push := func(done chan<- *repo.Pushed) {
		pushed, err := d.Push(t.Context(), p.to, p.way)
		if err != nil {
			t.Error(err)
			pushed = &repo.Pushed{}
		}
		done <- pushed
	}
	slow, later := make(chan *repo.Pushed, 1), make(chan *repo.Pushed, 1)
	go push(slow)
	<-reached
	halt := true
	if _, err := d.PublishPlan(repo.PlanEdit{Channel: "stable", Halt: &halt}); err != nil {
		t.Fatalf("while somebody pushes: %v", err)
	}
	go push(later)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := d.Push(ctx, p.to, p.way); err == nil || !strings.Contains(err.Error(), "another push goes on") {
		t.Errorf("got %v from a push that has no time to wait", err)
	}
	close(goOn)
	was, is := <-slow, <-later
	if got := p.has(t); got != is.Digest || got == was.Digest {
		t.Errorf("the tag stands for %s, want %s, the later, and not %s", got, is.Digest, was.Digest)
	}
}

// A registry that takes nothing ends a push, and so does one that says no early, while the library still sends.
func TestPushEnds(t *testing.T) {
	d := careful(t)
	issue(t, d, repotest.Similar(t, "1.0.0", 8<<20), repo.Options{})
	defer repo.SetPushStall(300 * time.Millisecond)()
	silent := newPort(t, func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPatch {
			<-r.Context().Done()
			return true
		}
		return false
	})
	if _, err := d.Push(t.Context(), silent.to, silent.way); err == nil || !strings.Contains(err.Error(), "has taken nothing for 300ms") {
		t.Errorf("got %v, want that the registry takes nothing", err)
	}
	repo.SetPushStall(time.Minute)
	hasty := newPort(t, func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPatch {
			return false
		}
		_ = http.NewResponseController(w).EnableFullDuplex()
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		_ = http.NewResponseController(w).Flush()
		_, _ = io.Copy(io.Discard, r.Body)
		return true
	})
	for range 5 {
		if _, err := d.Push(t.Context(), hasty.to, hasty.way); err == nil || !strings.Contains(err.Error(), "answered 413") {
			t.Errorf("got %v, want status 413", err)
		}
	}
}
