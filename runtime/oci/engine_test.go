package oci

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/proa-os/proa/internal/registrytest"
	"github.com/proa-os/proa/internal/testenv"
	"github.com/proa-os/proa/internal/tooltree"
)

// engines is a room of the judges' programs with this test binary in it, as oci-runtime and as the one program of an image.
type engines struct {
	*tooltree.Room
	t       *testing.T
	dir     string // the same inside and outside
	runtime string
	image   string // a docker archive of one layer, localhost/probe:1
}

func newEngines(t *testing.T) *engines {
	t.Helper()
	needRoot(t)
	needStatic(t)
	judges := testenv.Judges(t)
	e := &engines{t: t, dir: t.TempDir()}
	e.runtime, e.image = filepath.Join(e.dir, "oci-runtime"), filepath.Join(e.dir, "image.tar")
	self, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = os.WriteFile(e.runtime, self, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	img, err := registrytest.Build(registrytest.Image{Layers: [][]registrytest.File{{{Name: "tmp/", Mode: 0o1777}, {Name: "etc/"}, {Name: "probe", Body: string(self), Mode: 0o755}}},
		Config: v1.Config{Env: []string{"PATH=/"}}})
	if err == nil {
		err = tarball.WriteToFile(e.image, name.MustParseReference("localhost/probe:1"), img)
	}
	if err != nil {
		t.Fatal(err)
	}
	if e.Room, err = judges.Enter(tooltree.RoomOptions{Binds: []string{e.dir}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// The groups of engines, unless somebody else has containers in them.
		for _, group := range []string{"libpod_parent/conmon", "libpod_parent", "proa-judge"} {
			e.Do(func() error { return os.Remove(filepath.Join("/sys/fs/cgroup", group)) })
		}
		e.Close()
	})
	return e
}

// do runs a program and returns what it said, and its exit code.
func (e *engines) do(program string, args ...string) (string, int) {
	e.t.Helper()
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	c := e.Command(ctx, program, args...)
	f, err := os.CreateTemp(e.dir, "output") // a file: what it leaves running holds a pipe open
	if err != nil {
		e.t.Fatal(err)
	}
	defer f.Close()
	c.Stdout, c.Stderr = f, f
	if err := e.Run(c); c.ProcessState == nil {
		e.t.Fatalf("%s %q: %v", program, args, err)
	}
	out, err := os.ReadFile(f.Name())
	if err != nil {
		e.t.Fatal(err)
	}
	return string(out), c.ProcessState.ExitCode()
}

// A step is one command of a story, what it ends with, and something that it says.
type step struct {
	name string
	args []string
	code int
	want string
}

func (e *engines) tell(program string, global []string, steps []step) {
	e.t.Helper()
	for _, s := range steps {
		if out, code := e.do(program, append(slices.Clone(global), s.args...)...); code != s.code || !strings.Contains(out, s.want) {
			e.t.Errorf("%s: exit %d, want %d with %q: %s", s.name, code, s.code, s.want, out)
		}
	}
}

// modest are limits that a host without CAP_SYS_RESOURCE and without controllers can give.
var modest = []string{"--pids-limit=-1", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "--network", "none"}

// TestPodman: what people do with podman works when oci-runtime is its runtime.
func TestPodman(t *testing.T) {
	e := newEngines(t)
	podman := []string{"--root", filepath.Join(e.dir, "root"), "--runroot", filepath.Join(e.dir, "run"), "--tmpdir", filepath.Join(e.dir, "tmp"),
		"--cgroup-manager=cgroupfs", "--storage-driver=overlay", "--events-backend=file", "--runtime", e.runtime}
	defer e.do("podman", append(podman, "rm", "-fa", "-t", "0")...)
	run := func(flags ...string) []string { return append(append([]string{"run"}, modest...), flags...) }
	e.tell("podman", podman, []step{
		{"load", []string{"load", "-q", "-i", e.image}, 0, "probe:1"},
		{"run", run("--rm", "--user", "5:6", "probe:1", "/probe", "do", "id"), 0, "id 5 6"},
		{"exit code", run("--rm", "probe:1", "/probe", "exit", "7"), 7, ""},
		{"no program", run("--rm", "probe:1", "/nothing"), 127, "not found"},
		{"terminal", run("--rm", "-t", "probe:1", "/probe", "do", "readlink=/proc/self/fd/0", "stat=/dev/console"), 0, "/dev/pts/0"},
		{"user namespace", run("--rm", "--uidmap", "0:100000:5000", "--gidmap", "0:100000:5000", "probe:1", "/probe", "do", "cat=/proc/self/uid_map"), 0, "100000       5000"},
		{"read-only volume", run("--rm", "-v", e.dir+":/data:ro", "probe:1", "/probe", "do", "write=/data/x"), 1, "read-only file system"},
		{"detached", run("-d", "--log-driver=k8s-file", "--name", "web", "probe:1", "/probe", "do", "id", "sleep"), 0, ""},
		{"logs", []string{"logs", "web"}, 0, "id 0 0"},
		{"exec", []string{"exec", "web", "/probe", "do", "id"}, 0, "id 0 0"},
		{"exec with terminal", []string{"exec", "-t", "web", "/probe", "do", "readlink=/proc/self/fd/0"}, 0, "/dev/pts/0"},
		{"exec no program", []string{"exec", "web", "/nothing"}, 127, "not found"},
		{"pause", []string{"pause", "web"}, 0, ""},
		{"paused", []string{"ps", "-a", "--format", "{{.Status}}"}, 0, "Paused"},
		{"unpause", []string{"unpause", "web"}, 0, ""},
		{"top", []string{"top", "web"}, 0, "/probe do id sleep"},
		{"kill", []string{"kill", "web"}, 0, ""},
		{"wait", []string{"wait", "web"}, 0, "137"},
		{"start again", []string{"start", "web"}, 0, ""},
		{"stop", []string{"stop", "-t", "0", "web"}, 0, ""},
		{"remove", []string{"rm", "web"}, 0, ""},
	})
}
