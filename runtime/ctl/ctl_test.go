package ctl

import (
	"bufio"
	"bytes"
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/proa-os/proa/internal/registrytest"
	"github.com/proa-os/proa/internal/testenv"
	"github.com/proa-os/proa/runtime/endpoint"
	"github.com/proa-os/proa/runtime/oci"
	"github.com/proa-os/proa/runtime/reaper"
	"github.com/proa-os/proa/runtime/run"
	"github.com/proa-os/proa/runtime/store"
	"github.com/proa-os/proa/runtime/unit"
	"github.com/proa-os/proa/runtime/unittest"
	"github.com/proa-os/proa/runtime/wiring"
)

// The test binary is also containerctl (with CTL_DIR), oci-runtime (with CTL_OCI) and the workload (as /probe).
func TestMain(m *testing.M) {
	switch {
	case run.IsStageTwo():
		run.StageTwo()
		os.Exit(1)
	case reaper.Is(os.Args):
		os.Exit(reaper.Main(os.Args))
	case os.Args[0] == "/probe":
		os.Exit(probe(os.Args[1:]))
	case len(os.Args) > 1 && os.Args[1] == "as-oci-runtime":
		os.Exit(oci.Main(context.Background(), os.Args[2:], oci.Streams{Out: os.Stdout, Err: os.Stderr}))
	case len(os.Args) > 1 && os.Args[0] == "user-namespace":
		os.Exit(1) // is stopped before
	case len(os.Args) > 1 && os.Args[1] == "fetch":
		os.Exit(Machine().Main(context.Background(), os.Args[1:]))
	case os.Getenv("CTL_JOURNAL") != "":
		os.Exit(probeJournal(os.Getenv("CTL_JOURNAL"), os.Args[1:]))
	case os.Getenv("CTL_DIR") != "":
		os.Exit(testEnv(os.Getenv("CTL_DIR")).Main(context.Background(), os.Args[1:]))
	}
	os.Exit(m.Run())
}

// probe is the workload: "serve" answers on a port until TERM, "get" asks it, "say" prints.
func probe(args []string) int {
	switch args[0] {
	case "serve":
		http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
			b, err := os.ReadFile("/www/index.html")
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			w.Write(b)
		})
		fmt.Println(http.ListenAndServe("127.0.0.1:"+args[1], nil))
	case "get":
		resp, err := http.Get("http://127.0.0.1:" + args[1])
		if err != nil || resp.StatusCode != http.StatusOK {
			fmt.Println(err)
			return 1
		}
	case "say":
		host, _ := os.Hostname()
		fmt.Println(args[1], host, os.Getuid(), os.Getenv("KEY"))
	case "show":
		b, err := os.ReadFile(args[1])
		if err != nil {
			fmt.Println(err)
			return 1
		}
		var st syscall.Stat_t
		syscall.Stat(args[1], &st)
		fmt.Printf("%s %o %d:%d\n", b, st.Mode, st.Uid, st.Gid)
	case "exit":
		code, _ := strconv.Atoi(args[1])
		return code
	case "count": // how often it was started, and fail
		f, err := os.OpenFile("/data/count", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			fmt.Println(err)
			return 9
		}
		f.WriteString("x")
		return 7
	case "sleep":
		fmt.Println("sleeping")
		time.Sleep(time.Minute)
	case "namespaces":
		probeNamespaces()
	case "terminal":
		return probeTerminal()
	case "echo": // lines, until one says how to end
		for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
			fmt.Println("heard", lines.Text())
			if code, err := strconv.Atoi(lines.Text()); err == nil {
				return code
			}
		}
		return 9
	case "ids":
		m, _ := os.ReadFile("/proc/self/uid_map")
		var st syscall.Stat_t
		if err := syscall.Stat(args[1], &st); err != nil {
			fmt.Println(err)
			return 3
		}
		fmt.Println(strings.Fields(string(m)), os.Getuid(), st.Uid)
	case "sockets":
		l, err := net.FileListener(os.NewFile(3, "socket"))
		fmt.Println(os.Getenv("LISTEN_FDS"), os.Getenv("LISTEN_PID"), os.Getpid(), os.Getenv("LISTEN_FDNAMES"), err == nil && l.Addr() != nil)
	case "mounts":
		b, _ := os.ReadFile("/proc/self/mountinfo")
		status, _ := os.ReadFile("/proc/self/status")
		limits, _ := os.ReadFile("/proc/self/limits")
		fmt.Printf("%s%s%s", b, status, limits)
	case "exists":
		if _, err := os.Stat(args[1]); err != nil {
			return 1
		}
	case "ready":
		return probeReady(args[1:])
	case "write":
		if err := os.WriteFile(args[1], []byte(args[2]), 0o644); err != nil {
			fmt.Println(err)
			return 3
		}
	default:
		return networkProbe(args)
	}
	return 0
}

// testEnv is a machine in a directory, whose service manager is the test's process.
func testEnv(dir string) *Env {
	return &Env{
		Store: filepath.Join(dir, "store"), Run: filepath.Join(dir, "run"), OCIRoot: run.Root(filepath.Join(dir, "oci")),
		UnitDir: filepath.Join(dir, "units"), TransientDir: filepath.Join(dir, "transient"),
		OCIRuntime: []string{"/proc/self/exe", "as-oci-runtime"}, Journal: filepath.Join(dir, "journalctl"), JournalSocket: filepath.Join(dir, "journal"),
		Release: "/not/there", FetchUser: "nobody",
		Trust:     []string{"../../manifests/files/usr/share/proa/trust", filepath.Join(dir, "trust")},
		Endpoints: endpoint.Config{Registries: filepath.Join(dir, "registries.conf"), Auth: []string{filepath.Join(dir, "auth.json")}, Certs: []string{filepath.Join(dir, "certs.d")}},
		Networks:  wiring.Wiring{Networks: filepath.Join(dir, "networks"), Run: filepath.Join(dir, "run-network"), Namespaces: filepath.Join(dir, "netns")},
		Units:     &units{dir: dir, Client: unittest.Client{Socket: filepath.Join(dir, "systemd")}}, In: os.Stdin, Out: os.Stdout, Err: os.Stderr,
	}
}

// units are the test manager's, and the sockets of name servers, which this process runs itself.
type units struct {
	unittest.Client
	dir string
}

func (u *units) Listen(_ context.Context, _, link string, addresses []netip.Addr) error {
	return u.startResolver(link, addresses)
}

func (u *units) Stop(ctx context.Context, name string) error {
	if strings.HasPrefix(name, "proa-dns@") {
		return u.stopResolver(name)
	}
	return u.Client.Stop(ctx, name)
}

// manage runs a service manager for a machine in a directory.
func manage(t *testing.T, dir string) *unittest.Manager {
	t.Helper()
	e := testEnv(dir)
	if err := os.MkdirAll(filepath.Join(dir, "units"), 0o755); err != nil {
		t.Fatal(err)
	}
	m, err := unittest.New(&unittest.Manager{Dirs: []string{e.UnitDir, e.TransientDir}, Logs: dir, Command: func(words []string) *exec.Cmd {
		args := words[1:]
		if filepath.Base(words[0]) == "oci-runtime" {
			args = append([]string{"as-oci-runtime", "--root", string(e.OCIRoot)}, args...)
		}
		c := exec.Command("/proc/self/exe", args...)
		c.Env = append(os.Environ(), "CTL_DIR="+dir)
		return c
	}})
	if err != nil {
		t.Fatal(err)
	}
	stop, err := m.Serve(filepath.Join(dir, "systemd"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close(); stop() })
	return m
}

// A machine is a test environment with a registry that has the image probe:1.
type machine struct {
	t   *testing.T
	dir string
	reg *registrytest.Registry
	mgr *unittest.Manager
	// breakBlobs makes the registry cut answers short.
	breakBlobs atomic.Bool
	ranges     atomic.Int64 // blobs asked for from the middle on
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	m := bareMachine(t)
	img, err := probeImage()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.reg.PushImage("probe:1", img); err != nil {
		t.Fatal(err)
	}
	return m
}

// probeImage is the same for all machines: to pack the test binary takes longer than most tests.
var probeImage = sync.OnceValues(func() (v1.Image, error) {
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	return registrytest.Build(registrytest.Image{
		Layers: [][]registrytest.File{
			{{Name: "etc/"}, {Name: "etc/passwd", Body: "root:x:0:0:::\nwww:x:33:44::/home/www:\n"}, {Name: "probe", Body: string(self), Mode: 0o755}, {Name: "gone", Body: "x"}},
			{{Name: "www/"}, {Name: "www/index.html", Body: "<h1>It works</h1>\n"}, {Name: ".wh.gone"}, {Name: "data/", Mode: 0o777}},
		},
		Config: v1.Config{Entrypoint: []string{"/probe"}, Cmd: []string{"say", "hello"}, Env: []string{"KEY=value"}, WorkingDir: "/www"},
	})
})

// bareMachine has an empty registry.
func bareMachine(t *testing.T) *machine {
	t.Helper()
	m := &machine{t: t}
	// Not t.TempDir: its parents are closed to the user that fetches; a machine's are open.
	dir, err := os.MkdirTemp("", "ctl")
	if err != nil {
		t.Fatal(err)
	}
	m.dir = dir
	t.Cleanup(func() { os.RemoveAll(dir) })
	m.mgr = manage(t, dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	m.reg, err = registrytest.StartHandler("127.0.0.1:0", func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if m.breakBlobs.Load() && r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
				w = &cutter{ResponseWriter: w, left: 1000}
			}
			if r.Header.Get("Range") != "" && !m.breakBlobs.Load() {
				m.ranges.Add(1)
			}
			h.ServeHTTP(w, r)
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.reg.Close() })
	return m
}

// cutter breaks the connection after some bytes.
type cutter struct {
	http.ResponseWriter
	left int
}

func (c *cutter) Write(p []byte) (int, error) {
	if len(p) <= c.left {
		c.left -= len(p)
		return c.ResponseWriter.Write(p)
	}
	c.ResponseWriter.Write(p[:c.left])
	c.ResponseWriter.(http.Flusher).Flush()
	panic(http.ErrAbortHandler)
}

// ctl runs containerctl in a process of its own.
func (m *machine) ctl(args ...string) (string, string, int) {
	m.t.Helper()
	c := exec.Command("/proc/self/exe", args...)
	c.Env = append(os.Environ(), "CTL_DIR="+m.dir)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	c.WaitDelay = time.Second
	if err := c.Run(); c.ProcessState == nil {
		m.t.Fatal(err)
	}
	return out.String(), errs.String(), c.ProcessState.ExitCode()
}

func (m *machine) must(args ...string) string {
	m.t.Helper()
	out, errs, code := m.ctl(args...)
	if code != 0 {
		m.t.Fatalf("containerctl %q: exit %d: %s%s", args, code, out, errs)
	}
	return out
}

func (m *machine) mustFail(want string, args ...string) {
	m.t.Helper()
	out, errs, code := m.ctl(args...)
	if code == 0 || !strings.Contains(out+errs, want) {
		m.t.Errorf("containerctl %q: exit %d: %s%s; want %q", args, code, out, errs, want)
	}
}

func (m *machine) image() string { return m.reg.Addr + "/probe:1" }

// clean: nothing half done is in the store.
func (m *machine) clean() {
	m.t.Helper()
	for _, d := range []string{"tmp"} {
		if es, err := os.ReadDir(filepath.Join(m.dir, "store", d)); err != nil || len(es) > 0 {
			m.t.Errorf("%s holds %v %v", d, es, err)
		}
	}
}

// TestPull needs no root: without it whoever asks fetches, and owners are left out.
func TestPull(t *testing.T) {
	m := newMachine(t)
	digest := strings.TrimSpace(m.must("pull", "--tls-verify=false", m.image()))
	m.clean()
	var list []store.Record
	if err := json.Unmarshal([]byte(m.must("images", "--json")), &list); err != nil || len(list) != 1 || list[0].Top.String() != digest {
		t.Errorf("%v %+v, want digest %s", err, list, digest)
	}
	m.must("pull", "--tls-verify=false", m.reg.Addr+"/probe@"+digest)
	if out := m.must("images"); strings.Count(out, "\n") != 3 {
		t.Errorf("images:\n%s", out)
	}
	for args, want := range map[string]string{"images -q probe:1": m.image() + "\n", "images -q -f reference=probe:*": m.image() + "\n", "images -aq other": "",
		"images --format {{.Repository}}:{{.Tag}} probe:1": m.image() + "\n", "images -qf dangling=true": ""} {
		if out := m.must(strings.Fields(args)...); out != want {
			t.Errorf("%s: got %q, want %q", args, out, want)
		}
	}
	m.must("rmi", "-f", "not/there:1")
	m.mustFail("no such image", "rmi", "not/there:1")
	layers, _ := os.ReadDir(filepath.Join(m.dir, "store/layers"))
	if len(layers) != 2 {
		t.Errorf("%d layers", len(layers))
	}
	m.must("rmi", m.image())
	if layers, _ := os.ReadDir(filepath.Join(m.dir, "store/layers")); len(layers) != 2 {
		t.Errorf("rmi removed layers that another name needs")
	}
	m.must("rmi", m.reg.Addr+"/probe@"+digest)
	for _, d := range []string{"layers", "blobs/sha256", "images"} {
		if es, _ := os.ReadDir(filepath.Join(m.dir, "store", d)); len(es) != 0 {
			t.Errorf("%s holds %v after rmi", d, es)
		}
	}
}

func TestPullFails(t *testing.T) {
	m := newMachine(t)
	m.mustFail("--tls-verify=false", "pull", m.image())
	m.mustFail("NAME_UNKNOWN", "pull", "--tls-verify=false", m.reg.Addr+"/nothing:1")
	m.mustFail("image name", "pull", "UPPER CASE")
	m.mustFail("usage: containerctl pull [FLAGS] IMAGE", "pull")
	m.breakBlobs.Store(true)
	m.mustFail("", "pull", "--tls-verify=false", m.image())
	m.breakBlobs.Store(false)
	if out := m.must("images"); strings.Count(out, "\n") != 1 {
		t.Errorf("images:\n%s", out)
	}
	if es, _ := os.ReadDir(filepath.Join(m.dir, "store/layers")); len(es) != 0 {
		t.Errorf("layers after failures: %v", es)
	}
	m.clean()
	m.must("pull", "--tls-verify=false", m.image())
}

// TestFetcherHasNoPrivileges looks at the fetcher while it waits for the registry.
func TestFetcherHasNoPrivileges(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED: only root has privileges to drop; the stories in qemu-tests cover it")
	}
	m := newMachine(t)
	seen := make(chan string, 1)
	slow, err := registrytest.StartHandler("127.0.0.1:0", func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			select {
			case seen <- fetcherStatus():
			default:
			}
			http.Error(w, "enough", http.StatusNotFound)
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	m.mustFail("404", "pull", "--tls-verify=false", slow.Addr+"/x")
	status := "the registry was not asked"
	select {
	case status = <-seen:
	default:
	}
	for _, want := range []string{"Uid:\t65534\t65534\t65534\t65534", "Groups:\t \n", "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "NoNewPrivs:\t1"} {
		if n := strings.Count(status, want); n == 0 || n != strings.Count(status, "Name:\t") {
			t.Errorf("%d of the fetcher's threads have %q:\n%s", n, want, status)
		}
	}
}

// fetcherStatus finds the process whose first argument is fetch.
func fetcherStatus() string {
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range procs {
		b, _ := os.ReadFile(p)
		if args := strings.Split(string(b), "\x00"); len(args) > 1 && args[1] == "fetch" {
			var all string // of each thread
			threads, _ := filepath.Glob(filepath.Join(filepath.Dir(p), "task/*/status"))
			for _, t := range threads {
				s, _ := os.ReadFile(t)
				all += string(s)
			}
			return all
		}
	}
	return "no fetcher"
}

func needContainers(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED: containers need root; the stories in qemu-tests cover them")
	}
	needStatic(t)
}

func TestForeground(t *testing.T) {
	needContainers(t)
	m := newMachine(t)
	run := []string{"run", "--rm", "--tls-verify=false", "--network", "none"}
	if out := m.must(append(run, "--name", "fg", m.image())...); out != "hello fg 0 value\n" {
		t.Errorf("output %q", out)
	}
	out := m.must(append(run, "--name", "fg", "-e", "KEY=other", "--user", "www", "--hostname", "h", m.image(), "say", "x")...)
	if out != "x h 33 other\n" {
		t.Errorf("output %q", out)
	}
	vol := filepath.Join(m.dir, "vol")
	m.must(append(run, "-v", vol+":/mnt/deep", m.image(), "write", "/mnt/deep/f", "content")...)
	if b, err := os.ReadFile(filepath.Join(vol, "f")); string(b) != "content" {
		t.Errorf("volume: %q %v", b, err)
	}
	if out, _, code := m.ctl(append(run, "-v", vol+":/mnt:ro", m.image(), "write", "/mnt/f", "x")...); code != 3 || !strings.Contains(out, "read-only") {
		t.Errorf("read-only volume: exit %d: %s", code, out)
	}
	if out, _, code := m.ctl(append(run, "--read-only", m.image(), "write", "/data/f", "x")...); code != 3 || !strings.Contains(out, "read-only") {
		t.Errorf("--read-only: exit %d: %s", code, out)
	}
	m.must(append(run, m.image(), "write", "/gone", "x")...)
	m.must(append(run, m.image(), "write", "/etc/hosts", "x")...)
	m.mustFail("process.args[0]", append(run, "--entrypoint", "/nothing", m.image())...)
	m.mustFail("not in the container's /etc/passwd", append(run, "--user", "nobody-here", m.image())...)
	if out := m.must("ps", "-a"); strings.Count(out, "\n") != 1 {
		t.Errorf("containers left:\n%s", out)
	}
	m.clean()
}

// TestUnit is the line of a container in the background: run, ps, health, exec, restart, stop, start, rm.
func TestUnit(t *testing.T) {
	needContainers(t)
	m := newMachine(t)
	port := strconv.Itoa(freePort(t))
	if out := m.must("run", "-d", "--tls-verify=false", "--name", "web", "--network", "host", "--health-cmd", "unused", "--health-retries", "2",
		"--health-interval", "10ms", m.image(), "serve", port); out != "web\n" {
		t.Errorf("output %q", out)
	}
	t.Cleanup(func() { m.ctl("rm", "-f", "web") })
	if body := get(t, port); body != "<h1>It works</h1>\n" {
		t.Errorf("body %q", body)
	}
	// What the workload writes may not fill /run.
	m.must("exec", "web", "/probe", "write", "/etc/hosts", "filled")
	if b, err := os.ReadFile(filepath.Join(m.dir, "store/containers/web/files/hosts")); err != nil || string(b) != "filled" {
		t.Errorf("/etc/hosts: %q %v", b, err)
	}
	// The image has no shell for the check.
	m.mustFail("web: health check failed 2 times", "health")
	setHealth(t, m, []string{"/probe", "get", port})
	if out := m.must("health"); out != "" {
		t.Errorf("health: %q", out)
	}
	var vs []map[string]any
	if err := json.Unmarshal([]byte(m.must("ps", "--json")), &vs); err != nil || len(vs) != 1 || vs[0]["status"] != "running" || vs[0]["unit"] != "proa-web.service" {
		t.Errorf("ps: %v %v", err, vs)
	}
	if out := m.must("exec", "-e", "KEY=exec", "web", "/probe", "say", "in"); !strings.HasPrefix(out, "in web 0 exec") {
		t.Errorf("exec: %q", out)
	}
	m.must("exec", "web", "/probe", "write", "/www/index.html", "changed")
	m.mustFail("exists", "run", "-d", "--name", "web", "--network", "host", m.image())
	m.must("restart", "web")
	if body := get(t, port); body != "changed" {
		t.Errorf("after restart: %q", body)
	}
	m.mustFail("stop it first", "rm", "web")
	m.mustFail("is running", "rm", "web")
	m.must("stop", "web")
	m.mustFail("web: has exited 2", "health")
	m.mustFail("web does not run", "exec", "web", "/probe")
	m.must("start", "web")
	// A machine that lost power: no state in /run, the unit starts again.
	if err := m.mgr.Stop(t.Context(), "proa-web.service"); err != nil {
		t.Fatal(err)
	}
	os.RemoveAll(filepath.Join(m.dir, "oci"))
	os.RemoveAll(filepath.Join(m.dir, "run"))
	if err := m.mgr.Start(t.Context(), "proa-web.service"); err != nil {
		t.Fatal(err)
	}
	if body := get(t, port); body != "changed" {
		t.Errorf("after reboot: %q", body)
	}
	// One that was stopped for good, or whose removal a power cut has ended, is not ill: it would fail every update.
	m.must("stop", "web")
	if err := unit.Disable(filepath.Join(m.dir, "units"), "web"); err != nil {
		t.Fatal(err)
	}
	if out := m.must("health"); out != "" {
		t.Errorf("health of a disabled one: %q", out)
	}
	m.must("start", "web")
	m.must("rmi", m.image())
	m.must("restart", "web") // the layers stay
	m.must("rm", "-f", "web")
	if es, _ := os.ReadDir(filepath.Join(m.dir, "units")); len(es) != 1 {
		t.Errorf("units left: %v", es)
	}
	if mounts, _ := os.ReadFile("/proc/self/mountinfo"); strings.Contains(string(mounts), m.dir) {
		t.Error("a mount is left")
	}
	m.clean()
}

// setHealth replaces the check of web.
func setHealth(t *testing.T, m *machine, cmd []string) {
	t.Helper()
	file := filepath.Join(m.dir, "store/containers/web/container.json")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var c store.Container
	if err := json.Unmarshal(b, &c); err != nil {
		t.Fatal(err)
	}
	c.Health.Command = cmd
	if b, err = json.Marshal(c); err == nil {
		err = os.WriteFile(file, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestRunFails: what cannot run leaves neither a container nor a unit.
func TestRunFails(t *testing.T) {
	needContainers(t)
	m := newMachine(t)
	m.mustFail("process.args[0]", "run", "-d", "--tls-verify=false", "--network", "none", "--name", "bad", "--entrypoint", "/nothing", m.image())
	m.mustFail("-p and -P do not go together with --network host", "run", "-d", "-p", "80:80", "--network", "host", m.image())
	m.mustFail("network nowhere: no such network", "run", "--network", "nowhere", m.image())
	m.mustFail("--restart needs -d", "run", "--network", "none", "--restart", "always", m.image())
	m.mustFail("exclude each other", "run", "-d", "--rm", "--restart", "always", "--network", "none", m.image())
	m.mustFail("did you mean --memory?", "run", "--memroy", "1m", m.image())
	m.mustFail("no capability", "run", "--network", "none", "--cap-add", "FLY", m.image())
	m.mustFail("volume", "run", "--network", "none", "-v", "no/path:/data", m.image())
	m.mustFail("no signal", "run", "--network", "none", "--stop-signal", "HUPS", m.image())
	if err := os.WriteFile(filepath.Join(m.dir, "units/proa-health.service"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	m.mustFail("systemd has a unit proa-health.service already", "run", "-d", "--network", "none", "--name", "health", m.image())
	m.mustFail("container name", "run", "--network", "none", "--name", "../x", m.image())
	if out := m.must("ps", "-a"); strings.Count(out, "\n") != 1 {
		t.Errorf("containers left:\n%s", out)
	}
	if es, _ := filepath.Glob(filepath.Join(m.dir, "units/*.service")); len(es) != 1 {
		t.Errorf("units left: %v", es)
	}
	if es, _ := os.ReadDir(filepath.Join(m.dir, "oci")); len(es) != 0 {
		t.Errorf("state left: %v", es)
	}
}

func TestUsage(t *testing.T) {
	var out bytes.Buffer
	e := testEnv(t.TempDir())
	e.Out, e.Err = &out, &out
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{nil, 0, "usage: containerctl"}, {[]string{"--help"}, 0, "health"}, {[]string{"--version"}, 0, "not on Proa"},
		{[]string{"fly"}, 2, `unknown command "fly"`}, {[]string{"ps", "--color"}, 2, "unknown flag --color"},
		{[]string{"stat"}, 2, "did you mean start?"}, {[]string{"ps", "--jsn"}, 2, "did you mean --json?"}, {[]string{"ps", "x"}, 2, "usage: containerctl ps"},
		{[]string{"container", "ls", "--json"}, 0, "[]"}, {[]string{"image", "ls", "-q"}, 0, ""}, {[]string{"image", "rm", "x:1"}, 1, "no such image"}, {[]string{"container", "run", "--memroy", "1m", "x"}, 125, "did you mean --memory?"},
		{[]string{"health"}, 0, ""}, {[]string{"ps", "--json"}, 0, "[]"}, {[]string{"logs", "x"}, 1, "no such container"},
	} {
		out.Reset()
		if code := e.Main(t.Context(), c.args); code != c.code || !strings.Contains(out.String(), c.want) {
			t.Errorf("%q: exit %d: %s", c.args, code, out.String())
		}
	}
	for _, v := range e.verbs() {
		out.Reset()
		if code := e.Main(t.Context(), []string{v.name, "--help"}); code != 0 || !strings.Contains(out.String(), "containerctl "+v.name) {
			t.Errorf("%s --help: exit %d: %s", v.name, code, out.String())
		}
	}
}

// TestNotRoot: who is not root is told how to be.
func TestNotRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED: needs a directory that is closed to somebody")
	}
	m := newMachine(t)
	m.must("ps")
	for _, args := range [][]string{{"ps"}, {"health"}, {"pull", "x:1"}, {"rm", "-f", "web"}} {
		c := exec.Command("/proc/self/exe", args...)
		c.Env = append(os.Environ(), "CTL_DIR="+m.dir)
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		out, err := c.CombinedOutput()
		line := strings.Join(args, " ")
		if want := "containerctl: " + args[0] + ": needs root: run0 containerctl " + line + "\n"; err == nil || string(out) != want {
			t.Errorf("%s: %v %q, want %q", line, err, out, want)
		}
	}
}

func TestPrintable(t *testing.T) {
	if got := printable("a\x1b]0;b\a\u009b\r\n\té\xff"); got != "a\ufffd]0;b\ufffd\ufffd\ufffd\n\té\ufffd" {
		t.Errorf("%q", got)
	}
}

func TestParseSize(t *testing.T) {
	for in, want := range map[string]int64{"1": 1, "512m": 512 << 20, "2G": 2 << 30, "10k": 10 << 10, "7b": 7} {
		if got, err := parseSize(in); err != nil || got != want {
			t.Errorf("%s: %d %v", in, got, err)
		}
	}
	for _, in := range []string{"", "m", "-1", "0", "1t", "9999999999g"} {
		if n, err := parseSize(in); err == nil {
			t.Errorf("%s: %d", in, n)
		}
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	r, err := registrytest.Start("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	_, p, _ := strings.Cut(r.Addr, ":")
	n, err := strconv.Atoi(p)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func get(t *testing.T, port string) string {
	t.Helper()
	for range 100 {
		resp, err := http.Get("http://127.0.0.1:" + port)
		if errors.Is(err, syscall.ECONNREFUSED) {
			time.Sleep(20 * time.Millisecond)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var b bytes.Buffer
		b.ReadFrom(resp.Body)
		return b.String()
	}
	t.Fatal("no answer")
	return ""
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
