package stage

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/proa-os/proa/ignition/platform"
)

// firstBoot runs one below dir/root and returns what was asked of systemctl, and whether the marker was there then.
func firstBoot(t *testing.T, config string, more func(dir string, o *Options)) (asked []string, dir string, err error) {
	t.Helper()
	m, o, dir := machine(t, config)
	o.Restart, o.Reread = dir+"/run/ignition/restart", dir+"/run/ignition/reread"
	put(t, dir, "root/usr/lib/systemd/system/multi-user.target", "")
	link(t, dir, "multi-user.target", "root/usr/lib/systemd/system/default.target")
	link(t, dir, "/usr/lib/systemd/system/provision.target", "root/"+earlyTarget)
	if more != nil {
		more(dir, &o)
	}
	err = FirstBoot(t.Context(), m, o, Boot{ID: "b", Now: time.Unix(0, 0), Systemctl: func(_ context.Context, args ...string) error {
		if _, err := os.Stat(filepath.Join(dir, "root", Marker)); err != nil {
			t.Errorf("systemctl %s: no marker yet", strings.Join(args, " "))
		}
		asked = append(asked, strings.Join(args, " "))
		if slices.Contains(args, "broken.target") {
			return errors.New("no such target")
		}
		return nil
	}})
	return asked, dir, err
}

func put(t *testing.T, dir, name, text string) {
	t.Helper()
	name = filepath.Join(dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, dir, to, name string) {
	t.Helper()
	name = filepath.Join(dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.RemoveAll(name), os.Symlink(to, name)); err != nil {
		t.Fatal(err)
	}
}

// systemd reads everything anew before it goes on, unless the config made nothing that it reads and the machine's own target is plain.
func TestOnward(t *testing.T) {
	const config = `{"ignition":{"version":"3.4.0"},`
	direct, anew := "--no-block isolate multi-user.target", "daemon-reload, --no-block isolate default.target"
	const own = "root/etc/systemd/system/default.target"
	for name, tt := range map[string]struct {
		config string
		more   func(dir string, o *Options)
		want   string
	}{
		"no config":      {"", nil, direct},
		"empty config":   {config + `"storage":{}}`, nil, direct},
		"hostname":       {file("/etc/hostname", ""), nil, direct},
		"accounts":       {config + `"passwd":{"users":[{"name":"root","sshAuthorizedKeys":["k"]}]}}`, nil, direct},
		"a file":         {file("/etc/fstab", "x"), nil, anew},
		"a file in /var": {file("/var/lib/a", "x"), nil, anew},
		"a unit":         {config + `"systemd":{"units":[{"name":"a.service","contents":"[Unit]\n"}]}}`, nil, anew},
		"a mask":         {config + `"systemd":{"units":[{"name":"a.service","mask":true}]}}`, nil, anew},
		"own target":     {"", func(dir string, _ *Options) { link(t, dir, "/usr/lib/systemd/system/rescue.target", own) }, "--no-block isolate rescue.target"},
		"own unit": {"", func(dir string, _ *Options) {
			link(t, dir, "x", own)
			os.Remove(dir + "/" + own)
			put(t, dir, own, "[Unit]\n")
		}, anew},
		"masked":         {"", func(dir string, _ *Options) { link(t, dir, "/dev/null", own) }, anew},
		"drop-in":        {"", func(dir string, _ *Options) { put(t, dir, own+".d/a.conf", "[Unit]\n") }, anew},
		"systemd.wants=": {"", func(dir string, _ *Options) { link(t, dir, "/x", "root/"+earlyTarget+".wants/a.service") }, anew},
		"restart":        {"", func(dir string, o *Options) { put(t, dir, "run/ignition/restart", "") }, "--no-block reboot"},
	} {
		t.Run(name, func(t *testing.T) {
			asked, dir, err := firstBoot(t, tt.config, tt.more)
			if got := strings.Join(asked, ", "); err != nil || got != tt.want {
				t.Errorf("got %q, %v, want %q", got, err, tt.want)
			}
			if _, err := os.Stat(dir + "/run/ignition/reread"); (err == nil) != (tt.want != anew && tt.want != "--no-block reboot") {
				t.Errorf("whether systemd is to read everything later: %v", err)
			}
		})
	}
}

// The network of provisioning is stopped before the machine goes on.
func TestOnwardStopsTheNetwork(t *testing.T) {
	_, o, dir := machine(t, "")
	put(t, dir, "run/ignition/neednet", "")
	var asked []string
	err := onward(t.Context(), o, Boot{Systemctl: func(_ context.Context, args ...string) error {
		asked = append(asked, strings.Join(args, " "))
		return nil
	}}, false)
	if got := strings.Join(asked, ", "); err != nil || got != "stop provision-network.service, daemon-reload, --no-block isolate default.target" {
		t.Errorf("got %q, %v", got, err)
	}
}

// What fails at the very end is on the screen too, and a config that cannot be applied leads nowhere.
func TestFirstBootFails(t *testing.T) {
	asked, dir, err := firstBoot(t, "", func(dir string, _ *Options) { link(t, dir, "broken.target", "root/etc/systemd/system/default.target") })
	if b, _ := os.ReadFile(dir + "/run/ignition/failure"); err == nil || len(asked) != 1 || !strings.Contains(string(b), "no such target") {
		t.Errorf("got %v, asked %q, screen %q", err, asked, b)
	}
	asked, dir, err = firstBoot(t, `{"ignition":{"version":"3.4.0"},"storage":{"filez":[]}}`, nil)
	if b, _ := os.ReadFile(dir + "/run/ignition/failure"); err == nil || len(asked) != 0 || !strings.Contains(string(b), "storage.filez") {
		t.Errorf("got %v, asked %q, screen %q", err, asked, b)
	}
	if _, err := os.Stat(filepath.Join(dir, "root", Marker)); err == nil {
		t.Error("it counts as provisioned")
	}
}

// A machine that is provisioned has its platform delete the config, which is there as long as the marker is not; that it cannot be is a warning.
func TestFirstBootForgets(t *testing.T) {
	for name, tt := range map[string]struct {
		config  string
		forgets bool
	}{
		"a config":     {file("/etc/a", "x"), true},
		"kept":         {`{"ignition":{"version":"3.4.0"},"systemd":{"units":[{"name":"ignition-delete-config.service","mask":true}]}}`, false},
		"wrong config": {`{"ignition":{"version":"3.4.0"},"storage":{"filez":[]}}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			m, o, dir := machine(t, "")
			systemConfig(t, dir, "user.ign", tt.config)
			var log bytes.Buffer
			o.Log, o.Platform = slog.New(slog.NewTextHandler(&log, nil)), "vmware"
			o.Restart, o.Reread = dir+"/run/ignition/restart", dir+"/run/ignition/reread"
			asked := 0
			m.Guest.Backdoor = func(*platform.Registers) error {
				asked++
				if _, err := os.Stat(filepath.Join(dir, "root", Marker)); err != nil {
					t.Error("the config is deleted before the machine is provisioned")
				}
				return errors.New("no answer")
			}
			err := FirstBoot(t.Context(), m, o, Boot{ID: "b", Now: time.Unix(0, 0), Systemctl: func(context.Context, ...string) error { return nil }})
			if (err != nil) != (name == "wrong config") || (asked > 0) != tt.forgets {
				t.Errorf("got %v, the hypervisor was asked %d times", err, asked)
			}
			if got := strings.Contains(log.String(), "the platform keeps the config of this machine"); got != tt.forgets {
				t.Errorf("log:\n%s", &log)
			}
		})
	}
}

// snapshot is a tree as text: what is at each path, with its mode.
func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		var b []byte
		switch {
		case info.Mode().IsRegular():
			b, err = os.ReadFile(name)
		case info.Mode()&fs.ModeSymlink != 0:
			var to string
			to, err = os.Readlink(name)
			b = []byte(to)
		}
		all[strings.TrimPrefix(name, dir)] = info.Mode().String() + " " + string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// Power goes while the result is written: everything is there but it and the marker. The next boot leaves the tree as one boot would have.
func TestFirstBootAgain(t *testing.T) {
	const config = `{"ignition":{"version":"3.4.0"},"passwd":{"users":[{"name":"web","sshAuthorizedKeys":["k"]},{"name":"root","sshAuthorizedKeys":["k"]}]},
		"storage":{"directories":[{"path":"/var/web"}],"links":[{"path":"/etc/l","target":"a"}],
			"files":[{"path":"/etc/a","contents":{"source":"data:,a"},"append":[{"source":"data:,b"}]},{"path":"/etc/hosts","append":[{"source":"data:,more"}]}]},
		"systemd":{"units":[{"name":"a.service","enabled":true,"contents":"[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n"}]}}`
	m, o, dir := machine(t, config)
	o.Restart, o.Reread = dir+"/run/ignition/restart", dir+"/run/ignition/reread"
	for _, image := range []string{"bin/bash", "bin/sh", "root/.keep"} {
		put(t, dir, "root/"+image, "")
	}
	put(t, dir, "root/etc/hosts", "127.0.0.1 localhost\n")
	var onwards int
	boot := func() {
		t.Helper()
		err := FirstBoot(t.Context(), m, o, Boot{ID: "b", Now: time.Unix(0, 0), Systemctl: func(context.Context, ...string) error {
			onwards++
			return nil
		}})
		if err != nil {
			t.Fatal(err)
		}
	}
	boot()
	first, state := snapshot(t, dir+"/root"), filepath.Dir(filepath.Join(dir, "root", Marker))
	if err := errors.Join(os.Remove(filepath.Join(dir, "root", Marker)), os.Rename(state+"/result.json", state+"/.result.json.new"), os.Truncate(state+"/.result.json.new", 7)); err != nil {
		t.Fatal(err)
	}
	boot()
	if again := snapshot(t, dir+"/root"); !maps.Equal(again, first) || onwards != 4 {
		for name := range first {
			if again[name] != first[name] {
				t.Errorf("%s: got %q, want %q", name, again[name], first[name])
			}
		}
		for name := range again {
			if first[name] == "" {
				t.Errorf("%s: got %q, want nothing", name, again[name])
			}
		}
		t.Errorf("asked systemctl %d times, want twice a boot", onwards)
	}
}
