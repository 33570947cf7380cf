package bundle

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/runtime/image"
	"github.com/proa-os/proa/runtime/seccomp"
	"github.com/proa-os/proa/runtime/spec"
	"github.com/proa-os/proa/runtime/store"
)

func img() *image.Config {
	c := new(image.Config)
	c.Config.Entrypoint = []string{"/entry"}
	c.Config.Cmd = []string{"cmd"}
	c.Config.Env = []string{"PATH=/image", "A=1"}
	c.Config.WorkingDir = "work"
	return c
}

func TestSpec(t *testing.T) {
	c := &store.Container{Name: "web", Network: "none", Env: []string{"A=2"}, ReadOnly: true, Volumes: []store.Volume{{Source: "/srv", Target: "/data", ReadOnly: true}},
		CapDrop: []string{"all"}, CapAdd: []string{"net_admin", "CAP_KILL"}}
	s, err := Spec(c, img(), User{UID: 7, GID: 8, Home: "/home/x"}, Place{"/rootfs", "/files"}, Start{})
	if err != nil {
		t.Fatal(err)
	}
	p := s.Process
	if want := []string{"PATH=/image", "HOME=/home/x", "HOSTNAME=web", "A=2"}; !slices.Equal(p.Env, want) {
		t.Errorf("env %q, want %q", p.Env, want)
	}
	if want := []string{"CAP_KILL", "CAP_NET_ADMIN"}; !slices.Equal(p.Capabilities.Bounding, want) || p.Capabilities.Ambient != nil {
		t.Errorf("capabilities %+v", p.Capabilities)
	}
	if p.Cwd != "/work" || p.User.UID != 7 || p.User.GID != 8 || !slices.Equal(p.Args, []string{"/entry", "cmd"}) || !s.Root.Readonly {
		t.Errorf("%+v", p)
	}
	if last := s.Mounts[len(s.Mounts)-1]; last.Destination != "/data" || !slices.Contains(last.Options, "rro") || !slices.Contains(last.Options, "nodev") {
		t.Errorf("%+v", last)
	}
	if len(s.Linux.Namespaces) != 6 {
		t.Errorf("%v", s.Linux.Namespaces)
	}
	// What this package writes, oci-runtime reads.
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	back, err := spec.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := seccomp.Compile(back.Linux.Seccomp); err != nil {
		t.Error(err)
	}
}

func TestDefaultCapabilities(t *testing.T) {
	s, err := Spec(&store.Container{Name: "x", Network: "host"}, img(), User{}, Place{"/r", "/f"}, Start{})
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Process.Capabilities.Bounding; len(got) != 13 || slices.Contains(got, "CAP_MKNOD") || slices.Contains(got, "CAP_SYS_ADMIN") {
		t.Errorf("%v", got)
	}
	if len(s.Linux.Namespaces) != 5 {
		t.Errorf("host network: %v", s.Linux.Namespaces)
	}
}

func TestCommand(t *testing.T) {
	for _, c := range []struct {
		entry, args, want []string
	}{
		{nil, nil, []string{"/entry", "cmd"}},
		{nil, []string{"a", "b"}, []string{"/entry", "a", "b"}},
		{[]string{"/own"}, nil, []string{"/own"}},
		{[]string{"/own"}, []string{"a"}, []string{"/own", "a"}},
		{[]string{""}, []string{"sh"}, []string{"sh"}},
	} {
		got, err := Command(&store.Container{Entrypoint: c.entry, Args: c.args}, img())
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("entrypoint %q, args %q: %q %v, want %q", c.entry, c.args, got, err, c.want)
		}
	}
	if _, err := Command(&store.Container{Image: "i"}, new(image.Config)); err == nil || !strings.Contains(err.Error(), "names no command") {
		t.Errorf("no command: %v", err)
	}
}

func TestLookupUser(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	write("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nbroken line\nwww:x:33:44::/www:/bin/false\nbad:x:a:b:::\n")
	write("etc/group", "root:x:0:\nwww:x:44:\nextra:x:55:www,other\nbad:x:z:www\n")
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for text, want := range map[string]User{
		"":          {0, 0, nil, "/root"},
		"www":       {33, 44, []uint32{55}, "/www"},
		"33":        {33, 44, []uint32{55}, "/www"},
		"www:extra": {33, 55, nil, "/www"},
		"www:9":     {33, 9, nil, "/www"},
		"1000":      {1000, 0, nil, ""},
		"1000:44":   {1000, 44, nil, ""},
	} {
		got, err := LookupUser(root, text)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v %v, want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"nobody", "www:nogroup", "-1", "4294967296", "bad"} {
		if got, err := LookupUser(root, text); err == nil {
			t.Errorf("%q: %+v", text, got)
		}
	}
	// Links lead where they lead in the container: to its own files, or nowhere.
	if err := os.Rename(filepath.Join(dir, "etc/passwd"), filepath.Join(dir, "store")); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "etc/passwd")
	for _, to := range []string{"/store", "../../../store"} {
		if err := os.Symlink(to, link); err != nil {
			t.Fatal(err)
		}
		if u, err := LookupUser(root, "www"); err != nil || u.UID != 33 {
			t.Errorf("by a link to %s: %+v %v", to, u, err)
		}
		os.Remove(link)
	}
	if err := os.Symlink("/proc/self/root/etc/passwd", link); err != nil {
		t.Fatal(err)
	}
	if u, err := LookupUser(root, "root"); err == nil {
		t.Errorf("by a link out: %+v", u)
	}
}

// TestUserFifo: the image's /etc/passwd may be anything; nobody waits for a writer of it.
func TestUserFifo(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(dir, "etc/passwd"), 0o644); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	done := make(chan error, 1)
	go func() {
		_, err := LookupUser(root, "0")
		done <- err
	}()
	select {
	case err := <-done:
		if err == nil || !strings.Contains(err.Error(), "no regular file") {
			t.Errorf("error %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Error("hangs")
	}
}

// TestVolumeOptions: what is mounted below a directory comes along unless bind says otherwise, and none of it is writable where that is not.
func TestVolumeOptions(t *testing.T) {
	for _, c := range []struct {
		v    store.Volume
		want []string
	}{
		{store.Volume{Source: "/a", Target: "/b"}, []string{"rbind", "nodev"}},
		{store.Volume{Source: "/a", Target: "/b", Options: []string{"bind"}}, []string{"nodev", "bind"}},
		{store.Volume{Source: "/a", Target: "/b", ReadOnly: true, Options: []string{"rslave"}}, []string{"rbind", "nodev", "rslave", "ro", "rro"}},
		{store.Volume{Kind: "tmpfs", Target: "/b", Options: []string{"size=1"}}, []string{"nosuid", "nodev", "noexec", "size=1"}},
	} {
		if m, err := volumeMount(&store.Container{}, Place{}, c.v); err != nil || !slices.Equal(m.Options, c.want) {
			t.Errorf("%+v: got %v, %v, want %v", c.v, m.Options, err, c.want)
		}
	}
}
