package ctl

import (
	"reflect"
	"strings"
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
	any, five := int64(-1), -5
	for _, c := range []struct {
		args []string
		want store.Container
	}{
		{[]string{"-it", "--rm", "-e", "FROM_HERE", "-e", "NOT_THERE", "-e", "A="}, store.Container{Stdin: true, Terminal: true, Remove: true, Env: []string{"FROM_HERE=value", "A="}}},
		{[]string{"--restart=on-failure:5", "--memory-swap", "-1", "-c", "512", "--pids-limit=-1"}, store.Container{Restart: "on-failure", Restarts: 5, MemorySwap: &any, CPUShares: 512}},
		{[]string{"--device", "/dev/kvm:/dev/k:rw", "--device=/dev/fuse:r"}, store.Container{Devices: []store.Device{{Source: "/dev/kvm", Target: "/dev/k", Access: "rw"}, {Source: "/dev/fuse", Target: "/dev/fuse", Access: "r"}}}},
		{[]string{"--tmpfs", "/a:size=1m,ro", "--mount", "type=volume,source=data,dst=/b,volume-nocopy", "--tmpfs=/a"}, store.Container{Volumes: []store.Volume{{Name: "data", Target: "/b", NoCopy: true}, {Kind: "tmpfs", Target: "/a"}}}},
		{[]string{"--mount", "type=bind,src=/a/../b,dst=/c,ro,bind-propagation=rslave", "--mount", "type=bind,source=/d,target=/e,bind-create-src=true,bind-nonrecursive"},
			store.Container{Volumes: []store.Volume{{Source: "/b", Target: "/c", ReadOnly: true, Exists: true, Options: []string{"rslave"}}, {Source: "/d", Target: "/e", Options: []string{"bind"}}}}},
		{[]string{"--security-opt", "no-new-privileges:true", "--security-opt", "seccomp=unconfined", "--security-opt=label=disable"}, store.Container{NoNewPrivileges: true, Security: &store.Security{Seccomp: "unconfined"}}},
		{[]string{"--ulimit", "nofile=10", "--ulimit", "nofile=5:-1"}, store.Container{Ulimits: []store.Ulimit{{Name: "nofile", Soft: 5, Hard: 1<<64 - 1}}}},
		{[]string{"--entrypoint", `["/x","a b"]`}, store.Container{Entrypoint: []string{"/x", "a b"}}},
		{[]string{"--pid", "container:web", "--ipc=none", "--uts", "host", "--cgroupns", "host", "--domainname", "d"}, store.Container{PID: "container:web", IPC: "none", UTS: "host", CgroupNS: "host", Domainname: "d"}},
		{[]string{"--pid=private", "--ipc", "shareable", "--cgroupns=private", "--log-driver", "none", "--sig-proxy", "-q"}, store.Container{NoLog: true}},
		{[]string{"--oom-score-adj", "-5", "--memory-reservation", "1m", "--blkio-weight", "10", "--cpuset-mems", "0", "--device-write-bps", "/dev/vda:1k"}, store.Container{OOMScoreAdj: &five, MemoryLow: 1 << 20,
			BlkioWeight: 10, MemSet: "0", Rates: []store.Rate{{Setting: "IOWriteBandwidthMax", Device: "/dev/vda", Most: 1024}}}},
		{[]string{"--entrypoint", "[x"}, store.Container{Entrypoint: []string{"[x"}}},
	} {
		if got, err := parsed(t, c.args...); err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q: %v\n got %+v\nwant %+v", c.args, err, got, c.want)
		}
	}
	for _, args := range [][]string{{"--restart", "always:3"}, {"--device", "/dev/../etc/passwd"}, {"--device", "/dev/a b"}, {"--mount", "type=tmpfs,src=/x,dst=/y"}, {"--mount", "type=bind,src=x,dst=/y"},
		{"--mount", "type=bind,src=/x,dst=/y,colour=red"}, {"--tmpfs", "/"}, {"--tmpfs", "relative"}, {"--userns", "auto:size=0"}, {"--userns", "auto:gid=1"}, {"--userns", "mine"}, {"--security-opt", "mask=relative"}, {"--env", "=x"}, {"--health-retries", "0"},
		{"--env", "A B=x"}, {"--pid", "container:../x"}, {"--ipc", "container:web"}, {"--uts", "web"}, {"--log-driver", "syslog"}, {"--sig-proxy=false"}, {"--device-read-bps", "/etc:1m"}, {"--blkio-weight", "5"}} {
		if c, err := parsed(t, args...); err == nil {
			t.Errorf("%q: taken as %+v", args, c)
		}
	}
}

// TestElsewhere: whoever types a flag of docker's that is not here is told what is.
func TestElsewhere(t *testing.T) {
	e := testEnv(t.TempDir())
	for flag, hint := range elsewhere {
		if out, code := inside(t, e, "run", flag, "x", "y"); code != ourFailure || !strings.Contains(out, "unknown flag "+flag) || !strings.Contains(out, hint) {
			t.Errorf("%s: %d %s", flag, code, out)
		}
	}
	for verb, flag := range map[string]string{"login": "-p", "pull": "--platform"} {
		if out, code := inside(t, e, verb, flag, "x", "y"); code != 2 || !strings.Contains(out, "unknown flag "+flag) || !strings.Contains(out, "--password-stdin") && !strings.Contains(out, "skopeo") {
			t.Errorf("%s %s: %d %s", verb, flag, code, out)
		}
	}
	for _, c := range [][]string{{"--hostname and --domainname", "--uts", "host", "-h", "x"}, {"process 1 is another", "--pid", "host", "--init"}, {"--shm-size does not", "--ipc", "host", "--shm-size", "1m"},
		{"needs --cpu-quota", "--cpu-period", "5000"}, {"exclude each other", "--cpus", "1", "--cpu-quota", "5000"}} {
		if out, code := inside(t, e, append(append([]string{"run"}, c[1:]...), "x")...); code != ourFailure || !strings.Contains(out, c[0]) {
			t.Errorf("%q: %d %s", c, code, out)
		}
	}
	r := newRunFlags()
	if r.quota = 150_000; r.setQuota() != nil || r.c.CPUs != 1.5 {
		t.Errorf("quota without a period: %v", r.c.CPUs)
	}
}

// TestLabels: flags overrule files, and those the image, which does not say whether it is updated.
func TestLabels(t *testing.T) {
	got := labels(map[string]string{"a": "image", "b": "image", "c": "image", "io.containers.autoupdate": "registry"}, map[string]string{"b": "file", "c": "file"}, map[string]string{"c": "flag", "io.containers.x": "y"})
	if want := (map[string]string{"a": "image", "b": "file", "c": "flag", "io.containers.x": "y"}); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := labels(nil, nil, nil); got != nil {
		t.Errorf("got %v of none", got)
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
