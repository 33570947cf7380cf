package oci

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"
	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/internal/testenv"
	"github.com/proa-os/proa/runtime/cgroup"
	"github.com/proa-os/proa/runtime/run"
	"github.com/proa-os/proa/runtime/seccomp"
)

// The test binary plays three parts: the test, oci-runtime (with OCI_RUNTIME set) and the workload (as /probe).
func TestMain(m *testing.M) {
	switch {
	case run.IsStageTwo():
		run.StageTwo()
		os.Exit(1)
	case os.Args[0] == "/proc/self/exe" && os.Getenv("INTERPRETED") != "":
		var st unix.Statfs_t
		err := unix.Statfs("/proc/self/exe", &st)
		fmt.Println("read-only", st.Flags&unix.ST_RDONLY != 0, err)
		os.Exit(0)
	case len(os.Args) > 1 && filepath.Base(os.Args[0]) == "probe":
		os.Exit(probe(os.Args[1], os.Args[2:]))
	case os.Getenv("OCI_RUNTIME") != "" || filepath.Base(os.Args[0]) == "oci-runtime":
		os.Exit(Main(context.Background(), os.Args[1:], Streams{os.Stdout, os.Stderr}))
	}
	os.Exit(m.Run())
}

// view is what a workload sees of its container.
type view struct {
	Status   map[string]string // of /proc/self/status
	Mounts   map[string]string // mount point: options
	Dev      []string
	FDs      []int
	Hostname string
	Cwd      string
	Env      []string
	UID, GID int
	Groups   []int
	NoFile   unix.Rlimit
	Lo       bool
	Slack    string // of timers, in nanoseconds
	Null     os.FileMode
	Exe      string
	OOM      string
	Denied   map[string]string // what was tried: the error
	Cgroup   string
	Umask    int
}

func probe(verb string, args []string) int {
	switch verb {
	case "do":
		return act(args)
	case "view":
		json.NewEncoder(os.Stdout).Encode(look())
	case "exit":
		n, _ := strconv.Atoi(args[0])
		return n
	case "sleep":
		fmt.Println("sleeping")
		time.Sleep(time.Hour)
	case "term":
		c := make(chan os.Signal, 1)
		signal.Notify(c, unix.SIGTERM)
		fmt.Println("waiting")
		<-c
		return 42
	case "suicide":
		signal.Reset()
		unix.Kill(os.Getpid(), unix.SIGKILL)
	}
	return 0
}

// slack is how late this process's timers may be. A thread may ask only about itself, and any of Go's threads runs this: it has the
// first one's number.
func slack() string {
	n, _, e := unix.RawSyscall(unix.SYS_PRCTL, unix.PR_GET_TIMERSLACK, 0, 0)
	if e != 0 {
		return e.Error()
	}
	return strconv.Itoa(int(n))
}

func look() view {
	v := view{Status: map[string]string{}, Mounts: map[string]string{}, Denied: map[string]string{}}
	b, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(b)) {
		k, val, _ := strings.Cut(line, ":")
		v.Status[k] = strings.Join(strings.Fields(val), " ")
	}
	b, _ = os.ReadFile("/proc/self/mounts")
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		v.Mounts[f[1]] = f[2] + " " + f[3]
	}
	es, _ := os.ReadDir("/dev")
	for _, e := range es {
		v.Dev = append(v.Dev, e.Name())
	}
	es, _ = os.ReadDir("/proc/self/fd")
	for _, e := range es {
		n, _ := strconv.Atoi(e.Name())
		// Go's poller and this directory come after the start.
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && !strings.HasPrefix(to, "anon_inode:") {
			v.FDs = append(v.FDs, n)
		}
	}
	v.Hostname, _ = os.Hostname()
	v.Cwd, _ = os.Getwd()
	v.Env = os.Environ()
	v.UID, v.GID = os.Getuid(), os.Getgid()
	v.Groups, _ = os.Getgroups()
	unix.Prlimit(0, unix.RLIMIT_NOFILE, nil, &v.NoFile)
	b, _ = os.ReadFile("/sys/class/net/lo/flags")
	flags, _ := strconv.ParseUint(strings.TrimSpace(strings.TrimPrefix(string(b), "0x")), 16, 32)
	v.Lo = flags&unix.IFF_UP != 0
	v.Exe, _ = os.Readlink("/proc/1/exe")
	b, _ = os.ReadFile("/proc/self/oom_score_adj")
	v.OOM = strings.TrimSpace(string(b))
	b, _ = os.ReadFile("/proc/self/cgroup")
	for line := range strings.Lines(string(b)) {
		if p, ok := strings.CutPrefix(line, "0::"); ok {
			v.Cgroup = strings.TrimSpace(p)
		}
	}
	v.Slack = slack()
	if st, err := os.Stat("/dev/null"); err == nil {
		v.Null = st.Mode().Perm()
	}
	v.Umask = unix.Umask(0)
	try := func(name string, err error) {
		if err != nil {
			v.Denied[name] = err.Error()
		} else {
			v.Denied[name] = "allowed"
		}
	}
	try("write root", os.WriteFile("/written", nil, 0o600))
	try("write /proc/sys", os.WriteFile("/proc/sys/kernel/hostname", []byte("x"), 0))
	try("unshare", unix.Unshare(unix.CLONE_NEWUTS))
	try("mount", unix.Mount("none", "/tmp", "tmpfs", 0, ""))
	_, err := os.ReadFile("/proc/kcore")
	try("read kcore", err)
	b, err = os.ReadFile("/proc/timer_list")
	v.Denied["masked file"] = fmt.Sprintf("%d bytes, %v", len(b), err)
	es, err = os.ReadDir("/sys/firmware")
	v.Denied["masked dir"] = fmt.Sprintf("%d entries, %v", len(es), err)
	return v
}

// needRoot skips where containers cannot be made at all.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED: containers need root; the stories in qemu-tests cover them")
	}
}

// A box is a bundle and a state directory; runtime runs oci-runtime on it.
type box struct {
	t    *testing.T
	dir  string
	spec *specs.Spec
}

var fullCaps = []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_NET_BIND_SERVICE"}

func newBox(t *testing.T, args ...string) *box {
	t.Helper()
	needRoot(t)
	b := &box{t: t, dir: t.TempDir()}
	b.spec = &specs.Spec{
		Version: "1.2.0",
		Process: &specs.Process{Args: append([]string{"/probe"}, args...), Env: []string{"PATH=/", "A=b"}, Cwd: "/",
			NoNewPrivileges: true, Capabilities: &specs.LinuxCapabilities{Bounding: fullCaps, Effective: fullCaps, Permitted: fullCaps}},
		Root:     &specs.Root{Path: "rootfs", Readonly: true},
		Hostname: "boxed",
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "mode=755"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"newinstance", "ptmxmode=0666"}},
			{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "nodev", "noexec", "mode=1777", "size=64k"}},
			{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue"},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"ro", "nosuid"}},
			{Destination: "/sys/fs/cgroup", Type: "cgroup2", Source: "cgroup", Options: []string{"ro"}},
			{Destination: "/bound/here", Type: "bind", Source: "bound", Options: []string{"rbind", "ro", "nodev"}},
		},
		Linux: &specs.Linux{
			Namespaces: []specs.LinuxNamespace{{Type: "pid"}, {Type: "mount"}, {Type: "ipc"}, {Type: "uts"}, {Type: "network"}, {Type: "cgroup"}},
			Sysctl:     map[string]string{"net.ipv4.ip_unprivileged_port_start": "0"},
			Seccomp:    seccomp.Default(fullCaps),
			// /sys/firmware may be absent; /proc/timer_list and /proc/acpi are there with most kernels.
			MaskedPaths:   []string{"/proc/kcore", "/proc/timer_list", "/proc/acpi", "/sys/firmware", "/not/there"},
			ReadonlyPaths: []string{"/proc/sys", "/proc/bus", "/not/there"},
		},
	}
	root := filepath.Join(b.dir, "rootfs")
	for _, d := range []string{filepath.Join(root, "tmp"), filepath.Join(b.dir, "bound")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "probe"), self, 0o755); err != nil {
		t.Fatal(err)
	}
	needStatic(t)
	t.Cleanup(func() {
		b.command("delete", "--force", "box").Run()
		b.leftNothing()
	})
	return b
}

func (b *box) command(args ...string) *exec.Cmd {
	c := exec.Command("/proc/self/exe", append([]string{"--root", filepath.Join(b.dir, "state")}, args...)...)
	c.Env = append(os.Environ(), "OCI_RUNTIME=1")
	c.Dir = b.dir
	return c
}

// write stores config.json.
func (b *box) write() {
	b.t.Helper()
	data, err := json.Marshal(b.spec)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.dir, "config.json"), data, 0o600); err != nil {
		b.t.Fatal(err)
	}
}

func (b *box) runtime(args ...string) (string, string, int) {
	b.t.Helper()
	c := b.command(args...)
	// Files and not pipes: a workload that goes on holds them open.
	var texts [2]string
	files := [2]*os.File{}
	for i := range files {
		f, err := os.CreateTemp(b.dir, "output")
		if err != nil {
			b.t.Fatal(err)
		}
		defer f.Close()
		files[i] = f
	}
	c.Stdout, c.Stderr = files[0], files[1]
	if err := c.Run(); c.ProcessState == nil {
		b.t.Fatal(err)
	}
	for i, f := range files {
		data, err := os.ReadFile(f.Name())
		if err != nil {
			b.t.Fatal(err)
		}
		texts[i] = string(data)
	}
	return texts[0], texts[1], c.ProcessState.ExitCode()
}

// leftNothing: no state, no mount, no process with the bundle.
func (b *box) leftNothing() {
	b.t.Helper()
	if es, err := os.ReadDir(filepath.Join(b.dir, "state")); err == nil && len(es) > 0 {
		b.t.Errorf("state left behind: %v", es)
	}
	m, _ := os.ReadFile("/proc/self/mountinfo")
	if strings.Contains(string(m), b.dir) {
		b.t.Errorf("mount left behind:\n%s", m)
	}
}

func TestView(t *testing.T) {
	// What the caller ignores is the caller's matter, as systemd's SIGPIPE. Go's start keeps an ignored SIGHUP, of all signals.
	signal.Ignore(syscall.SIGHUP)
	defer signal.Reset(syscall.SIGHUP)
	b := newBox(t, "view")
	b.write()
	defer unix.Umask(unix.Umask(0o077)) // nor is its umask the container's
	out, errs, code := b.runtime("run", "-b", b.dir, "box")
	if code != 0 {
		t.Fatalf("exit %d: %s", code, errs)
	}
	var v view
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for key, want := range map[string]string{"NoNewPrivs": "1", "Seccomp": "2", "CapAmb": "0000000000000000", "CapInh": "0000000000000000",
		"CapBnd": "00000000000004eb", "CapPrm": "00000000000004eb", "CapEff": "00000000000004eb", "SigIgn": "0000000000000000"} {
		if v.Status[key] != want {
			t.Errorf("status %s: %q, want %q", key, v.Status[key], want)
		}
	}
	if pid := v.Status["NSpid"]; pid != "1" {
		t.Errorf("pid in the container: %s", pid)
	}
	wantDev := []string{"core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty", "urandom", "zero"}
	if !slices.Equal(v.Dev, wantDev) {
		t.Errorf("/dev: %v", v.Dev)
	}
	for _, fd := range v.FDs {
		if fd > 2 {
			t.Errorf("descriptor %d reaches the workload", fd)
		}
	}
	if v.Hostname != "boxed" || v.Cwd != "/" || !slices.Equal(v.Env, []string{"PATH=/", "A=b", "HOME=/"}) || v.Umask != 0o022 {
		t.Errorf("hostname %q, cwd %q, env %q, umask %o", v.Hostname, v.Cwd, v.Env, v.Umask)
	}
	if v.Null != 0o666 {
		t.Errorf("/dev/null has mode %o", v.Null)
	}
	if want := slack(); v.Slack != want {
		t.Errorf("timer slack %s, want the caller's %s: package brief has reached the workload", v.Slack, want)
	}
	if !v.Lo {
		t.Error("lo is down")
	}
	if v.Exe != "/probe" {
		t.Errorf("/proc/1/exe is %q", v.Exe)
	}
	if v.Cgroup != "/" {
		t.Errorf("cgroup %q, want / of an own namespace", v.Cgroup)
	}
	for what, want := range map[string]string{
		"write root": "read-only file system", "write /proc/sys": "read-only file system",
		"unshare": "operation not permitted", "mount": "operation not permitted", "masked file": "0 bytes, <nil>"} {
		if !strings.Contains(v.Denied[what], want) {
			t.Errorf("%s: %q, want %q", what, v.Denied[what], want)
		}
	}
	if strings.HasPrefix(v.Denied["masked dir"], "0 ") == false && !strings.Contains(v.Denied["masked dir"], "no such file") {
		t.Errorf("masked dir: %s", v.Denied["masked dir"])
	}
	for point, want := range map[string]string{"/": "ro,nodev", "/sys": "sysfs ro,nosuid", "/bound/here": "ro,nodev", "/dev/shm": "size=64k", "/proc/sys": "proc ro", "/sys/fs/cgroup": "cgroup2 ro"} {
		if !strings.Contains(v.Mounts[point], want) {
			t.Errorf("mount %s: %q, want %q in it", point, v.Mounts[point], want)
		}
	}
	for point := range v.Mounts {
		if strings.Contains(point, "rootfs") || strings.HasPrefix(point, "/home") {
			t.Errorf("a mount of the caller: %s", point)
		}
	}
}

func TestUserAndLimits(t *testing.T) {
	b := newBox(t, "view")
	umask, oom := uint32(0o077), 123
	p := b.spec.Process
	p.User = specs.User{UID: 1234, GID: 2345, AdditionalGids: []uint32{7, 9}, Umask: &umask}
	p.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 99, Hard: 100}}
	p.OOMScoreAdj = &oom
	p.NoNewPrivileges = false
	p.Capabilities.Inheritable = []string{"CAP_KILL"}
	p.Capabilities.Ambient = []string{"CAP_KILL"}
	p.Cwd = "/tmp"
	b.write()
	out, errs, code := b.runtime("run", "box")
	if code != 0 {
		t.Fatalf("exit %d: %s", code, errs)
	}
	var v view
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Fatal(err)
	}
	if v.UID != 1234 || v.GID != 2345 || !slices.Equal(v.Groups, []int{7, 9}) || v.Umask != 0o077 || v.OOM != "123" || v.Cwd != "/tmp" {
		t.Errorf("%+v", v)
	}
	if v.NoFile != (unix.Rlimit{Cur: 99, Max: 100}) {
		// Go raises the soft limit of its own programs, so the workload itself may show the hard one.
		if v.NoFile.Max != 100 {
			t.Errorf("RLIMIT_NOFILE %+v", v.NoFile)
		}
	}
	kill := "0000000000000020"
	if v.Status["CapEff"] != kill || v.Status["CapAmb"] != kill || v.Status["CapPrm"] != kill || v.Status["Seccomp"] != "2" || v.Status["NoNewPrivs"] != "0" {
		t.Errorf("status %v", v.Status)
	}
}

// TestCapabilities: what cannot be granted is left out with a warning, which engines find in the log, and exec --cap adds a capability also
// for programs of other users where the container lets them inherit it.
func TestCapabilities(t *testing.T) {
	b := newBox(t, "term")
	all := []string{"CAP_KILL", "CAP_CHOWN", "CAP_FLY"}
	*b.spec.Process.Capabilities = specs.LinuxCapabilities{Bounding: all, Permitted: all[:1], Effective: all[:1], Inheritable: all[:2], Ambient: all[:2]}
	b.write()
	log := filepath.Join(b.dir, "log")
	if _, errs, code := b.runtime("--log", log, "--log-format", "json", "run", "--detach", "box"); code != 0 || !strings.Contains(errs, "warning: process.capabilities.bounding[2]: cannot grant CAP_FLY") {
		t.Fatalf("exit %d: %s", code, errs)
	}
	if text, err := os.ReadFile(log); err != nil || strings.Count(string(text), `"level":"warning"`) != 2 || !strings.Contains(string(text), "ambient[1]: cannot grant CAP_CHOWN") {
		t.Errorf("log: %v %s", err, text)
	}
	for _, c := range []struct{ flag, want string }{{"--cap=CAP_CHOWN", "0000000000000021"}, {"--cap=CAP_NET_RAW", "0000000000000020"}} {
		out, errs, code := b.runtime("exec", c.flag, "box", "/probe", "view")
		var v view
		if err := json.Unmarshal([]byte(out), &v); err != nil || code != 0 {
			t.Fatalf("%s: exit %d: %s", c.flag, code, errs)
		}
		if v.Status["CapAmb"] != c.want {
			t.Errorf("%s: ambient %s, want %s", c.flag, v.Status["CapAmb"], c.want)
		}
	}
	b.runtime("kill", "box", "KILL")
	if _, errs, code := b.runtime("delete", "--force", "box"); code != 0 {
		t.Errorf("delete: %s", errs)
	}
	b.leftNothing()
}

func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		args []string
		want int
	}{{[]string{"exit", "7"}, 7}, {[]string{"exit", "0"}, 0}} {
		b := newBox(t, c.args...)
		b.write()
		if _, errs, code := b.runtime("run", "box"); code != c.want {
			t.Errorf("%v: exit %d: %s", c.args, code, errs)
		}
		b.leftNothing()
	}
}

// TestFailures: an error names what is wrong, the exit code is 1, or a shell's for a program that is not one, and nothing is left.
func TestFailures(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*box)
		want   string
	}{
		"no program":     {func(b *box) { b.spec.Process.Args[0] = "/nothing" }, `process.args[0]: stat /nothing`},
		"not in PATH":    {func(b *box) { b.spec.Process.Args[0] = "nothing" }, `no executable "nothing" in PATH=/`},
		"directory":      {func(b *box) { b.spec.Process.Args[0] = "/tmp" }, "is a directory"},
		"no format":      {func(b *box) { b.program("script", "echo\n") }, "process.args[0]: execute /script: exec format error"},
		"no interpreter": {func(b *box) { b.program("script", "#!/not/there\n") }, "process.args[0]: execute /script: no such file"},
		"cwd a file":     {func(b *box) { b.spec.Process.Cwd = "/probe" }, "process.cwd"},
		"cwd by fd":      {func(b *box) { b.spec.Process.Cwd = "/proc/self/fd/4" }, "process.cwd"},
		"no root":        {func(b *box) { b.spec.Root.Path = "gone" }, "root.path"},
		"no source":      {func(b *box) { b.spec.Mounts[7].Source = "/not/there" }, "mounts[7] (/bound/here)"},
		"bad option":     {func(b *box) { b.spec.Mounts[3].Options = []string{"size=lots"} }, "size=lots"},
		"bad sysctl":     {func(b *box) { b.spec.Linux.Sysctl = map[string]string{"net.nothing": "1"} }, "linux.sysctl.net.nothing"},
		"no namespace":   {func(b *box) { b.spec.Linux.Sysctl = nil; b.spec.Linux.Namespaces[4].Path = "/not/there" }, "linux.namespaces (network)"},
		"wrong netns":    {func(b *box) { b.spec.Linux.Sysctl = nil; b.spec.Linux.Namespaces[4].Path = "/proc/self/ns/uts" }, "linux.namespaces (network)"},
		"unsupported":    {func(b *box) { b.spec.Linux.MountLabel = "x" }, "linux.mountLabel: SELinux is not enabled"},
		"bad seccomp":    {func(b *box) { b.spec.Linux.Seccomp.Syscalls[0].Action = "X" }, "linux.seccomp.syscalls[0].action"},
		"proc is link":   {func(b *box) { os.Symlink("tmp", filepath.Join(b.dir, "rootfs/proc")) }, "symbolic link where a kernel file system goes"},
		"fake null": {func(b *box) {
			b.spec.Mounts = b.spec.Mounts[:1]
			os.MkdirAll(filepath.Join(b.dir, "rootfs/dev/null"), 0o755)
		}, "make /dev/null: the image has something else there"},
		"no pid file":   {func(b *box) {}, "write pid file"},
		"broken config": {func(b *box) { b.spec.Version = "9" }, "ociVersion"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t, "exit", "0")
			c.change(b)
			b.write()
			args := []string{"--log", filepath.Join(b.dir, "log"), "--log-format", "json", "run", "box"}
			if name == "no pid file" {
				args = append(args, "--pid-file", "/not/there/pid")
			}
			want := 1
			switch name {
			case "no program", "not in PATH", "no interpreter":
				want = 127
			case "directory", "no format":
				want = 126
			}
			_, errs, code := b.runtime(args...)
			if code != want || !strings.Contains(errs, c.want) || strings.Count(errs, "\n") != 1 {
				t.Errorf("exit %d: %s; want %d and %q", code, errs, want, c.want)
			}
			b.leftNothing()
			var rec map[string]string
			log, _ := os.ReadFile(filepath.Join(b.dir, "log"))
			if err := json.Unmarshal(log, &rec); err != nil || !strings.Contains(rec["msg"], c.want) {
				t.Errorf("log: %v %s", err, log)
			}
		})
	}
}

// program makes a file of the container its workload.
func (b *box) program(name, text string) {
	b.t.Helper()
	if err := os.WriteFile(filepath.Join(b.dir, "rootfs", name), []byte(text), 0o755); err != nil {
		b.t.Fatal(err)
	}
	b.spec.Process.Args[0] = "/" + name
}

// TestLifeCycle: create, state, start, exec, kill, delete.
func TestLifeCycle(t *testing.T) {
	b := newBox(t, "term")
	b.write()
	state := func() specs.State {
		t.Helper()
		out, errs, code := b.runtime("state", "box")
		var s specs.State
		if err := json.Unmarshal([]byte(out), &s); code != 0 || err != nil {
			t.Fatalf("state: %d %s %v", code, errs, err)
		}
		return s
	}
	must := func(args ...string) {
		t.Helper()
		if out, errs, code := b.runtime(args...); code != 0 {
			t.Fatalf("%v: exit %d: %s%s", args, code, out, errs)
		}
	}
	mustFail := func(want string, args ...string) {
		t.Helper()
		if _, errs, code := b.runtime(args...); code == 0 || !strings.Contains(errs, want) {
			t.Errorf("%v: exit %d: %s; want %q", args, code, errs, want)
		}
	}
	mustFail("no such container", "state", "box")
	pidFile := filepath.Join(b.dir, "pid")
	must("create", "-b", b.dir, "--pid-file", pidFile, "box")
	// Whoever looks at a process that waits finds nothing of the host's in its hands.
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", b.pid()))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range fds {
		to, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", b.pid(), e.Name()))
		if n, _ := strconv.Atoi(e.Name()); n > 2 && !strings.HasPrefix(to, "socket:") {
			t.Errorf("descriptor %d of the waiting process is %s", n, to)
		}
	}
	s := state()
	if s.Status != specs.StateCreated || s.Bundle != b.dir || s.ID != "box" {
		t.Errorf("%+v", s)
	}
	if pid, _ := os.ReadFile(pidFile); string(pid) != strconv.Itoa(s.Pid) {
		t.Errorf("pid file %q, pid %d", pid, s.Pid)
	}
	mustFail("exists", "create", "-b", b.dir, "box")
	mustFail("it is created", "delete", "box")
	must("start", "box")
	mustFail("not created", "start", "box")
	if s := state(); s.Status != specs.StateRunning {
		t.Errorf("%+v", s)
	}
	out, errs, code := b.runtime("exec", "--cwd", "/tmp", "-e", "X=y", "-u", "77:88", "box", "/probe", "view")
	var v view
	if err := json.Unmarshal([]byte(out), &v); code != 0 || err != nil {
		t.Fatalf("exec: %d %s %v", code, errs, err)
	}
	if v.Status["NSpid"] == "1" || v.Hostname != "boxed" || v.Cwd != "/tmp" || v.UID != 77 || v.GID != 88 || !slices.Contains(v.Env, "X=y") ||
		v.Status["Seccomp"] != "2" || v.Mounts["/dev/shm"] == "" || !v.Lo || v.Cgroup != "/" {
		t.Errorf("exec sees %+v", v)
	}
	if _, _, code := b.runtime("exec", "box", "/probe", "exit", "9"); code != 9 {
		t.Errorf("exec: exit %d", code)
	}
	mustFail("process.args[0]", "exec", "box", "/nothing")
	for program, want := range map[string]int{"/nothing": 127, "nothing": 127, "/tmp": 126} {
		if _, errs, code := b.runtime("exec", "box", program); code != 255 {
			t.Errorf("exec %s: exit %d, want 255: %s", program, code, errs)
		}
		if _, errs, code := b.runtime("exec", "--shell-codes", "box", program); code != want {
			t.Errorf("exec %s: exit %d, want %d: %s", program, code, want, errs)
		}
	}
	must("kill", "box", "KILL")
	for range 100 {
		if s = state(); s.Status == specs.StateStopped {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if s.Status != specs.StateStopped || s.Pid != 0 {
		t.Errorf("%+v", s)
	}
	mustFail("it is stopped", "kill", "box")
	must("delete", "box")
	mustFail("no such container", "delete", "box")
	must("delete", "--force", "box")
}

// TestExecInCgroup: a process that joins is in the container's own cgroup and sees that as the root. Where cgroup2 is mounted with
// nsdelegate, as systemd does, the kernel refuses that move to who has entered the cgroup namespace before it clones.
func TestExecInCgroup(t *testing.T) {
	b := newBox(t, "sleep")
	if m, err := os.ReadFile("/proc/self/mountinfo"); err != nil || !strings.Contains(string(m), " - cgroup2 ") {
		t.Skip("NOT TESTED: no cgroup2 file system here; the stories in qemu-tests cover it")
	} else if !strings.Contains(string(m), "nsdelegate") {
		t.Log("cgroup2 is mounted without nsdelegate: half of this test")
	}
	b.spec.Linux.CgroupsPath = fmt.Sprintf("/proa-test-%d", os.Getpid())
	b.write()
	if _, errs, code := b.runtime("run", "--detach", "box"); code != 0 {
		t.Fatalf("%d %s", code, errs)
	}
	out, errs, code := b.runtime("exec", "box", "/probe", "view")
	var v view
	if err := json.Unmarshal([]byte(out), &v); code != 0 || err != nil {
		t.Fatalf("exec: %d %s %v", code, errs, err)
	}
	if v.Cgroup != "/" || v.Mounts["/dev/shm"] == "" || strings.Contains(fmt.Sprint(v.Mounts), b.dir) {
		t.Errorf("exec sees cgroup %q, mounts %v", v.Cgroup, v.Mounts)
	}
}

// TestExecWhileItEnds: a container that ends under exec's feet is an error or an end by signal, at once, and never a
// process on the machine instead.
func TestExecWhileItEnds(t *testing.T) {
	b := newBox(t, "sleep")
	b.write()
	for n := range 5 {
		if _, errs, code := b.runtime("run", "--detach", "box"); code != 0 {
			t.Fatalf("%d %s", code, errs)
		}
		time.AfterFunc(time.Duration(n)*7*time.Millisecond, func() { b.command("kill", "box", "KILL").Run() })
		from := time.Now()
		out, errs, code := b.runtime("exec", "box", "/probe", "sleep")
		if d := time.Since(from); d > 5*time.Second || code == 0 || (code != 137 && !strings.Contains(errs, "box")) {
			t.Errorf("after %v: exit %d: %s%s", d, code, out, errs)
		}
		if _, errs, code := b.runtime("delete", "--force", "box"); code != 0 {
			t.Fatalf("%d %s", code, errs)
		}
	}
}

// TestStop: a handler gets its time, and where there is none nobody waits.
func TestStop(t *testing.T) {
	for _, verb := range []string{"term", "sleep"} {
		b := newBox(t, verb)
		b.write()
		if _, errs, code := b.runtime("run", "--detach", "box"); code != 0 {
			t.Fatalf("%d %s", code, errs)
		}
		time.Sleep(200 * time.Millisecond) // until the handler is there
		from := time.Now()
		if _, errs, code := b.runtime("stop", "--time", "20", "box"); code != 0 {
			t.Errorf("%s: %d %s", verb, code, errs)
		}
		if d := time.Since(from); d > 10*time.Second {
			t.Errorf("%s: stopped after %v", verb, d)
		}
		b.runtime("delete", "box")
	}
}

// TestAsEnginesDo: what engines and the suites of other runtimes do beyond the specification's words.
func TestAsEnginesDo(t *testing.T) {
	b := newBox(t, "sleep")
	b.spec.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 99, Hard: 100}}
	b.spec.Process.Capabilities = nil
	b.write()
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"create", "box"}, 0, ""},
		{[]string{"exec", "box", "/probe", "exit", "9"}, 9, ""}, // before its start
		{[]string{"start", "box"}, 0, ""},
		{[]string{"exec", "-u", "5:6", "-g", "7", "--additional-gids", "8", "box", "/probe", "do", "id", "cat=/proc/self/limits", "cat=/proc/self/status"}, 0, "Groups:\t7 8"},
		{[]string{"exec", "-u", "5:6", "box", "/probe", "do", "cat=/proc/self/limits"}, 0, "100                  files"},
		{[]string{"list", "-q"}, 0, "box\n"},
		{[]string{"list", "--format", "json"}, 0, `"id": "box"`},
		{[]string{"ps", "-f", "json", "box"}, 0, "["},
		{[]string{"kill", "box", "0"}, 0, ""},
		{[]string{"kill", "box", "KILL"}, 0, ""},
	} {
		if out, errs, code := b.runtime(c.args...); code != c.code || !strings.Contains(out, c.want) {
			t.Errorf("%v: exit %d: %s%s", c.args, code, out, errs)
		}
	}
	for range 100 {
		if out, _, _ := b.runtime("state", "box"); strings.Contains(out, "stopped") {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if _, errs, code := b.runtime("kill", "box", "0"); code != 1 || !strings.Contains(errs, "container not running") {
		t.Errorf("%d %s", code, errs)
	}
}

// TestSignalsArePassedOn: what the runtime in the foreground gets, the workload gets, with a terminal and without.
func TestSignalsArePassedOn(t *testing.T) {
	for _, tty := range []bool{false, true} {
		b := newBox(t, "term")
		b.spec.Process.Terminal = tty
		b.write()
		c := b.command("run", "box")
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		out.Read(make([]byte, 1)) // it waits
		for _, s := range []os.Signal{unix.SIGWINCH, unix.SIGCONT, unix.SIGTERM} {
			c.Process.Signal(s)
		}
		c.Wait()
		if code := c.ProcessState.ExitCode(); code != 42 {
			t.Errorf("terminal %v: exit %d, want that of the workload's handler", tty, code)
		}
	}
}

// TestSignalsAreKept: one that comes when the workload runs and oci-runtime is not yet done with starting it is passed on, too.
func TestSignalsAreKept(t *testing.T) {
	b := newBox(t, "term")
	said := filepath.Join(b.dir, "said")
	b.spec.Hooks = &specs.Hooks{Poststart: []specs.Hook{{Path: "/bin/sh", Env: []string{"PATH=/usr/bin:/bin"},
		Args: []string{"sh", "-c", "until grep -q waiting " + said + "; do sleep 0.05; done; kill -TERM $PPID"}}}}
	b.write()
	out, err := os.Create(said)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	c := b.command("run", "box")
	c.Stdout = out
	if err := c.Run(); c.ProcessState.ExitCode() != 42 {
		t.Errorf("%v: exit %d, want that of the workload's handler", err, c.ProcessState.ExitCode())
	}
}

// TestKilledCaller: kill -9 of oci-runtime in the foreground ends the container; delete --force cleans up.
func TestKilledCaller(t *testing.T) {
	b := newBox(t, "sleep")
	b.write()
	c := b.command("run", "box")
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	out.Read(make([]byte, 1)) // it sleeps
	state, _, _ := b.runtime("state", "box")
	var s specs.State
	if err := json.Unmarshal([]byte(state), &s); err != nil {
		t.Fatal(err)
	}
	c.Process.Kill()
	c.Wait()
	for range 200 {
		if out, _, _ := b.runtime("state", "box"); strings.Contains(out, "stopped") {
			return // cleaned up by newBox
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("process %d goes on", s.Pid)
}

// TestKilledCreate: wherever a kill -9 ends a creation, delete --force leaves neither state nor cgroup nor process.
func TestKilledCreate(t *testing.T) {
	b := newBox(t, "sleep")
	h, err := cgroup.Find()
	if err != nil {
		t.Skip("NOT TESTED: ", err)
	}
	parent := fmt.Sprintf("/proa-test-kill-%d", os.Getpid())
	defer removeGroups(parent)
	b.spec.Linux.CgroupsPath = parent + "/box"
	b.write()
	begin := time.Now()
	if _, errs, code := b.runtime("create", "box"); code != 0 {
		t.Fatalf("%d %s", code, errs)
	}
	takes := time.Since(begin)
	tops := slices.Collect(maps.Values(h.V1))
	if h.Unified != "" {
		tops = append(tops, h.Unified)
	}
	for n := range 60 {
		if _, errs, code := b.runtime("delete", "--force", "box"); code != 0 {
			t.Fatalf("%d %s", code, errs)
		}
		for _, top := range tops {
			if _, err := os.Stat(filepath.Join(top, parent, "box")); !errors.Is(err, os.ErrNotExist) {
				t.Fatalf("kill %d: the group is left in %s: %v", n, top, err)
			}
		}
		c := b.command("create", "box")
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(takes * time.Duration(n) / 60)
		c.Process.Kill()
		c.Wait()
	}
}

// TestProtect: a script whose interpreter is /proc/self/exe gets oci-runtime itself into the container (CVE-2019-5736). It comes from
// a mount on which it cannot be written.
func TestProtect(t *testing.T) {
	b := newBox(t)
	if err := os.WriteFile(filepath.Join(b.dir, "rootfs/script"), []byte("#!/proc/self/exe\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	b.spec.Process.Args = []string{"/script"}
	b.spec.Process.Env = []string{"INTERPRETED=1"}
	b.write()
	if out, errs, code := b.runtime("run", "box"); code != 0 || out != "read-only true <nil>\n" {
		t.Errorf("%d %s%s", code, out, errs)
	}
}

func TestFeatures(t *testing.T) {
	var out, errs bytes.Buffer
	if code := Main(t.Context(), []string{"features"}, Streams{&out, &errs}); code != 0 {
		t.Fatal(errs.String())
	}
	var f features.Features
	if err := json.Unmarshal(out.Bytes(), &f); err != nil || f.OCIVersionMax != specs.Version || !slices.Contains(f.Linux.Namespaces, "pid") {
		t.Errorf("%v %+v", err, f)
	}
}

func TestUsage(t *testing.T) {
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--help"}, 0, "Usage: oci-runtime"},
		{nil, 0, "Usage: oci-runtime"},
		{[]string{"run", "--help"}, 0, "--pid-file FILE"},
		{[]string{"--version"}, 0, "spec: " + specs.Version},
		{[]string{"fly"}, 1, `unknown command "fly"`},
		{[]string{"run", "--tty", "x"}, 1, "unknown flag --tty"},
		{[]string{"state", "../x"}, 1, "container ID"},
		{[]string{"kill", "x", "SIGNOTHING"}, 1, "no signal"},
		{[]string{"--log-format", "xml", "list"}, 1, "want text or json"},
	} {
		var out bytes.Buffer
		if code := Main(t.Context(), c.args, Streams{&out, &out}); code != c.code || !strings.Contains(out.String(), c.want) {
			t.Errorf("%q: exit %d: %s", c.args, code, out.String())
		}
	}
}

// needStatic skips when the test binary needs a loader and so cannot run in an empty root.
func needStatic(t *testing.T) {
	t.Helper()
	f, err := elf.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if libs, err := f.ImportedLibraries(); err == nil && len(libs) > 0 {
		if testenv.Required() {
			t.Fatalf("the test binary must be static here: run with CGO_ENABLED=0 (needs %v)", libs)
		}
		t.Skipf("NOT TESTED: the test binary is its own workload and must be static: run with CGO_ENABLED=0 (needs %v)", libs)
	}
}
