package stage

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/unit"
	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/ignition/apply"
	"github.com/proa-os/proa/ignition/config"
	"github.com/proa-os/proa/ignition/platform"
	"github.com/proa-os/proa/internal/testenv"
)

// files is the part of the root image that provisioning owns.
const imageFiles = "../../manifests/files/"

// machine is a root, a /run and a /sys with a config in fw_cfg.
func machine(t *testing.T, cfg string) (*platform.Machine, Options, string) {
	t.Helper()
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("root/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
	write("sys/firmware/qemu_fw_cfg/rev", "3\n")
	if cfg != "" {
		write("sys/firmware/qemu_fw_cfg/by_name/opt/com.coreos/config/raw", cfg)
	}
	sys, err := os.OpenRoot(dir + "/sys")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sys.Close() })
	return &platform.Machine{Sys: sys, Getenv: func(name string) string { return map[string]string{"IGNITION_SYSTEM_CONFIG_DIR": dir + "/usr"}[name] }, Load: func(context.Context, ...string) error { return nil }, CommandLine: "quiet ignition.platform.id=qemu\n"}, Options{
		Root: dir + "/root", ConfigCache: dir + "/run/ignition/config.json", StateFile: dir + "/run/ignition/state.json",
		NeedNet: dir + "/run/ignition/neednet", Failure: dir + "/run/ignition/failure",
		Owners: anyOwner{}, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}, dir
}

func runStages(t *testing.T, m *platform.Machine, o Options) error {
	t.Helper()
	for _, o.Stage = range []string{"fetch-offline", "files"} {
		if err := Run(t.Context(), m, o); err != nil {
			return err
		}
	}
	return nil
}

// anyOwner lets the tests run as an ordinary user.
type anyOwner struct{ apply.InodeOwners }

func (anyOwner) Lchown(*os.Root, string, int, int) error { return nil }

func TestFirstBoot(t *testing.T) {
	m, o, dir := machine(t, `{"ignition":{"version":"3.4.0"},"storage":{"files":[{"path":"/etc/hostname","contents":{"source":"data:,web1"}}]}}`)
	if err := runStages(t, m, o); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(o.ConfigCache); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("cache: %v, %v", info, err)
	}
	if err := finish(t.Context(), o, "boot-1\n", time.Unix(0, 0)); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(dir + "/root/etc/hostname"); string(b) != "web1" {
		t.Errorf("hostname: got %q, %v", b, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "root", Marker)); err != nil {
		t.Error(err)
	}
	b, err := os.ReadFile(dir + "/root/var/lib/ignition/result.json")
	if err != nil {
		t.Fatal(err)
	}
	var r result
	if err := json.Unmarshal(b, &r); err != nil {
		t.Fatal(err)
	}
	if r.BootID != "boot-1" || r.Date != "1970-01-01T00:00:00Z" || !r.UserConfig || r.Platform != "qemu" || len(r.ConfigSHA256) != 64 {
		t.Errorf("got %s", b)
	}
	if _, err := os.Stat(o.ConfigCache); err == nil {
		t.Error("the cache, which may hold secrets, is still there")
	}
}

func TestNoConfig(t *testing.T) {
	m, o, dir := machine(t, "")
	if err := runStages(t, m, o); err != nil {
		t.Fatal(err)
	}
	if err := finish(t.Context(), o, "b", time.Unix(0, 0)); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(dir + "/root/var/lib/ignition/result.json")
	if err != nil || !strings.Contains(string(b), `"userConfigProvided": false`) {
		t.Errorf("got %s, %v", b, err)
	}
}

// What went wrong is on every console, on one screen, without secrets.
func TestFailureScreen(t *testing.T) {
	m, o, dir := machine(t, "{\"ignition\":{\"version\":\"3.4.0\"},\n\"passwd\":{\"users\":[{\"name\":\"core\",\"passwordHsh\":\"$6$hunter2\"}]}}")
	if err := runStages(t, m, o); err == nil {
		t.Fatal("want an error")
	}
	for _, name := range []string{"sys/class/tty/console", "dev"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{"sys/class/tty/console/active": "tty0 ttyS0 missing\n", "dev/tty0": "", "dev/ttyS0": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var out strings.Builder
	if err := ShowFailure(o.Failure, dir+"/sys", dir+"/dev", &out); err == nil {
		t.Error("a console that does not exist: want an error")
	}
	want := `
======================================================================
  THIS MACHINE COULD NOT BE PROVISIONED. Nothing else was started.

  config:    fw_cfg opt/com.coreos/config
  path:      passwd.users[0].passwordHsh
  line:      2, column 35
  problem:   unknown key
  expected:  one of gecos, groups, homeDir, name, noCreateHome, noLogInit, noUserGroup, passwordHash, primaryGroup, shell, shouldExist, sshAuthorizedKeys, system, uid
  found:     "passwordHsh"
  next step: did you mean "passwordHash"?

  Correct the config and restart the machine: it tries again at every
  boot until it succeeds. Ctrl-Alt-Del restarts it.
======================================================================
`
	for _, name := range []string{"dev/tty0", "dev/ttyS0"} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); string(got) != want {
			t.Errorf("%s: got %s, %v", name, got, err)
		}
	}
	if out.String() != want || strings.Contains(want, "hunter2") {
		t.Errorf("got %s", out.String())
	}
}

// A config that needs the network leaves the flag offline, and is fetched by stage fetch, which leaves alone what is fetched already.
func TestConfigThatNeedsTheNetwork(t *testing.T) {
	tries := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if tries++; tries == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		io.WriteString(w, file("/etc/a", "fetched"))
	}))
	defer server.Close()
	m, o, dir := machine(t, `{"ignition":{"version":"3.4.0","config":{"replace":{"source":"`+server.URL+`/c.ign"}}}}`)
	var log strings.Builder
	o.Log = slog.New(slog.NewTextHandler(&log, nil))
	err := runStages(t, m, o)
	if err == nil || !strings.Contains(err.Error(), "run stage fetch when the network is up") || tries > 0 {
		t.Errorf("offline: got %v, %d requests", err, tries)
	}
	if _, err := os.Stat(o.NeedNet); err != nil {
		t.Errorf("flag file: %v", err)
	}
	for _, o.Stage = range []string{"fetch,files", "fetch"} {
		if err := Run(t.Context(), m, o); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(dir + "/root/etc/a"); string(got) != "fetched" || tries != 2 {
		t.Errorf("got %q, %v, after %d requests, want 2: the second fetch finds the cache", got, err, tries)
	}
	if !strings.Contains(log.String(), `msg="no answer, trying again"`) || !strings.Contains(log.String(), "503") {
		t.Errorf("the log says nothing of the retry:\n%s", log.String())
	}
}

// What the network and the disk do to a first boot is on the screen with what to do, and without what the config keeps secret.
func TestScreens(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, strings.Repeat("x", 1<<20))
	}))
	defer server.Close()
	closed := httptest.NewServer(nil)
	closed.Close()
	missing := httptest.NewServer(http.NotFoundHandler())
	defer missing.Close()
	one := func(source, more string) string {
		return `{"ignition":{"version":"3.4.0","timeouts":{"httpTotal":1}},"storage":{"files":[{"path":"/etc/a","contents":{"source":"` +
			strings.Replace(source, "://", "://user:hunter2@", 1) + `/x?key=hunter2"` + more + `}}]}}`
	}
	for name, tt := range map[string]struct {
		config string
		full   bool
		want   []string
	}{
		"unreachable server": {one(closed.URL, ""), false, []string{"write file /etc/a: fetch " + closed.URL + "/x: gave up after 1s: no answer\n", "storage.files[0].path\n",
			"expected:  an answer from " + strings.TrimPrefix(closed.URL, "http://") + "\n", "connection refused\n", "found:     dial tcp", "next step: check the address, the server and the network\n"}},
		"unreachable config": {`{"ignition":{"version":"3.4.0","timeouts":{"httpTotal":1},"config":{"merge":[{"source":"` + closed.URL + `/c.ign?key=hunter2"}]}}}`, false,
			[]string{"fetch config: fetch " + closed.URL + "/c.ign: gave up after 1s: no answer\n", "ignition.config.merge[0].source\n",
				"expected:  an answer from " + strings.TrimPrefix(closed.URL, "http://") + "\n", "found:     dial tcp", "next step: check the address, the server and the network\n"}},
		"no such config": {`{"ignition":{"version":"3.4.0","config":{"replace":{"source":"` + missing.URL + `/c.ign?key=hunter2"}}}}`, false,
			[]string{"fetch config: fetch " + missing.URL + "/c.ign: refused by the server\n", "ignition.config.replace.source\n",
				"expected:  status 200\n", "found:     404 Not Found\n", "next step: correct the address, or make the server answer it with what it names\n"}},
		"wrong hash of a config": {`{"ignition":{"version":"3.4.0","config":{"merge":[{"source":"` + server.URL + `/c.ign","verification":{"hash":"sha256-` + strings.Repeat("0", 64) + `"}}]}}}`, false,
			[]string{"fetch config: fetch " + server.URL + "/c.ign: wrong hash\n", "ignition.config.merge[0].source\n",
				"expected:  " + strings.Repeat("0", 64) + "\n", "found:     8f990ba0b577", "next step: correct the hash, or what the source serves\n"}},
		"wrong hash": {one(server.URL, `,"verification":{"hash":"sha256-`+strings.Repeat("0", 64)+`"}`), false,
			[]string{"write file /etc/a: fetch " + server.URL + "/x: wrong hash\n", "expected:  " + strings.Repeat("0", 64), "found:     8f990ba0b577", "next step: correct the hash"}},
		"unknown user": {`{"ignition":{"version":"3.4.0"},"storage":{"files":[{"path":"/etc/a","contents":{"source":"data:,hunter2"},"user":{"name":"web"}}]}}`, false,
			[]string{"write file /etc/a: unknown user\n", "storage.files[0].path\n", "expected:  a user of /etc/passwd or of passwd.users\n", "found:     web\n", "next step: add it to passwd.users, or correct the name\n"}},
		"unknown group": {`{"ignition":{"version":"3.4.0"},"passwd":{"users":[{"name":"core","passwordHash":"hunter2","groups":["sail"]}]}}`, false,
			[]string{"unknown group\n", "expected:  a group of /etc/group or of passwd.groups\n", "found:     sail\n", "next step: add it to passwd.groups, or correct the name\n"}},
		"wrong type": {`{"ignition":{"version":"3.4.0"},"storage":{"files":[{"path":"/etc/a","mode":"0644","contents":{"source":"data:,hunter2"}}]}}`, false,
			[]string{"problem:   wrong type\n", "storage.files[0].mode\n", "expected:  an integer\n", "found:     a string, \"0644\"\n", "next step: write 420, which is 0644 in decimal\n"}},
		"full disk": {one(server.URL, ""), true, []string{"write file /etc/a: the file system is full\n", "storage.files[0].path\n", "expected:  room for 1048576 bytes\n", " bytes missing\n", "next step: make room or use a larger disk: the next run goes on from here\n"}},
	} {
		t.Run(name, func(t *testing.T) {
			m, o, dir := machine(t, tt.config)
			if tt.full {
				full(t, dir+"/root/etc")
			}
			if err := runStages(t, m, o); err == nil { // without the network
				t.Fatal("want an error")
			}
			o.Stage = "fetch,files"
			if err := Run(t.Context(), m, o); err == nil {
				t.Fatal("want an error")
			}
			b, err := os.ReadFile(o.Failure)
			screen := Screen(string(b))
			for _, want := range append(tt.want, "config:    fw_cfg opt/com.coreos/config\n", "  line:      1, column ") {
				if err != nil || !strings.Contains(screen, want) {
					t.Errorf("want %q on the screen: %v\n%s", want, err, screen)
				}
			}
			if strings.Contains(screen, "hunter2") || strings.Contains(screen, "xxx") {
				t.Errorf("a secret is on the screen:\n%s", screen)
			}
		})
	}
}

// full mounts a file system on a directory that has room for a quarter of a MiB.
func full(t *testing.T, dir string) {
	t.Helper()
	if os.Geteuid() != 0 {
		testenv.Missing(t, "as an ordinary user: mounts a small file system")
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		testenv.Missing(t, "mount a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	if err := os.WriteFile(dir+"/passwd", []byte("root:x:0:0:root:/root:/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Disks are made with what a private object holds, as files are; without disks nothing is fetched.
func TestDisksWithCredentials(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	asked := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		if strings.HasSuffix(r.URL.Path, "/token") {
			cancel() // the object would come from the internet
		}
	}))
	defer server.Close()
	for _, tt := range []struct {
		storage string
		want    bool
	}{{`{"files":[{"path":"/etc/a"}]}`, false}, {`{"disks":[{"device":"/dev/none"}]}`, true}} {
		m, o, _ := machine(t, "")
		cfg := `{"ignition":{"version":"3.4.0","security":{"tls":{"certificateAuthorities":[{"source":"gs://private/ca"}]}}},"storage":` + tt.storage + `}`
		m.Route = func(string) string { return strings.TrimPrefix(server.URL, "http://") }
		merged, err := config.Load(t.Context(), "c.ign", []byte(cfg), nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := store(o, state{Merged: *merged, Platform: "gcp"}); err != nil {
			t.Fatal(err)
		}
		o.Platform, o.Stage = "gcp", "disks"
		if err := Run(ctx, m, o); (err != nil) != tt.want || (asked > 0) != tt.want {
			t.Errorf("%s: asked for a token %d times, %v", tt.storage, asked, err)
		}
	}
}

func TestUnknownStage(t *testing.T) {
	m, o, _ := machine(t, "")
	o.Stage = "paint"
	want := `run stage "paint": expected one of ` + strings.Join(Stages(), ", ")
	if err := Run(t.Context(), m, o); err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
}

func TestParseHostname(t *testing.T) {
	tests := []struct {
		text, want string
		ok         bool
	}{
		{"# name\n\n web1.example \n", "web1.example", true},
		{"", "", true},
		{"node-????\n", "", true},
		{"-bad", "", false},
		{"a..b", "", false},
		{"under_score", "", false},
		{strings.Repeat("a", 65), "", false},
	}
	for _, tt := range tests {
		if got, err := parseHostname(tt.text); got != tt.want || (err == nil) != tt.ok {
			t.Errorf("%q: got %q, %v", tt.text, got, err)
		}
	}
}

// TestGenerator runs the real script with the paths of a temporary root.
func TestGenerator(t *testing.T) {
	script, err := os.ReadFile(imageFiles + "usr/lib/systemd/system-generators/provision-generator")
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, cmdline string
		state         []string // files there
		want, deletes bool
	}{
		{"first boot", "root=x ignition.platform.id=qemu quiet", nil, true, false},
		{"power lost before the marker", "ignition.platform.id=vmware", []string{toDelete}, true, false},
		{"provisioned", "ignition.platform.id=qemu", []string{Marker}, false, false},
		{"config still to delete", "ignition.platform.id=vmware", []string{Marker, toDelete}, false, true},
		{"no platform", "quiet", nil, false, false},
		{"empty platform", "ignition.platform.id= quiet", nil, false, false},
		{"another key, globs", "x.ignition.platform.id=qemu * ?", nil, false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			text := strings.NewReplacer("/proc/cmdline", dir+"/cmdline", "/var/lib", dir+"/var/lib", "/dev/kmsg", dir+"/kmsg", "/run/systemd/journal", dir).Replace(string(script))
			for name, content := range map[string]string{"cmdline": tt.cmdline + "\n", "generator": text} {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			for _, name := range tt.state {
				put(t, dir, name, "")
			}
			if out, err := exec.Command("/bin/sh", dir+"/generator", dir+"/normal", dir, dir+"/late").CombinedOutput(); err != nil || len(out) > 0 {
				t.Fatalf("%v: %s", err, out)
			}
			said, err := os.ReadFile(dir + "/kmsg")
			if silent := tt.want || len(tt.state) > 0; silent != (err != nil) || !silent && (strings.Count(string(said), "\n") != 1 || !strings.Contains(string(said), "is not provisioned: no kernel argument ignition.platform.id= ") || !strings.Contains(string(said), "image-builder platform IMAGE PLATFORM")) {
				t.Errorf("said %q, %v", said, err)
			}
			target, err := os.Readlink(dir + "/default.target")
			if got := err == nil; got != tt.want || got && target != "/usr/lib/systemd/system/provision.target" {
				t.Errorf("got link %q, %v", target, err)
			}
			unit, err := os.Readlink(dir + "/normal/multi-user.target.wants/ignition-delete-config.service")
			if got := err == nil; got != tt.deletes || got && unit != "/usr/lib/systemd/system/ignition-delete-config.service" {
				t.Errorf("deletes the config: got link %q, %v", unit, err)
			}
			// It runs again with every systemctl daemon-reload.
			l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", dir+"/socket")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			if err := os.RemoveAll(dir + "/kmsg"); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command("/bin/sh", dir+"/generator", dir+"/normal", dir, dir+"/late").CombinedOutput(); err != nil || len(out) > 0 {
				t.Fatalf("%v: %s", err, out)
			}
			if again, err := os.ReadFile(dir + "/kmsg"); err == nil {
				t.Errorf("a reload says it again: %q", again)
			}
		})
	}
}

// TestUnits holds the properties that the first boot rests on and that nobody sees when they break.
func TestUnits(t *testing.T) {
	dir := imageFiles + "usr/lib/systemd/system/"
	want := map[string][]string{
		"provision.target":               {"DefaultDependencies=no", "OnFailure=provision-failed.service", "Requires=ignition.service", "After=ignition.service"},
		"ignition.service":               {"DefaultDependencies=no", "OnFailure=provision-failed.service", "Before=provision.target", "IgnoreOnIsolate=yes", "OnSuccess=provision-reread.service", "ExecStart=/usr/bin/ignition first-boot"},
		"provision-reread.service":       {"DefaultDependencies=no", "After=multi-user.target", "ConditionPathExists=/run/ignition/reread", "ExecStart=systemctl daemon-reload"},
		"provision-failed.service":       {"DefaultDependencies=no", "RemainAfterExit=yes"},
		"ignition-delete-config.service": {"ConditionPathExists=/" + toDelete, "ExecStart=-/usr/bin/ignition rmcfg"},
		// Volumes of early boot may wait for these; only the first step has rights, and the names are those that Ignition writes.
		"clevis@.socket":  {"DefaultDependencies=no", "ListenStream=/run/clevis/%I.sock", "SocketMode=0600", "FileDescriptorName=ask"},
		"clevis@.service": {"DefaultDependencies=no", "DynamicUser=yes", "CapabilityBoundingSet=", "ExecStartPre=-+/usr/bin/ignition clevis prepare %I", "OpenFile=/dev/tpmrm0:tpm:graceful", "StartLimitBurst=5"},
	}
	for name, lines := range want {
		f, err := os.Open(dir + name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		options, err := unit.DeserializeOptions(f)
		if err != nil {
			t.Fatal(err)
		}
		have := map[string]bool{}
		for _, o := range options {
			have[o.Name+"="+o.Value] = true
			// Whatever these pull in would read its configuration before the config of the machine is applied.
			pulls := o.Name == "Wants" || o.Name == "Requires" || o.Name == "RequiresMountsFor"
			for _, early := range []string{"sysinit", "basic", "local-fs", "udev", "networkd", "tmpfiles", "sysctl", "/"} {
				if pulls && strings.Contains(o.Value, early) {
					t.Errorf("%s: %s=%s starts what a config can configure", name, o.Name, o.Value)
				}
			}
			if o.Name == "ExecStart" && strings.HasPrefix(strings.TrimPrefix(o.Value, "-"), "/usr/bin/") && !strings.HasPrefix(strings.TrimPrefix(o.Value, "-"), "/usr/bin/ignition ") {
				t.Errorf("%s: unknown program in %s", name, o.Value)
			}
		}
		for _, line := range lines {
			if !have[line] {
				t.Errorf("%s: want %s", name, line)
			}
		}
		if have["AllowIsolate=yes"] { // whoever asks for the default target while it has that name would stop everything
			t.Errorf("%s: may be isolated", name)
		}
		if have["DefaultDependencies=no"] && !have["Conflicts=shutdown.target"] {
			t.Errorf("%s: would not stop at shutdown", name)
		}
	}
}

// A config without devices goes through all stages of the unit at once, without asking the machine for any.
func TestStagesInOneRun(t *testing.T) {
	m, o, _ := machine(t, `{"ignition":{"version":"3.4.0"},"storage":{"files":[{"path":"/etc/a","contents":{"source":"data:,x"}}]}}`)
	o.Stage = "fetch-offline,disks,mount,files,umount"
	if os.Geteuid() != 0 {
		testenv.Missing(t, "as an ordinary user: files get owner 0:0")
	}
	if err := Run(t.Context(), m, o); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(o.Root, "etc/a")); string(b) != "x" {
		t.Errorf("got %q, %v", b, err)
	}
	o.Stage = "disks,frobnicate"
	if err := Run(t.Context(), m, o); err == nil || !strings.Contains(err.Error(), `run stage "frobnicate"`) {
		t.Errorf("got %v", err)
	}
}
