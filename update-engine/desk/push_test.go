package desk

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/proa-os/proa/internal/registrytest"
	"github.com/proa-os/proa/internal/testenv"
	"github.com/proa-os/proa/update-engine/artifact"
	"github.com/proa-os/proa/update-engine/repo"
	"github.com/proa-os/proa/update-engine/repotest"
)

// pushable is a story with a release of channel stable in {}/repo, and without anybody's login.
func pushable(t *testing.T) *story {
	s := newStory(t)
	t.Setenv("DOCKER_CONFIG", s.path("docker"))
	t.Setenv("REGISTRY_AUTH_FILE", s.path("docker", "config.json"))
	s.run("init --repo {}/repo --keys {}/keys")
	s.run("stage --fast --repo {}/repo " + repotest.NewBuild(t, "1.0.0").Dir)
	s.run("publish --repo {}/repo --keys {}/keys --channel stable --version 1.0.0")
	return s
}

// A repository goes to a registry and comes back as a machine reads it. What is published later is seen after the next push, and not before.
func TestPush(t *testing.T) {
	s := pushable(t)
	var sent []string
	r, err := registrytest.StartHandler("127.0.0.1:0", func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPut {
				sent = append(sent, r.URL.Path)
			}
			h.ServeHTTP(w, r)
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	to := "oci+http://" + r.Addr + "/os/updates:latest"
	read := "verify --repo " + to + " --root {}/repo/metadata/1.root.json"

	s.same("push --dry-run --repo {}/repo "+to, "would push", "metadata/1.root.json")
	if len(sent) > 0 {
		t.Errorf("a dry run has sent %q", sent)
	}
	s.refused(read, exitError, "404")
	s.run("push --repo {}/repo "+to, "pushed ", to+", which is sha256:")
	if !strings.Contains(s.err, "push 100 %") {
		t.Errorf("no progress: %q", s.err)
	}
	s.run(read, "gets release 1.0.0")
	if last := sent[len(sent)-1]; !strings.HasSuffix(last, "/manifests/latest") {
		t.Errorf("last of all %s was sent, want the tag", last)
	}

	s.run("stage --fast --repo {}/repo " + repotest.NewBuild(t, "1.0.1").Dir)
	s.run("publish --repo {}/repo --keys {}/keys --channel stable --version 1.0.1")
	s.run(read, "gets release 1.0.0")
	sent = nil
	s.run("refresh --repo {}/repo --keys {}/keys --json --push " + to)
	done := decoded[struct {
		publicationJSON
		Pushed repo.Pushed `json:"pushed"`
	}](s)
	if done.Pushed.Address != to || len(done.Pushed.Files) == 0 || done.Files == nil {
		t.Errorf("refresh --push: %s", s.out)
	}
	if len(sent) == 0 || len(sent) >= len(done.Pushed.Files) {
		t.Errorf("%d of %d files were sent, want the new ones only", len(sent), len(done.Pushed.Files))
	}
	s.run(read, "gets release 1.0.1")
}

func TestPushIsRefused(t *testing.T) {
	s := pushable(t)
	for _, bad := range []string{"https://registry.example.org/x", "oci://registry.example.org/x", "oci://registry.example.org/x:latest/metadata"} {
		s.refused("push --repo {}/repo "+bad, exitUsage, "oci://REGISTRY/NAME:TAG")
		s.refused("refresh --repo {}/repo --keys {}/keys --push "+bad, exitUsage, "oci://REGISTRY/NAME:TAG")
	}
	r, err := registrytest.StartHandler("127.0.0.1:0", func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "/manifests/") && r.Method == http.MethodPut {
				http.Error(w, "\x1b]0;no room\x07", http.StatusInsufficientStorage)
				return
			}
			h.ServeHTTP(w, r)
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	s.refused("push --repo {}/repo oci://"+r.Addr+"/os/updates:latest", exitError, "oci+http://")
	s.refused("push --repo {}/repo oci+http://"+r.Addr+"/os/updates:latest", exitError, "answered 507", `\x1b`)
	s.refused("refresh --repo {}/repo --keys {}/keys --push oci+http://"+r.Addr+"/os/updates:latest", exitError, "answered 507")
	if !strings.Contains(s.out, "good until") {
		t.Errorf("the timestamp was renewed, which nobody is told: %s", s.out)
	}

	full, err := filepath.Glob(s.path("repo/targets/releases/1.0.0/*/*.full.payload"))
	if err != nil || len(full) != 1 {
		t.Fatal(full, err)
	}
	if err := os.WriteFile(full[0], []byte("flipped"), 0o644); err != nil {
		t.Fatal(err)
	}
	s.refused("push --repo {}/repo oci+http://"+r.Addr+"/os/updates:latest", exitError, full[0], "damaged")
}

// Debian's registry, with passwords, takes what we push, and skopeo reads it.
func TestPushToDebianRegistry(t *testing.T) {
	judges := testenv.Judges(t)
	s := pushable(t)
	private, err := registrytest.StartDebian(t.Context(), judges, t.TempDir(), "ann", "secret")
	if err != nil {
		t.Fatal(err)
	}
	defer private.Close()
	s.refused("push --repo {}/repo oci+http://"+private.Addr+"/os/updates:latest", exitError, "docker login "+private.Addr)
	login := `{"auths":{"` + private.Addr + `":{"username":"ann","password":"secret"}}}`
	if err := os.Mkdir(s.path("docker"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.path("docker", "config.json"), []byte(login), 0o600); err != nil {
		t.Fatal(err)
	}
	s.run("push --repo {}/repo oci+http://" + private.Addr + "/os/updates:latest")
	s.refused("verify --repo oci+http://"+private.Addr+"/os/updates:latest --root {}/repo/metadata/1.root.json", exitError, "machines have no name and password")

	public, err := registrytest.StartDebian(t.Context(), judges, t.TempDir(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	defer public.Close()
	s.run("push --repo {}/repo --json oci+http://" + public.Addr + "/os/updates:v1")
	done := decoded[repo.Pushed](s)
	s.run("verify --repo oci+http://"+public.Addr+"/os/updates:v1 --root {}/repo/metadata/1.root.json", "gets release 1.0.0")

	cmd := judges.Command(t.Context(), "skopeo", "--insecure-policy", "copy", "--src-tls-verify=false", "docker://"+public.Addr+"/os/updates:v1", "dir:"+s.path("pulled"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("skopeo: %v: %s", err, out)
	}
	var m artifact.Manifest
	b, err := os.ReadFile(s.path("pulled", "manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &m); err != nil || m.ArtifactType != artifact.Type || len(m.Layers) != len(done.Files) {
		t.Fatalf("%v: %s", err, b)
	}
	for _, l := range m.Layers {
		want, err := os.ReadFile(s.path("repo", l.Annotations[artifact.TitleKey]))
		got, gotErr := os.ReadFile(s.path("pulled", strings.TrimPrefix(l.Digest, "sha256:")))
		if err != nil || gotErr != nil || !slices.Equal(got, want) {
			t.Errorf("%s: skopeo has %d bytes, %v; want %d, %v", l.Annotations[artifact.TitleKey], len(got), gotErr, len(want), err)
		}
	}
}
