package qemutests

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/proa-os/proa/qemu-tests/vm"
	"github.com/proa-os/proa/qemu-tests/world"
)

// A trouble is a situation in which no update can be installed. Its commands run on the machine.
type trouble struct {
	name    string
	begin   string
	end     string
	says    string // what updatectl says
	offline bool   // nobody can log in meanwhile
	allow   []vm.Allowance
}

func troubles() []trouble {
	clock := func(when string) string { return "systemctl stop systemd-timesyncd; date -u -s '" + when + "'" }
	now := func() string {
		return fmt.Sprintf("date -u -s @%d; systemctl start systemd-timesyncd", time.Now().Unix())
	}
	return []trouble{
		{name: "no network", offline: true, says: `unreachable|dial|connect`},
		{name: "clock in 1970", begin: clock("1970-01-02 00:00"), end: now(), says: `the clock is wrong: it says 1970-01-02`},
		{name: "clock in 2100", begin: clock("2100-01-01 00:00"), end: now(), says: `the clock is wrong: it says 2100-01-01`},
		{name: "full ESP", says: `the ESP is full: it has room for \d+ bytes, .* needs \d+: \d+ bytes are missing`,
			begin: "mkdir -p /run/lab && mount /dev/vda1 /run/lab && ! dd if=/dev/zero of=/run/lab/full bs=1M 2>/dev/null; sync; umount /run/lab",
			end:   "mount /dev/vda1 /run/lab && rm /run/lab/full && umount /run/lab"},
		{name: "full state", says: `state is full: it has room for \d+ bytes, .*: \d+ bytes are missing`,
			begin: "fallocate -l $(df -P -B1 /var | awk 'END{print $4}') /var/full; ! dd if=/dev/zero of=/var/full2 bs=4k 2>/dev/null; sync",
			end:   "rm -f /var/full /var/full2; sync"},
		{name: "read-only state", says: `state is read-only`,
			begin: "echo u >/proc/sysrq-trigger; for i in $(seq 50); do touch /var/written 2>/dev/null || break; sleep 0.1; done",
			end:   "mount -o remount,rw /var",
			allow: []vm.Allowance{vm.Allow(`cut here \]---|ext4_journal_check_start|Call Trace:`, "the kernel says that somebody was writing when it made the file system read-only")}},
	}
}

// TestTrouble has a machine apply an update in every kind of trouble: it refuses at once and says what is missing, downloads nothing, stays
// up; and when the trouble is over the update works. In the middle of the download somebody pulls the machine's cable, then its agent is
// killed, and then the machine is reset: each time it goes on where it was, but for one segment of the payload. In the end somebody goes back by
// hand, and the power is lost at once.
func TestTrouble(t *testing.T) {
	s := begin(t, 6)
	desk := must(world.NewDesk(t.Context(), s.programs, s.dir))(t)
	publish(t, desk, s.image("1.0.1", ""))
	web := s.web(desk.Repository)
	m := s.goOn("trouble")
	follows(t, m, must(desk.Root())(t), fmt.Sprintf(`{"server":%q,"channel":"stable","auto":false,"health_deadline_seconds":600,"reboot":{"mode":"full"}}`, web.GuestURL()))
	allow := []vm.Allowance{
		vm.Allow(`update-engine|updatectl`, "the agent says why it cannot update"),
		vm.Allow(`EXT4-fs|[Rr]ead-only file system|No space left|journald|systemd-timesyncd|FAT-fs|Emergency Remount|systemd-logind|systemd-networkd`, "the story makes trouble"),
	}
	for _, tr := range troubles() {
		step(t, m, tr.name, func(t *testing.T) { tr.refuses(t, m, web) }, slices.Concat(allow, tr.allow)...)
	}
	step(t, m, "no trouble but a pulled cable, a killed agent and a reset", func(t *testing.T) {
		payload := must(filepath.Glob(filepath.Join(desk.Repository, "targets/releases/1.0.1/*/*full.payload")))(t)
		if len(payload) != 1 {
			t.Fatalf("got payloads %q, want one", payload)
		}
		quarter := must(os.Stat(payload[0]))(t).Size() / 4
		release := heldUp(t, m, web, "full.payload", quarter)
		streamsInLittle(t, m, streaming)
		usesAll(t, m)
		held, releaseNext := web.Hold("full.payload bytes=", quarter) // what the same run asks for next
		losesItsCable(t, m, release)
		waitHeld(t, web, held)
		begin := lastStart(t, web)
		goesOn(t, begin, quarter)
		usesAll(t, m)
		run(t, m, "systemctl kill -s KILL update-engine.service")
		releaseNext()
		there := begin + quarter
		release = heldUp(t, m, web, "full.payload bytes=", quarter)
		begin = lastStart(t, web)
		goesOn(t, begin, there)
		usesAll(t, m)
		check(t, m.Reset(t.Context()))
		release()
		boots(t, m, "1.0.0")
		run(t, m, "updatectl apply --no-reboot")
		goesOn(t, lastStart(t, web), begin+quarter)
		streamsInLittle(t, m, streaming) // what it has taken for the rest, for reading all of it back, and for the boot program
		applyUpdate(t, m)
		becomesGood(t, m, "1.0.1")
	}, allow...)
	step(t, m, "go back by hand", func(t *testing.T) {
		goesBack(t, m, "1.0.1", "1.0.0", func() {
			got := run(t, m, "updatectl rollback --no-reboot --reason 'too slow'")
			check(t, m.PowerCut()) // what it has said is durable
			if !strings.Contains(got, "rolled back from 1.0.1: the next boot runs 1.0.0") {
				t.Errorf("updatectl rollback: %q, want what it will boot", got)
			}
			check(t, m.PowerOn())
		})
	}, allow...)
}

// What the agent's processes may take of memory, each in any moment: while they stream a full payload, and while they apply a delta, the programs of
// which may have changed all over. Bytes.
const (
	streaming = 25_000_000
	applying  = 32_000_000
)

// streamsInLittle looks at the memory of the agent in the middle of a payload, or at its end: of the program as it runs on a machine, with
// its bus, its metadata and what it has mapped of itself. What talks to the network is another process, and as small.
func streamsInLittle(t *testing.T, m *vm.Machine, most int64) {
	t.Helper()
	for _, line := range strings.Split(run(t, m, `for p in $(pidof update-engine); do echo "$(tr '\0' ' ' </proc/$p/cmdline):$(awk '/^(Vm(RSS|HWM)|RssAnon)/ {print $2}' /proc/$p/status | tr '\n' ' ')"; done`), "\n") {
		name, sizes, _ := strings.Cut(line, ":")
		var peak, rss, own int64
		if _, err := fmt.Sscan(sizes, &peak, &rss, &own); err != nil {
			t.Fatalf("sizes of a process in %q: %v", line, err)
		}
		peak, rss, own = peak*1024, rss*1024, own*1024
		t.Logf("%s: %.1f MB of memory now, %.1f of them not the program's, %.1f at the most", name, float64(rss)/1e6, float64(own)/1e6, float64(peak)/1e6)
		if peak > most {
			t.Errorf("%s takes %d bytes of memory while streaming and took %d, at most %d are allowed", name, rss, peak, most)
		}
	}
}

// segment is the most of a payload that may be fetched again, in bytes: the most that a segment makes, and its frame.
const segment = 4<<20 + 64<<10

// heldUp has the machine download until the server says no more after so many bytes of the answer to a request. It returns what lets the
// server speak again. Every run first asks for the beginning, with the manifest.
func heldUp(t *testing.T, m *vm.Machine, web *world.Web, request string, bytes int64) (release func()) {
	t.Helper()
	held, release := web.Hold(request, bytes)
	run(t, m, "systemd-run -q --collect updatectl apply --no-reboot")
	waitHeld(t, web, held)
	return release
}

func waitHeld(t *testing.T, web *world.Web, held <-chan struct{}) {
	t.Helper()
	select {
	case <-held:
	case <-time.After(10 * time.Minute):
		t.Fatalf("nothing was downloaded: %q", web.Requests())
	}
}

// losesItsCable pulls the cable of the machine's network card, ends the connection at its other end, and plugs the cable in again when the machine
// has noticed.
func losesItsCable(t *testing.T, m *vm.Machine, end func()) {
	t.Helper()
	run(t, m, `systemd-run -q --collect sh -c 'while grep -qx 1 /sys/class/net/e*/carrier; do sleep 0.2; done; echo "lab: carrier" $(cat /sys/class/net/e*/carrier) >/dev/console'`)
	check(t, m.SetLink(t.Context(), nil, false))
	must(m.WaitConsole(t.Context(), "lab: carrier 0"))(t)
	end()
	check(t, m.SetLink(t.Context(), nil, true))
}

// usesAll waits until the agent has used what was sent and waits for more: much of it stands in buffers, some of them the guest's, which a
// busy host leaves it little time to empty.
func usesAll(t *testing.T, m *vm.Machine) {
	t.Helper()
	for still, last := 0, int64(0); still < 3; {
		run(t, m, "sleep 4")
		r := readReport(t, m)
		if r.Progress == nil {
			t.Fatalf("the agent does not wait for the server: %s", run(t, m, "updatectl why"))
		}
		if still++; r.Progress.Done != last {
			still, last = 0, r.Progress.Done
		}
	}
	run(t, m, "sync")
}

// lastStart is the first byte of the last request for the payload.
func lastStart(t *testing.T, web *world.Web) int64 {
	t.Helper()
	for _, r := range slices.Backward(web.Requests()) {
		if !strings.Contains(r, ".payload") {
			continue
		}
		_, from, ok := strings.Cut(r, "bytes=")
		if !ok {
			return 0
		}
		return must(strconv.ParseInt(strings.TrimSuffix(from, "-"), 10, 64))(t)
	}
	t.Fatalf("got requests %q, want one for a payload", web.Requests())
	return 0
}

// goesOn checks that what was there before was not asked for again, but for one segment.
func goesOn(t *testing.T, from, there int64) {
	t.Helper()
	t.Logf("the download goes on at %d, where %d bytes had been sent", from, there)
	if from > there || from < there-segment {
		t.Errorf("the download goes on at %d, want at most a segment before %d", from, there)
	}
}

func (tr trouble) refuses(t *testing.T, m *vm.Machine, web *world.Web) {
	id, asked, n := run(t, m, "cat /proc/sys/kernel/random/boot_id"), len(web.Requests()), m.Boots()
	var out, status string
	if tr.offline {
		out = whileOffline(t, m, "updatectl apply --no-reboot")
		status = "1"
	} else {
		run(t, m, tr.begin)
		out = run(t, m, "updatectl apply --no-reboot 2>&1; echo status=$?; updatectl why")
		var why string
		out, status, _ = strings.Cut(out, "status=")
		if status, why, _ = strings.Cut(status, "\n"); !regexp.MustCompile(tr.says).MatchString(why) {
			t.Errorf("updatectl why: %q, want the reason, /%s/", why, tr.says)
		}
		run(t, m, tr.end)
	}
	if status == "0" || !regexp.MustCompile(tr.says).MatchString(out) {
		t.Errorf("got %q with status %s, want an error with /%s/", out, status, tr.says)
	}
	t.Logf("%s", lastLine(out))
	if got := slices.DeleteFunc(web.Requests()[asked:], func(r string) bool { return !strings.Contains(r, ".payload") }); len(got) > 0 {
		t.Errorf("got requests %q although nothing can be installed", got)
	}
	if got := run(t, m, "cat /proc/sys/kernel/random/boot_id"); got != id || m.Boots() != n {
		t.Errorf("got boot %s, want %s: the machine did not stay up", got, id)
	}
	if r := readReport(t, m); r.Running.Version != "1.0.0" || len(r.Quarantine) > 0 {
		t.Errorf("got report %+v: trouble says nothing about a release", r)
	}
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}

// whileOffline runs a command while the network card is down, and returns what it said.
func whileOffline(t *testing.T, m *vm.Machine, command string) string {
	t.Helper()
	run(t, m, `systemd-run -q --collect sh -c 'sleep 1
nic=$(ls -d /sys/class/net/*/device | cut -d/ -f5)
ip link set $nic down
`+command+` >/run/offline 2>&1; echo $? >>/run/offline
ip link set $nic up
networkctl reconfigure $nic
mv /run/offline /run/offline.done'`)
	got := run(t, m, "for i in $(seq 300); do test -e /run/offline.done && break; sleep 1; done; cat /run/offline.done")
	said, failed := strings.CutSuffix(got, "\n1")
	if !failed {
		t.Errorf("got %q, want it to fail while the network is down", got)
	}
	return said
}
