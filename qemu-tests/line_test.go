package qemutests

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/proa-os/proa/ignition/secret"
	"github.com/proa-os/proa/internal/testenv"
	"github.com/proa-os/proa/internal/uki"
	"github.com/proa-os/proa/qemu-tests/bench/pair"
	"github.com/proa-os/proa/qemu-tests/vm"
	"github.com/proa-os/proa/qemu-tests/world"
)

// TestLine is the one line through everything: build, boot, provision, run a container, update, come back, on one machine.
func TestLine(t *testing.T) {
	s := begin(t, 8)
	registry := s.registry()
	first := s.image("1.0.0", "")
	desk, err := world.NewDesk(t.Context(), s.programs, s.dir)
	if err != nil {
		t.Fatal(err)
	}
	root, err := desk.Root()
	if err != nil {
		t.Fatal(err)
	}
	web := s.web(desk.Repository)

	config, login := described(t)
	config.
		KernelArguments(kept). // which the first boot puts where the loader finds it, for every release
		File("/etc/proa/update/root.json", 0o644, string(root)).
		File("/etc/proa/update/config.json", 0o644, fmt.Sprintf(`{"server":%q,"channel":"stable","auto":false,"health_deadline_seconds":600}`+"\n", web.GuestURL())).
		File("/etc/containers/systemd/site.volume", 0o644, "[Volume]\n").
		File("/etc/containers/systemd/site.container", 0o644, declaredSite(registry))
	key := must(secret.NewKey())(t)
	config.Include(sealedFile("/etc/lab/token", must(secret.Encrypt([]byte(token), key.Recipient()))(t)))
	named := filepath.Join(s.dir, "named.img")
	s.platform(first.Disk(), "qemu", "--out", named)
	m := s.machineFrom("line", named, config, func(c *vm.Config) {
		c.Key, c.Ports, c.Credentials = login, []int{pagesPort}, map[string]string{"ignition.age-key": key.Identity()}
	})
	check(t, os.Remove(named))

	step(t, m, "boot", func(t *testing.T) { boots(t, m, "1.0.0") })
	step(t, m, "provision", func(t *testing.T) { provisioned(t, m); keptSecret(t, m, key.Identity()) })
	step(t, m, "container", func(t *testing.T) { startContainer(t, m, registry) })
	step(t, m, "declared container", func(t *testing.T) { declaredStarts(t, m) })
	step(t, m, "web server", func(t *testing.T) { declarePages(t, m, registry) })
	// The last of this boot: its journal is not clean any more.
	step(t, m, "wrong declaration", func(t *testing.T) { wrongDeclaration(t, m) }, vm.Allow(`wrong\.(service|container)|quadlet-generator`, "a declaration has errors"))
	step(t, m, "power cut", func(t *testing.T) {
		run(t, m, "sync") // what was written by hand
		check(t, m.PowerCut())
		cutInLoader(t, m, vm.UEFI)
		check(t, m.PowerOn())
		boots(t, m, "1.0.0")
		provisioned(t, m)
		containerAnswers(t, m)
		portAnswers(t, m)
		pagesAnswer(t, m)
		declaredAnswers(t, m, "written by hand")
	})
	step(t, m, "update", func(t *testing.T) {
		publish(t, desk, first)
		next := s.changed("1.0.1")
		check(t, desk.PublishPacked(t.Context(), next, "stable"))
		if got := run(t, m, "updatectl check"); !strings.Contains(got, "the reboot would be full (the kernel changes)") {
			t.Errorf("updatectl check: %q, want the mode of the reboot", got)
		}
		n := m.Boots()
		run(t, m, "updatectl apply --no-reboot")
		streamsInLittle(t, m, applying)
		applyUpdate(t, m)
		tookDelta(t, desk, web, "1.0.0", next)
		becomesGood(t, m, "1.0.1")
		if got := m.Boots() - n; got != 1 {
			t.Errorf("got %d boots for an update, want 1", got)
		}
		boots(t, m, "1.0.1")
		if got := run(t, m, "journalctl -b -q -o cat _PID=1"); !strings.Contains(got, "Watchdog running with a hardware timeout of 25s") {
			t.Errorf("got %q in the journal of a try, want its watchdog", got)
		}
		if got := run(t, m, "cat /proc/cmdline"); strings.Count(got, "ignition.platform.id=qemu") != 2 || !strings.Contains(" "+got+" ", " "+kept+" ") {
			t.Errorf("got %q, want the platform of the firmware and that of the image, and %s", got, kept)
		}
		provisioned(t, m)
		containerAnswers(t, m)
		portAnswers(t, m)
		pagesAnswer(t, m)
		declaredAnswers(t, m, "written by hand")
	})
	allow := vm.Allow(`proa-health|Health of This Boot`, "1.0.4 fails its health check")
	step(t, m, "come back from 1.0.4", func(t *testing.T) {
		setHealthDeadline(t, m, sickDeadline)
		publish(t, desk, s.image("1.0.4", "firewall"))
		run(t, m, "updatectl apply --no-reboot")
		h := &sickbed{story: s, desk: desk, m: m}
		h.comesBack(t, "1.0.4", illness{name: "workload", tries: 1, reason: `containers: /usr/bin/containerctl: .*\bhello: health check failed`})
		h.isNotTakenAgain(t, "1.0.4")
	}, allow)
	step(t, m, "refuse 1.0.3", func(t *testing.T) {
		broken, err := world.WrongRootHash(s.image("1.0.3", ""), filepath.Join(s.dir, "1.0.3"))
		if err != nil {
			t.Fatal(err)
		}
		if err := desk.PublishUnproven(t.Context(), broken, "stable"); err != nil {
			t.Fatal(err)
		}
		n := m.Boots()
		out, err := m.Run(t.Context(), "root", "updatectl apply 2>&1")
		if err == nil || !strings.Contains(out, "root hash") {
			t.Errorf("got %q, %v, want an error that names the root hash", out, err)
		}
		if m.Boots() != n {
			t.Error("the machine has rebooted for a release that cannot boot")
		}
		containerAnswers(t, m)
		isQuarantined(t, m, "1.0.3", "root hash")
	})
}

// boots looks at a machine that has come up: what runs, and that it runs from a verified read-only image with its state beside it.
func boots(t *testing.T, m *vm.Machine, version string) {
	t.Helper()
	up(t, m)
	if got, want := run(t, m, ". /etc/os-release; echo $ID $IMAGE_VERSION"), "proa "+version; got != want {
		t.Errorf("got os-release %q, want %q", got, want)
	}
	all := mounts(t, m)
	for point, want := range map[string]string{
		"/":    `^erofs ro\b`,
		"/var": `^ext4 rw,.*nosuid,nodev`,
		"/etc": `^overlay rw\b`,
	} {
		if got := all[point]; !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("got %s mounted as %q, want /%s/", point, got, want)
		}
	}
	if out, err := m.Run(t.Context(), "root", "touch /usr/x"); err == nil {
		t.Errorf("got %q, want /usr to be read-only", out)
	}
	if got := run(t, m, "cat /sys/block/dm-*/dm/uuid"); !strings.Contains(got, "VERITY") {
		t.Errorf("got device-mapper uuid %q, want a verity device", got)
	}
	// The disk is 8 GiB, the fixed partitions take about 2.5 GiB.
	kib := run(t, m, "df -kP /var | tail -n 1 | awk '{print $2}'")
	if n, err := strconv.ParseInt(kib, 10, 64); err != nil || n < 4<<20 {
		t.Errorf("got a state of %s KiB, want it to fill the disk", kib)
	}
}

// kept is a kernel argument of the story's config.
const kept = "lab.word=kept"

// token is a secret of the story's config.
const token = "t0ken-0f-the-l1ne"

// sealedFile is a config with a file that only the machine can read.
func sealedFile(path, sealed string) string {
	return fmt.Sprintf("variant: proa\nversion: 1.0.0\nstorage:\n  files:\n  - path: %s\n    mode: 0600\n    contents:\n      age: |\n        %s\n",
		path, strings.ReplaceAll(strings.TrimSpace(sealed), "\n", "\n        "))
}

// keptSecret looks for the secret of the config where it belongs, and for it and the key that opened it everywhere else: nobody but root can
// read them, and no report tells them.
func keptSecret(t *testing.T, m *vm.Machine, identity string) {
	t.Helper()
	const file = "/etc/lab/token"
	if got := run(t, m, "stat -c '%a %U' "+file+"; cat "+file); got != "600 root\n"+token {
		t.Errorf("got %q, want the secret in a file of root's", got)
	}
	if out, err := m.Run(t.Context(), "ada", "cat "+file+" /run/credentials/@system/ignition.age-key"); err == nil || out != "" {
		t.Errorf("ada reads %q, %v, want neither the secret nor the key", out, err)
	}
	if got := run(t, m, `find /var/log /var/lib/ignition /run /tmp -xdev -type f -exec grep -laF "$(cat `+file+`)" {} + || true`); got != "" {
		t.Errorf("got the secret in %s, want it in %s only", got, file)
	}
	reports := map[string]string{
		"the journal":                 run(t, m, "journalctl -b -q -o export"),
		"what provisioning remembers": run(t, m, "cat /var/lib/ignition/*.json /var/lib/ignition/journal"),
		"what differs":                run(t, m, "ignition drift --json || true"),
	}
	for _, l := range m.Console().Lines(0) {
		reports["the console"] += l.Text + "\n"
	}
	for where, text := range reports {
		if text == "" || strings.Contains(text, token) || strings.Contains(text, identity) {
			t.Errorf("%s: want it there, without the secret and its key:\n%s", where, text)
		}
	}
}

// startContainer pulls and runs the lab's container.
func startContainer(t *testing.T, m *vm.Machine, registry string) {
	t.Helper()
	image := registry + "/lab/hello:1"
	run(t, m, "containerctl pull --tls-verify=false "+image)
	run(t, m, "containerctl run -d --name hello --network host --health-cmd 'wget -qO- http://127.0.0.1:8080/' "+image)
	containerAnswers(t, m)
	run(t, m, "containerctl run -d --name front -p 8083:8080 "+image)
	portAnswers(t, m)
	if got := run(t, m, "ps -o args | grep -v 'containerctl dns'"); strings.Contains(got, "containerctl") || strings.Contains(got, "oci-runtime") {
		t.Errorf("got processes\n%s\nwant none of the runtime's beside the container", got)
	}
}

// containerAnswers waits for the container's server and looks at its unit and its journal.
func containerAnswers(t *testing.T, m *vm.Machine) {
	t.Helper()
	got := run(t, m, "for i in $(seq 60); do wget -qO- http://127.0.0.1:8080/ && break; sleep 1; done")
	if got != "hello from a container" {
		t.Errorf("got %q from the container, want its greeting", got)
	}
	if got := run(t, m, "systemctl is-active proa-hello.service; journalctl -b -q -o cat -u proa-hello.service"); !strings.HasPrefix(got, "active\n") || !strings.Contains(got, "hello starts") {
		t.Errorf("got %q, want an active unit with its output in the journal", got)
	}
	if out, err := m.Run(t.Context(), "root", "containerctl health"); err != nil {
		t.Errorf("got health %q, %v, want every container healthy", out, err)
	}
}

// declaredSite is a container as podman's users declare it: with a volume that its image fills, ready when its health check succeeds.
func declaredSite(registry string) string {
	return `[Unit]
Description=The declared site
[Container]
Image=` + registry + `/lab/hello:1
Network=host
Volume=site.volume:/www
Exec=/bin/sh -c "echo site starts; exec httpd -f -p 8081 -h /www"
HealthCmd=wget -qO- http://127.0.0.1:8081/
Notify=healthy
PodmanArgs=--tls-verify=false
[Service]
Restart=always
[Install]
WantedBy=multi-user.target
`
}

// declaredStarts looks at the declared container after the boot that provisioned it, and leaves a trace in its volume.
func declaredStarts(t *testing.T, m *vm.Machine) {
	t.Helper()
	declaredAnswers(t, m, "hello from a container")
	for command, want := range map[string]string{
		"cat /proc/$(systemctl show -P MainPID site.service)/cmdline | tr '\\0' ' '": "httpd -f -p 8081 -h /www",
		"containerctl ps":                         "systemd-site",
		"containerctl exec systemd-site hostname": "systemd-site",
		"containerctl volume ls":                  "systemd-site",
		"containerctl logs systemd-site":          "site starts",
		"systemctl show -P Requires site.service": "site-volume.service",
	} {
		if got := run(t, m, command); !strings.Contains(got, want) {
			t.Errorf("%s: got %q, want %q", command, got, want)
		}
	}
	if out, err := m.Run(t.Context(), "root", "containerctl rm -f systemd-site 2>&1"); err == nil || !strings.Contains(out, "is declared") {
		t.Errorf("got %q, %v, want rm to say that the container is declared", out, err)
	}
	run(t, m, "containerctl exec systemd-site sh -c 'echo written by hand > /www/index.html'; systemctl restart site.service")
	declaredAnswers(t, m, "written by hand")
}

// declaredAnswers asks the declared container's server, which was up before its unit was.
func declaredAnswers(t *testing.T, m *vm.Machine, want string) {
	t.Helper()
	if got := run(t, m, "systemctl is-active site.service; wget -qO- http://127.0.0.1:8081/"); got != "active\n"+want {
		t.Errorf("got %q from the declared container, want %q", got, want)
	}
}

// wrongDeclaration: a key that nobody knows costs its own unit, which says so, and no other.
func wrongDeclaration(t *testing.T, m *vm.Machine) {
	t.Helper()
	run(t, m, "mkdir -p /run/containers/systemd; printf '[Container]\\nImage=a\\nImgae=b\\n' > /run/containers/systemd/wrong.container; systemctl daemon-reload")
	want := `/run/containers/systemd/wrong.container:3: unknown key "Imgae" in [Container]: did you mean Image=?`
	if out, err := m.Run(t.Context(), "root", "systemctl start wrong.service 2>&1"); err == nil {
		t.Errorf("got %q, want the unit to fail", out)
	}
	for _, command := range []string{"journalctl -b -q -o cat -u wrong.service", "journalctl -b -q -o cat -k"} {
		if got := run(t, m, command); !strings.Contains(got, want) {
			t.Errorf("%s: got no %q in\n%s", command, want, got)
		}
	}
	declaredAnswers(t, m, "written by hand")
	run(t, m, "rm /run/containers/systemd/wrong.container; systemctl daemon-reload; systemctl reset-failed wrong.service || true")
}

// changed is a release as the next one is: our programs have changed, and so has the kernel, by bytes behind its end.
func (s *story) changed(version string) world.Image {
	t := s.t
	t.Helper()
	made := must(pair.Changed(t.Context(), pair.Options{Repository: s.repo, Builder: filepath.Join(s.out, "stories", "bin", "image-builder"), Progress: os.Stderr}, version))(t)
	image := world.Image(made)
	program := must(world.Rebuild(testenv.Machines(t), image, version, func(c *uki.Contents) { c.Linux = append(c.Linux, "another kernel"...) }))(t)
	return must(world.WithProgram(image, filepath.Join(s.dir, version), program))(t)
}

func publish(t *testing.T, d *world.Desk, image world.Image) {
	t.Helper()
	if err := d.Publish(t.Context(), image, "stable"); err != nil {
		t.Fatal(err)
	}
}

// applyUpdate has the machine fetch and arm what its channel offers; it reboots by itself.
func applyUpdate(t *testing.T, m *vm.Machine) {
	t.Helper()
	n := m.Boots()
	if out, err := m.Run(t.Context(), "root", "updatectl apply"); err != nil && m.Boots() == n {
		t.Logf("updatectl apply: %v\n%s", err, out) // The reboot may end the connection first; whether it comes decides.
	}
	if err := m.WaitBoot(t.Context(), n+1); err != nil {
		t.Fatal(err)
	}
}

// report is what the stories read of `updatectl status --json`.
type report struct {
	Running struct {
		Version string `json:"version"`
	} `json:"running"`
	Boot struct {
		Trying bool
	} `json:"boot"`
	Quarantine []struct {
		Version string `json:"version"`
		Reason  string `json:"reason"`
	} `json:"quarantine"`
	Progress *struct {
		Done int64 `json:"done"` // bytes
	} `json:"progress"` // while a job works
}

func readReport(t *testing.T, m *vm.Machine) report {
	t.Helper()
	var r report
	out := run(t, m, "updatectl status --json")
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatalf("read %q: %v", out, err)
	}
	return r
}

// becomesGood waits for the agent's verdict on a new release.
func becomesGood(t *testing.T, m *vm.Machine, version string) {
	t.Helper()
	up(t, m)
	if r := readReport(t, m); r.Running.Version != version || r.Boot.Trying {
		t.Fatalf("got report %+v, want %s to be good", r, version)
	}
}

// registry serves lab/hello:1, made of the tools tree's static busybox, and lab/pages:1, Debian's Python, and returns the address that machines use.
func (s *story) registry() string {
	s.t.Helper()
	return s.registryOf(func(r *world.Registry) error { return r.PushPages(s.t.Context(), s.repo, "lab/pages:1", pagesText) }).GuestHost()
}

// registryOf serves lab/hello:1 and what push adds, until the story ends.
func (s *story) registryOf(push func(*world.Registry) error) *world.Registry {
	s.t.Helper()
	r, err := world.StartRegistry()
	if err != nil {
		s.t.Fatal(err)
	}
	s.closes(r)
	check(s.t, r.PushHello("lab/hello:1", helloText))
	check(s.t, push(r))
	return r
}
