package ctl

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/proa-os/proa/runtime/flagset"
	"github.com/proa-os/proa/runtime/store"
)

func TestAddVolume(t *testing.T) {
	for text, want := range map[string]store.Volume{
		"/a:/b":                    {Source: "/a", Target: "/b"},
		"/a/../c:/b/:ro":           {Source: "/c", Target: "/b", ReadOnly: true},
		"data:/b:Z,U,nocopy":       {Name: "data", Target: "/b", Chown: true, NoCopy: true},
		"data:/b:rw,rslave,noexec": {Name: "data", Target: "/b", Options: []string{"rslave", "noexec"}},
	} {
		var k store.Container
		if err := addVolume(&k, text); err != nil || !reflect.DeepEqual(k.Volumes[0], want) {
			t.Errorf("%s: got %+v, %v", text, k.Volumes, err)
		}
	}
	var k store.Container
	if err := addVolume(&k, "/b"); err != nil || len(k.Volumes[0].Name) != 64 || k.Volumes[0].Target != "/b" {
		t.Errorf("anonymous: %+v, %v", k.Volumes, err)
	}
	for text, want := range map[string]string{
		"": "want", "a": "absolute path", "a:b": "absolute path", "a:/": "not /", "a:/b:ro:x": "want [SOURCE:]TARGET", "-a:/b": "volume name", "a b:/b": "volume name",
		"a:/b:r0": "did you mean", "a:/b:dev": "option", "a:/b:xxxxxxxx": "want ro, nocopy",
	} {
		if err := addVolume(new(store.Container), text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
}

// TestVolumeCommands needs no root: nothing is mounted.
func TestVolumeCommands(t *testing.T) {
	m := bareMachine(t)
	if out := m.must("volume", "create", "--label", "a=b", "--opt", "o=uid=0", "data"); out != "data\n" {
		t.Errorf("create: %q", out)
	}
	m.mustFail("exists", "volume", "create", "data")
	m.must("volume", "create", "--ignore", "data")
	m.mustFail("type=ext4 without device=", "volume", "create", "--opt", "type=ext4", "x")
	m.mustFail("want type=", "volume", "create", "--opt", "size=3", "x")
	m.mustFail("volume name", "volume", "create", "../x")
	m.must("volume", "create", "--opt", "type=ext4", "--opt", "device=/dev/vdb", "--opt", "o=noatime", "disk")
	anonymous := strings.TrimSpace(m.must("volume", "create"))
	if out := m.must("volume", "ls", "-q", "--filter", "label=a=b"); out != "data\n" {
		t.Errorf("ls: %q", out)
	}
	if out := m.must("volume", "ls", "-q", "--filter", "dangling=true"); strings.Count(out, "\n") != 3 {
		t.Errorf("ls: %q", out)
	}
	var list []volumeView
	if err := json.Unmarshal([]byte(m.must("volume", "inspect", "disk", "data")), &list); err != nil || len(list) != 2 || list[0].Device != "/dev/vdb" || list[0].Options != "noatime" ||
		list[1].UID == nil || *list[1].UID != 0 || list[1].Mountpoint != filepath.Join(m.dir, "store/volumes/data/data") {
		t.Errorf("inspect: %+v, %v", list, err)
	}
	m.mustFail("did you mean data?", "volume", "inspect", "dat")
	m.mustFail("no such volume", "volume", "rm", "other")
	m.must("volume", "rm", "--force", "other")
	if out := m.must("volume", "prune"); out != anonymous+"\n" {
		t.Errorf("prune: %q", out)
	}
	if out := m.must("volume", "prune", "--all", "--filter", "label=a"); out != "data\n" {
		t.Errorf("prune --all: %q", out)
	}
	if out := m.must("volume", "rm", "disk"); out != "disk\n" {
		t.Errorf("rm: %q", out)
	}
	if out := m.must("volume", "ls", "--json"); strings.TrimSpace(out) != "[]" {
		t.Errorf("ls --json: %q", out)
	}
}

// A named volume outlives its containers and is filled by the first; one without a name goes with its container.
func TestVolumes(t *testing.T) {
	needContainers(t)
	m := newMachine(t)
	run := func(args ...string) {
		t.Helper()
		m.must(append([]string{"run", "--rm", "--network", "none", "--pull", "missing", "--tls-verify=false"}, args...)...)
	}
	run("-v", "site:/www", m.image(), "write", "/www/new", "text")
	data := filepath.Join(m.dir, "store/volumes/site/data")
	for name, want := range map[string]string{"index.html": "<h1>It works</h1>\n", "new": "text"} {
		if b, err := os.ReadFile(filepath.Join(data, name)); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	m.mustFail("read-only file system", "run", "--rm", "--network", "none", "-v", "site:/www:ro", m.image(), "write", "/www/new", "again")
	run("-v", "empty:/www:nocopy", m.image(), "write", "/www/only", "x")
	if es, err := os.ReadDir(filepath.Join(m.dir, "store/volumes/empty/data")); err != nil || len(es) != 1 {
		t.Errorf("nocopy: %v, %v", es, err)
	}
	run("-v", "/data", "-v", m.dir+"/bind:/bind:U", "-u", "33:44", m.image(), "write", "/bind/x", "by www")
	if out := m.must("volume", "ls", "-q"); out != "empty\nsite\n" {
		t.Errorf("an anonymous volume was left: %q", out)
	}
	if b, err := os.ReadFile(m.dir + "/bind/x"); err != nil || string(b) != "by www" {
		t.Errorf("%q, %v", b, err)
	}
	port := strconv.Itoa(freePort(t))
	run("-d", "--restart", "no", "--name", "web", "-v", "site:/www", "-v", "/data", m.image(), "serve", port)
	m.mustFail("site is used by web", "volume", "rm", "site")
	if out := m.must("volume", "prune", "--all"); out != "empty\n" {
		t.Errorf("prune: %q", out)
	}
	m.must("rm", "-f", "-v", "web")
	if out := m.must("volume", "ls", "-q"); out != "site\n" {
		t.Errorf("after rm: %q", out)
	}
	m.must("volume", "rm", "site")
}

// TestVolumesFrom: a container shares the volumes of others, and its own come first.
func TestVolumesFrom(t *testing.T) {
	e := testEnv(t.TempDir())
	s, err := e.open()
	if err != nil {
		t.Fatal(err)
	}
	add(t, e, &store.Container{Name: "one", Restart: "no", Volumes: []store.Volume{{Name: "data", Target: "/data"}, {Source: "/srv", Target: "/srv", ReadOnly: true}, {Kind: "tmpfs", Target: "/mem"}}})
	add(t, e, &store.Container{Name: "two", Restart: "no", Volumes: []store.Volume{{Name: "other", Target: "/data"}, {Name: "more", Target: "/more"}}})
	r := newRunFlags()
	set := new(flagset.Set)
	r.flags(set)
	if _, err := set.Parse([]string{"--volumes-from", "one", "-v", "mine:/more", "--volumes-from=two:ro"}, false); err != nil {
		t.Fatal(err)
	}
	k := r.c
	if err := r.shareVolumes(&call{Env: e, store: s}, &k); err != nil {
		t.Fatal(err)
	}
	want := []store.Volume{{Name: "other", Target: "/data", ReadOnly: true}, {Source: "/srv", Target: "/srv", ReadOnly: true}, {Name: "mine", Target: "/more"}}
	if !reflect.DeepEqual(k.Volumes, want) {
		t.Errorf("got %+v, want %+v", k.Volumes, want)
	}
	r.from = []string{"oen"}
	if err := r.shareVolumes(&call{Env: e, store: s}, &k); err == nil || !strings.Contains(err.Error(), "--volumes-from: oen: no such container: did you mean one?") {
		t.Errorf("of nobody: %v", err)
	}
	for _, v := range []string{"one:rx", "../x", ""} {
		if _, err := set.Parse([]string{"--volumes-from=" + v}, false); err == nil {
			t.Errorf("%q is taken", v)
		}
	}
	if os.Geteuid() != 0 {
		return
	}
	needContainers(t)
	m := newMachine(t)
	m.must("run", "--name", "first", "-v", "/kept", "--tls-verify=false", "--network", "none", m.image(), "write", "/kept/f", "content")
	if out := m.must("run", "--rm", "--volumes-from", "first:ro", "--network", "none", m.image(), "show", "/kept/f"); !strings.HasPrefix(out, "content ") {
		t.Errorf("got %q", out)
	}
	m.mustFail("read-only", "run", "--rm", "--volumes-from", "first:ro", "--network", "none", m.image(), "write", "/kept/f", "x")
	m.must("create", "--name", "second", "--volumes-from", "first", "--network", "none", m.image(), "show", "/kept/f")
	m.must("rm", "first") // its volume without a name is the other one's now
	if out, _, code := m.ctl("start", "-a", "second"); code != 0 || !strings.HasPrefix(out, "content ") {
		t.Errorf("exit %d: %q", code, out)
	}
}
