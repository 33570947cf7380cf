package ctl

import (
	"reflect"
	"testing"

	"github.com/proa-os/proa/runtime/flagset"
	"github.com/proa-os/proa/runtime/store"
)

// parsed is the container that flags describe.
func parsed(t *testing.T, args ...string) (store.Container, error) {
	t.Helper()
	r, s := newRunFlags(), new(flagset.Set)
	r.flags(s)
	_, err := s.Parse(args, false)
	return r.c, err
}

func TestRunFlags(t *testing.T) {
	t.Setenv("FROM_HERE", "value")
	any := int64(-1)
	for _, c := range []struct {
		args []string
		want store.Container
	}{
		{[]string{"-it", "--rm", "-e", "FROM_HERE", "-e", "NOT_THERE", "-e", "A="}, store.Container{Stdin: true, Terminal: true, Remove: true, Env: []string{"FROM_HERE=value", "A="}}},
		{[]string{"--restart=on-failure:5", "--memory-swap", "-1", "-c", "512", "--pids-limit=-1"}, store.Container{Restart: "on-failure", Restarts: 5, MemorySwap: &any, CPUShares: 512}},
		{[]string{"--device", "/dev/kvm:/dev/k:rw", "--device=/dev/fuse:r"}, store.Container{Devices: []store.Device{{Source: "/dev/kvm", Target: "/dev/k", Access: "rw"}, {Source: "/dev/fuse", Target: "/dev/fuse", Access: "r"}}}},
		{[]string{"--tmpfs", "/a:size=1m,ro", "--mount", "type=volume,source=data,dst=/b,volume-nocopy", "--tmpfs=/a"}, store.Container{Volumes: []store.Volume{{Name: "data", Target: "/b", NoCopy: true}, {Kind: "tmpfs", Target: "/a"}}}},
		{[]string{"--security-opt", "no-new-privileges:true", "--security-opt", "seccomp=unconfined", "--security-opt=label=disable"}, store.Container{NoNewPrivileges: true, Security: &store.Security{Seccomp: "unconfined"}}},
		{[]string{"--ulimit", "nofile=10", "--ulimit", "nofile=5:-1"}, store.Container{Ulimits: []store.Ulimit{{Name: "nofile", Soft: 5, Hard: 1<<64 - 1}}}},
		{[]string{"--entrypoint", `["/x","a b"]`}, store.Container{Entrypoint: []string{"/x", "a b"}}},
		{[]string{"--entrypoint", "[x"}, store.Container{Entrypoint: []string{"[x"}}},
	} {
		if got, err := parsed(t, c.args...); err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q: %v\n got %+v\nwant %+v", c.args, err, got, c.want)
		}
	}
	for _, args := range [][]string{{"--restart", "always:3"}, {"--device", "/dev/../etc/passwd"}, {"--device", "/dev/a b"}, {"--mount", "type=tmpfs,src=/x,dst=/y"}, {"--mount", "type=bind,src=x,dst=/y"},
		{"--tmpfs", "/"}, {"--tmpfs", "relative"}, {"--userns", "auto:size=0"}, {"--userns", "auto:gid=1"}, {"--userns", "mine"}, {"--security-opt", "mask=relative"}, {"--env", "=x"}, {"--health-retries", "0"}} {
		if c, err := parsed(t, args...); err == nil {
			t.Errorf("%q: taken as %+v", args, c)
		}
	}
}

// TestAllotIDs: no two containers have numbers in common, and freed ones are used again.
func TestAllotIDs(t *testing.T) {
	var all []*store.Container
	for range 3 {
		ids, err := allotIDs(all, "auto")
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, &store.Container{IDs: ids})
	}
	if a, b := all[0].IDs, all[1].IDs; a.First != firstID || b.First != firstID+idsInOne || a.Count != idsInOne {
		t.Errorf("%+v %+v", a, b)
	}
	if ids, err := allotIDs(append(all[:1:1], all[2]), "auto:size=10"); err != nil || ids.First != firstID+idsInOne || ids.Count != 10 {
		t.Errorf("%+v %v", ids, err)
	}
	if ids, err := allotIDs(all, "host"); err != nil || ids != nil {
		t.Errorf("%+v %v", ids, err)
	}
	full := []*store.Container{}
	for first := uint32(firstID); first < lastID-idsInOne+2; first += idsInOne {
		full = append(full, &store.Container{IDs: &store.IDs{First: first}})
	}
	if ids, err := allotIDs(full, "auto"); err == nil {
		t.Errorf("got %+v where none are left", ids)
	}
}
