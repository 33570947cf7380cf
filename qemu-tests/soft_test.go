package qemutests

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
	_ "time/tzdata"

	"github.com/proa-os/proa/internal/testenv"
	"github.com/proa-os/proa/qemu-tests/vm"
	"github.com/proa-os/proa/qemu-tests/world"
)

// survivor is a service that stays when everything else is stopped for a soft reboot: it asks for that, runs from a root of its own in
// state, and its unit is there in both root images.
const survivor = `[Unit]
Description=Goes On Through a Soft Reboot
DefaultDependencies=no
After=basic.target
Conflicts=reboot.target kexec.target poweroff.target halt.target rescue.target emergency.target
Before=reboot.target kexec.target poweroff.target halt.target rescue.target emergency.target
SurviveFinalKillSignal=yes
IgnoreOnIsolate=yes

[Service]
ExecStart=/bin/busybox httpd -f -p 8080 -h /www
RootDirectory=/var/lib/lab/root

[Install]
WantedBy=multi-user.target
`

// TestSoftReboot updates a machine whose kernel stays the same: userspace alone starts anew, and a service that asks for it answers all the
// time. A release that is bad then goes back all the same. Its repository is in a container registry.
func TestSoftReboot(t *testing.T) {
	s := begin(t, 6)
	desk := must(world.NewDesk(t.Context(), s.programs, s.dir))(t)
	m := s.goOn("machine", func(c *vm.Config) { c.Ports = []int{8080} })
	registry := must(world.StartRegistry())(t)
	s.closes(registry)
	const place = "/os/updates:latest"
	offers := func(t *testing.T, version string) {
		publish(t, desk, s.image(version, ""))
		check(t, desk.Push(t.Context(), "oci+http://"+registry.Addr+place))
	}
	follows(t, m, must(desk.Root())(t), fmt.Sprintf(`{"server":%q,"auto":false,"health_deadline_seconds":600}`, "oci+http://"+registry.GuestHost()+place))
	cut := vm.Allow(`sshd-session.*(preauth child terminated by signal|kex_exchange|Connection|Failed to create session)|Failed to start session scope .* is destructive|Activation request for 'io\.proa\.Update1' failed`,
		"the harness logs in and asks while sshd, sessions and the bus stop")

	step(t, m, "a service of its own", func(t *testing.T) {
		put(t, m, "/etc/proa/health.d/version", 0o755, "#!/bin/sh\n! grep -q '^IMAGE_VERSION=.*1\\.0\\.4' /etc/os-release\n")
		put(t, m, "/etc/systemd/system/survivor.service", 0o644, survivor)
		run(t, m, "mkdir -p /var/lib/lab/root/bin /var/lib/lab/root/www && echo here > /var/lib/lab/root/www/index.html")
		busybox := must(os.ReadFile(testenv.Tools(t).Path("usr/bin/busybox")))(t)
		check(t, m.CopyTo(t.Context(), "root", "/var/lib/lab/root/bin/busybox", 0o755, busybox))
		run(t, m, "systemctl daemon-reload && systemctl enable --now survivor.service")
	})
	step(t, m, "wait for an inhibitor", func(t *testing.T) {
		offers(t, "1.0.1")
		run(t, m, "systemd-run --quiet --unit backup systemd-inhibit --what=shutdown --who=backup --why='copies the database' sleep 10000")
		run(t, m, "for i in $(seq 60); do systemd-inhibit --list --no-legend | grep -q backup && exit 0; sleep 1; done; exit 1")
		n := m.Boots()
		if got := run(t, m, "updatectl apply && updatectl why"); strings.Count(got, "backup (copies the database) holds the reboot up") != 2 {
			t.Errorf("updatectl says %q, want who inhibits", got)
		}
		run(t, m, "mkdir -p /run/proa/inhibit.d && echo lab work > /run/proa/inhibit.d/desk")
		if got := run(t, m, "updatectl why"); !strings.Contains(got, "desk (lab work) holds the reboot up") {
			t.Errorf("updatectl why: %q, want who inhibits", got)
		}
		run(t, m, "rm /run/proa/inhibit.d/desk")
		if m.Boots() != n {
			t.Error("the machine has rebooted past an inhibitor")
		}
	})
	step(t, m, "wait for a window", func(t *testing.T) {
		opens := must(time.Parse(time.DateTime, run(t, m, "date -u '+%F %T'")))(t).Add(12 * time.Hour).Truncate(time.Hour)
		setReboot(t, m, fmt.Sprintf(`{"strategy":"window","windows":[{"start":%q,"duration":"1h"}]}`, opens.Format("15:04")))
		n, want := m.Boots(), "the next window opens at "+opens.Format("Mon 2006-01-02 15:04 UTC")
		if got := run(t, m, "updatectl apply; updatectl check; updatectl why"); strings.Count(got, want) != 3 || strings.Count(got, "armed") < 3 {
			t.Errorf("updatectl says %q, want three times that 1.0.1 is armed and %s", got, want)
		}
		setReboot(t, m, `{"strategy":"off"}`)
		if got := run(t, m, "updatectl apply; updatectl why"); strings.Count(got, "does not reboot by itself (strategy off)") != 2 {
			t.Errorf("updatectl says %q, want twice that this machine does not reboot by itself", got)
		}
		if m.Boots() != n {
			t.Error("the machine has rebooted out of its window")
		}
	})
	step(t, m, "update softly in a window, past an inhibitor that has had its time", func(t *testing.T) {
		const zone = "America/St_Johns" // half an hour off the hours of UTC
		opened := must(time.Parse(time.DateTime, run(t, m, "date -u '+%F %T'")))(t).In(must(time.LoadLocation(zone))(t)).Add(-10 * time.Minute)
		setReboot(t, m, fmt.Sprintf(`{"strategy":"window","windows":[{"days":[%q],"start":%q,"duration":"4h"}],"time_zone":%q,"max_delay":"1s"}`,
			strings.ToLower(opened.Format("Mon")), opened.Format("15:04"), zone))
		kernel, pid := bootID(t, m), survivorPID(t, m)
		if got := run(t, m, "updatectl check"); !strings.Contains(got, "the reboot would be soft") {
			t.Errorf("updatectl check: %q", got)
		}
		client := startClient(t, m, "here\n")
		n := m.Boots()
		if got := run(t, m, "systemd-inhibit --list --no-legend"); !regexp.MustCompile(`\bbackup\b.* shutdown .*\bblock\b`).MatchString(got) {
			t.Errorf("got locks %q, want the one of backup", got)
		}
		becomesSoftly(t, m, "1.0.1")
		client.stop(t)
		boots(t, m, "1.0.1")
		if t.Failed() || m.Boots() != n {
			t.Log(run(t, m, "journalctl -q --no-pager -o short-monotonic -u update-engine -u proa-nextroot -u proa-health"))
		}
		if m.Boots() != n || bootID(t, m) != kernel {
			t.Errorf("got %d starts of the machine and kernel %s, want %d and %s", m.Boots(), bootID(t, m), n, kernel)
		}
		if got := run(t, m, "systemctl show -P ConditionResult proa-try.timer"); got != "yes" {
			t.Errorf("the deadline of a try: %q, want it to bound a soft one, too", got)
		}
		if got := survivorPID(t, m); got != pid {
			t.Errorf("the service has process %s, want %s as before", got, pid)
		}
		if got := run(t, m, "ls /sys/block | grep ^dm-"); strings.Contains(got, "\n") {
			t.Errorf("got devices %q, want the old slot's gone", got)
		}
		if got := gaps(t, m); !regexp.MustCompile(`^"gaps":{"soft":[1-9]`).MatchString(got) {
			t.Errorf("got %s, want how long the soft reboot took", got)
		} else {
			t.Log(got)
		}
	}, cut)
	step(t, m, "prove the boot program", func(t *testing.T) {
		check(t, m.Reboot(t.Context()))
		becomesGood(t, m, "1.0.1")
		boots(t, m, "1.0.1")
		// The deadline of this try has passed, and must not count for the soft one that follows.
		s.rest(func() {
			run(t, m, `for i in $(seq 300); do [ "$(systemctl show -P ActiveState proa-try.timer)" = inactive ] && exit 0; sleep 1; done; exit 1`)
		})
		if got := run(t, m, "systemctl show -P ActiveState proa-try-watchdog.service; systemctl show -P RuntimeWatchdogUSec"); got != "inactive\n45s" {
			t.Errorf("got %q: a good release has the watchdog of a try", got)
		}
	})
	step(t, m, "come back from a bad release", func(t *testing.T) {
		setHealthDeadline(t, m, sickDeadline)
		offers(t, "1.0.4")
		if got := run(t, m, "updatectl check"); !regexp.MustCompile(`the reboot would be soft \(.*\), which took [1-9]\d* s last time`).MatchString(got) {
			t.Errorf("updatectl check: %q, want the mode of the reboot and its last gap", got)
		}
		n := m.Boots()
		_, _ = m.Run(t.Context(), "root", "updatectl apply") // the connection may end first
		check(t, m.WaitBoot(t.Context(), n+1))
		boots(t, m, "1.0.1")
		isQuarantined(t, m, "1.0.4", `/etc/proa/health\.d: /etc/proa/health\.d/version: exit status 1`)
		if got := m.Boots() - n; got != 1 {
			t.Errorf("got %d starts of the machine, want the one back: the try was to be soft", got)
		}
		// A soft try is told in the journal of the kernel's boot that it began in, which ended with it.
		if got := run(t, m, "journalctl -b -1 -q -o cat -u proa-health"); !regexp.MustCompile(`trying release version=1\.0\.4 (?s:.*)release bad, going back version=1\.0\.4 `).MatchString(got) {
			t.Errorf("the health check has said %q, want a verdict about 1.0.4 before the machine started anew", got)
		}
	}, cut, vm.Allow(`proa-health|Health of This Boot`, "1.0.4 fails its health check"))
}

// setReboot writes the block "reboot" of the configuration.
func setReboot(t *testing.T, m *vm.Machine, block string) {
	t.Helper()
	run(t, m, `sed -i -e 's|,"reboot":.*$|}|' -e 's|}$|,"reboot":`+block+`}|' /etc/proa/update/config.json && sync`)
}

// becomesSoftly updates, and waits until the release is good.
func becomesSoftly(t *testing.T, m *vm.Machine, version string) {
	t.Helper()
	out, err := m.Run(t.Context(), "root", "updatectl apply")
	t.Logf("updatectl apply: %q, %v", out, err)
	const ask = `updatectl status --json | tr -d ' \n' | grep -q '"running":{"version":"%s".*"trying":false' && systemctl is-system-running --wait`
	for deadline := time.Now().Add(8 * time.Minute); ; time.Sleep(2 * time.Second) {
		out, err := m.Run(t.Context(), "root", fmt.Sprintf(ask, version))
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the machine does not become %s: %q, %v", version, out, err)
		}
	}
}

func bootID(t *testing.T, m *vm.Machine) string {
	t.Helper()
	return run(t, m, "cat /proc/sys/kernel/random/boot_id")
}

func survivorPID(t *testing.T, m *vm.Machine) string {
	t.Helper()
	return run(t, m, "systemctl show -P MainPID survivor.service")
}

func gaps(t *testing.T, m *vm.Machine) string {
	t.Helper()
	return run(t, m, `updatectl status --json | tr -d ' \n' | grep -o '"gaps":{[^}]*}'`)
}

// A client asks a web server on a machine all the time.
type client struct {
	cancel context.CancelFunc
	done   sync.WaitGroup

	asked int
	lost  []string
	worst time.Duration // to an answer
}

// startClient asks until it is stopped; every answer must be want.
func startClient(t *testing.T, m *vm.Machine, want string) *client {
	ctx, cancel := context.WithCancel(t.Context())
	c := &client{cancel: cancel}
	// Each request is a connection of its own, as from many people.
	h := &http.Client{Timeout: 2 * time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}
	c.done.Go(func() {
		for ctx.Err() == nil {
			start := time.Now()
			got, err := get(h, "http://"+m.Addr(8080)+"/")
			if c.asked++; err != nil || got != want {
				c.lost = append(c.lost, fmt.Sprintf("request %d: %q, %v", c.asked, got, err))
			}
			c.worst = max(c.worst, time.Since(start))
			time.Sleep(10 * time.Millisecond)
		}
	})
	return c
}

func get(h *http.Client, url string) (string, error) {
	r, err := h.Get(url)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err == nil && r.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %s", r.Status)
	}
	return string(b), err
}

// stop fails if a request was lost.
func (c *client) stop(t *testing.T) {
	t.Helper()
	c.cancel()
	c.done.Wait()
	if len(c.lost) > 0 || c.asked < 100 {
		t.Errorf("lost %d of %d requests:\n%s", len(c.lost), c.asked, strings.Join(c.lost[:min(len(c.lost), 5)], "\n"))
	}
	t.Logf("%d requests, none lost, the longest answer took %s", c.asked-len(c.lost), c.worst.Round(time.Millisecond))
}
