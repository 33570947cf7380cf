package qemutests

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/vincent-petithory/dataurl"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/qemu-tests/provision"
	"github.com/proa-os/proa/qemu-tests/vm"
	"github.com/proa-os/proa/qemu-tests/world"
)

// TestFlippedBit changes one bit of the service manager on the disk: it is never read as data, the machine stops there.
func TestFlippedBit(t *testing.T) {
	s := begin(t)
	image := s.image("1.0.0", "")
	s.damage(image, func(d *world.Disk) error { return d.FlipBit("root-a", []byte("Detected architecture")) })
	m := s.bootDamaged("flipped")
	if _, err := m.WaitConsole(t.Context(), `device-mapper: verity: .*data block \d+ is corrupted`); err != nil {
		t.Fatal(err)
	}
	if _, err := m.WaitConsole(t.Context(), `Kernel panic - not syncing: dm-verity device corrupted`); err != nil {
		t.Fatal(err)
	}
	if err := m.WaitBoot(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
}

// TestMalformedConfig gives a machine a config with a misspelt key, then one that names a server which is not there, and then another
// mistake, at full depth each of them: it says so on its console, gives its journal to the host, shows no secret, and starts nothing else. Its address comes
// from the kernel command line. With a config that is right it shows the host its ssh host key (at full depth in the next boot, too).
func TestMalformedConfig(t *testing.T) {
	s := begin(t, 5)
	image, key := s.image("1.0.0", ""), must(vm.NewKey())(t)
	m := s.start(vm.Config{
		Name: "malformed", Dir: filepath.Join(s.dir, "malformed"), Disk: image.Disk(), VirtioPorts: true, Key: key,
		Disks:      []vm.EmptyDisk{{Name: "small", Size: smallDisk}},
		KernelArgs: []string{"ip=10.0.2.77::" + vm.HostAddress + ":255.255.255.0:::none"},
		Ignition:   []byte("{\"ignition\":{\"version\":\"3.4.0\"},\n\"storage\":{\"filez\":[{\"path\":\"/etc/x\"}]}}\n"),
	})
	notProvisioned(t, m, 0, `path: +storage\.filez`, `line: +2\b`, `problem: +unknown key`, `expected: +one of directories, disks, files,`, `found: +"filez"`, `next step: +did you mean "files"\?`)
	configured := func(config []byte) {
		t.Helper()
		check(t, m.PowerCut())
		check(t, m.Configure(config))
		m.Console().SkipToEnd()
		check(t, m.PowerOn())
	}
	again := func(config []byte, lines ...string) {
		t.Helper()
		from := len(m.Console().Lines(0))
		configured(config)
		notProvisioned(t, m, from, lines...)
	}
	// Nobody listens on that port of the host: the connection is refused, again and again.
	again(fmt.Appendf(nil, `{"ignition":{"version":"3.4.0","timeouts":{"httpTotal":15},
"config":{"merge":[{"source":"http://user:hunter2@%s:1/c.ign?token=hunter2"}]}},
"passwd":{"users":[{"name":"core","passwordHash":"$6$hunter2"}]}}`, vm.HostAddress),
		`path: +ignition\.config\.merge\[0\]\.source`, `line: +2\b`, `gave up after 15s: no answer`,
		`expected: +an answer from `+regexp.QuoteMeta(vm.HostAddress)+`:1\b`, `found: +.*connection refused`, `next step: +check the address, the server and the network`)
	journal := must(m.Journal())(t) // before the unit of the screen had finished
	for _, want := range []string{"no answer, trying again", "waiting for the network", `"_SYSTEMD_UNIT":"ignition.service"`, "Finished systemd-network-generator.service"} {
		if !strings.Contains(journal, want) {
			t.Errorf("the journal on the host has no %s", want)
		}
	}
	if strings.Contains(journal, "DHCPv4 address") {
		t.Error("it asked for an address, although it was given one")
	}
	found := mistakes(t)
	if !fullDepth() { // the others are unit tests'
		found = found[len(found)-1:]
	}
	for _, mistake := range found {
		again([]byte("{\"ignition\":{\"version\":\"3.4.0\"},\n\"storage\":{"+mistake.storage+"}}\n"), mistake.screen...)
		journal += must(m.Journal())(t)
	}
	for _, l := range m.Console().Lines(0) {
		if strings.Contains(l.Text, "hunter2") {
			t.Errorf("a secret is on the console: %s", l.Text)
		}
	}
	if strings.Contains(journal, "hunter2") {
		t.Error("a secret is in the journal")
	}

	// A file that is fetched needs the network, and with it udev, which finds the port long before there is a key. The address that is forwarded is DHCP's.
	web := filepath.Join(s.dir, "web")
	check(t, os.Mkdir(web, 0o755))
	check(t, os.WriteFile(filepath.Join(web, "word"), []byte("right"), 0o644))
	configured(must(provision.New().SSHKey("root", key.AuthorizedKey()).File("/etc/systemd/network/10-lab.network", 0o644, "[Match]\nName=e*\n[Network]\nDHCP=yes\n").
		Include(fmt.Sprintf(`{"ignition":{"version":"3.4.0"},"storage":{"files":[{"path":"/var/srv/word","contents":{"source":"%sword"}}]}}`, s.web(web).GuestURL())).JSON())(t))
	showsHostKey(t, m)
	if fullDepth() {
		check(t, m.PowerCycle(t.Context()))
		showsHostKey(t, m)
	}
	m.AssertClean(t, vm.Allow(`ignition\.service: Failed|Apply the Config|Provision This Machine`, "mistakes of configs"))
}

// showsHostKey waits for a machine to which nobody can log in before it has said which host key it has, and compares what it says with what it has.
func showsHostKey(t *testing.T, m *vm.Machine) {
	t.Helper()
	up(t, m)
	if got, want := must(m.HostKeys())(t), run(t, m, "cat /var/srv/word /etc/ssh/ssh_host_*.pub"); !strings.HasPrefix("right"+got, want+"\n") {
		t.Errorf("the machine shows %q, and has %q", got, want)
	}
}

// smallDisk is the size of a disk on which not all of a file has room, in bytes.
const smallDisk = 16 << 20

// A mistake is what a config says of storage in its second line, and what the machine says to that, in this order.
type mistake struct {
	storage string
	screen  []string
}

// mistakes are those that only a machine finds, but for the first.
func mistakes(t *testing.T) []mistake {
	t.Helper()
	var big bytes.Buffer
	z := gzip.NewWriter(&big)
	must(z.Write(make([]byte, 2*smallDisk)))(t)
	check(t, z.Close())
	wrong := strings.Repeat("0", 64)
	return []mistake{
		{`"files":[{"path":"/etc/x","mode":"0644"}]`,
			[]string{`path: +storage\.files\[0\]\.mode`, `line: +2, column 45\b`, `problem: +wrong type`, `expected: +an integer`, `found: +a string, "0644"`, `next step: +write 420`}},
		{`"files":[{"path":"/etc/x","contents":{"source":"data:,hunter2","verification":{"hash":"sha256-` + wrong + `"}}}]`,
			[]string{`path: +storage\.files\[0\]\.path`, `line: +2\b`, `problem: +write file /etc/x: wrong hash`, `expected: +` + wrong, `found: +` + digest.Of([]byte("hunter2")).String(), `next step: +correct the hash`}},
		{`"files":[{"path":"/etc/x","user":{"name":"adda"},"contents":{"source":"data:,hunter2"}}]`,
			[]string{`path: +storage\.files\[0\]\.path`, `line: +2\b`, `problem: +write file /etc/x: unknown user`, `expected: +a user of /etc/passwd or of passwd\.users`, `found: +adda`, `next step: +add it to passwd\.users`}},
		{`"filesystems":[{"device":"/dev/disk/by-id/virtio-small","format":"ext4","path":"/var/small"}],"files":[{"path":"/var/small/big","contents":{"compression":"gzip","source":"` + dataurl.EncodeBytes(big.Bytes()) + `"}}]`,
			[]string{`path: +storage\.files\[0\]\.path`, `line: +2\b`, `problem: +write file /var/small/big: the file system is full`, fmt.Sprintf(`expected: +room for %d bytes`, 2*smallDisk), `found: +\d+ bytes missing`, `next step: +make room or use a larger disk`}},
	}
}

// notProvisioned waits for the screen of a machine that could not be provisioned, with lines on it, and fails if anything else was started
// since a line of the console.
func notProvisioned(t *testing.T, m *vm.Machine, from int, lines ...string) {
	t.Helper()
	for _, want := range append([]string{"THIS MACHINE COULD NOT BE PROVISIONED", `config: +fw_cfg opt/com\.coreos/config`}, append(lines, `Finished .*Could Not Be Provisioned`)...) {
		must(m.WaitConsole(t.Context(), want))(t)
	}
	for _, l := range m.Console().Lines(from) {
		for _, unit := range []string{"ssh.service", "getty", "multi-user.target"} {
			if strings.Contains(l.Text, unit) && strings.Contains(l.Text, "OK") {
				t.Errorf("started although not provisioned: %s", l.Text)
			}
		}
	}
}

// damaged is where damage leaves the disk and bootDamaged takes it.
func (s *story) damaged() string { return filepath.Join(s.dir, "damaged.img") }

// damage copies the image's disk and lets change work on it.
func (s *story) damage(image world.Image, change func(*world.Disk) error) {
	s.t.Helper()
	if err := vm.CopySparse(s.damaged(), image.Disk(), 0); err != nil {
		s.t.Fatal(err)
	}
	d, err := world.OpenDisk(s.damaged())
	if err != nil {
		s.t.Fatal(err)
	}
	defer d.Close()
	if err := change(d); err != nil {
		s.t.Fatal(err)
	}
}

func (s *story) bootDamaged(name string) *vm.Machine {
	s.t.Helper()
	m := s.machineFrom(name, s.damaged(), provision.New())
	if err := os.Remove(s.damaged()); err != nil {
		s.t.Fatal(err)
	}
	return m
}
