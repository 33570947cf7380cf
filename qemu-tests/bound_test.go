package qemutests

import (
	"crypto/elliptic"
	"fmt"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/proa-os/proa/ignition/tang/tangtest"
	"github.com/proa-os/proa/qemu-tests/provision"
	"github.com/proa-os/proa/qemu-tests/vm"
)

// TestBound has a machine make a volume that its TPM and a server on the network open together, one that either of them opens, and data.bu of the
// documentation, whose volume the TPM opens. All open by themselves at the first start. At full depth it starts again without the server: the others
// open, the boot does not wait for the first, and that opens when the server is there again.
func TestBound(t *testing.T) {
	s := begin(t, 4)
	b := newBound(t)
	m := s.machineFrom("bound", s.image("1.0.0", "").Disk(), provision.New().Hostname("bound").Include(b.config()).Include(s.documented("data.bu")), func(c *vm.Config) {
		c.TPM = true
		c.Disks = []vm.EmptyDisk{{Name: "a", Size: 64 << 20}, {Name: "b", Size: 64 << 20}, // the first ones, as the example has them
			{Name: "bound", Size: 64 << 20}, {Name: "either", Size: 64 << 20}}
	})
	step(t, m, "provisioned", func(t *testing.T) { up(t, m); b.isThere(t, m) }, watched)
	if !fullDepth() {
		return
	}
	b.away.Store(true)
	check(t, m.PowerCut())
	m.Console().SkipToEnd()
	check(t, m.PowerOn())
	step(t, m, "without the server", func(t *testing.T) { b.comesBack(t, m) }, withoutServer)
	step(t, m, "again", func(t *testing.T) { up(t, m); b.isThere(t, m) }, withoutServer)
}

// bound is a volume that the machine's TPM and a server open together. The server can be away.
type bound struct {
	*tangtest.Server
	url  string // as the machine sees it
	away atomic.Bool
}

func newBound(t *testing.T) *bound {
	t.Helper()
	b := new(bound)
	b.Server = must(tangtest.New(elliptic.P521()))(t)
	l := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	b.url = fmt.Sprintf("http://%s:%d", vm.HostAddress, l.Addr().(*net.TCPAddr).Port)
	s := &http.Server{Handler: b.handler(), ReadHeaderTimeout: time.Minute}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { s.Close() })
	return b
}

func (b *bound) handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if b.away.Load() {
			http.Error(w, "the story has taken this server down", http.StatusServiceUnavailable)
			return
		}
		b.ServeHTTP(w, r)
	})
}

// config has the volume on a disk called bound. The machine gives up asking after half a minute, so that the story is short.
func (b *bound) config() string {
	return fmt.Sprintf(`variant: proa
version: 1.0.0
storage:
  luks:
    - name: bound
      device: /dev/disk/by-id/virtio-bound
      wipe_volume: true
      options: [--pbkdf, pbkdf2, --pbkdf-force-iterations, "1000"] # as in disksConfig
      clevis:
        tpm2: true
        threshold: 2
        tang: [{url: %[1]q, thumbprint: %[2]s}]
    - name: either
      device: /dev/disk/by-id/virtio-either
      options: [--pbkdf, pbkdf2, --pbkdf-force-iterations, "1000"]
      clevis:
        custom:
          pin: sss
          config: '{"t": 1, "pins": {"tpm2": {}, "tang": {"url": %[1]q, "thp": %[2]q}}}'
  filesystems:
    - {device: /dev/mapper/bound, format: ext4, path: /var/lib/bound, with_mount_unit: true}
    - {device: /dev/mapper/either, format: ext4, path: /var/lib/either, with_mount_unit: true}
  files:
    - path: /var/lib/either/word
      contents: {inline: kept by one}
    - path: /var/lib/bound/word
      contents: {inline: kept by two}
systemd:
  units:
    - name: clevis@.service
      dropins: [{name: short.conf, contents: "[Service]\nExecStart=\nExecStart=/usr/bin/ignition clevis answer 30\n"}]
`, b.url, b.Thumbprint())
}

// isThere looks at the volume and at what opens it.
func (b *bound) isThere(t *testing.T, m *vm.Machine) {
	t.Helper()
	wants := map[string]string{
		"cat /var/lib/bound/word": "kept by two",
		"grep -c '^bound UUID=.* /run/clevis/bound.sock luks,headless=1,_netdev$' /etc/crypttab":      "1",
		"ignition clevis list /dev/disk/by-id/virtio-bound | grep -cF '2 of (tang \"" + b.url + "\"'": "1",
		"cryptsetup luksDump /dev/disk/by-id/virtio-bound | grep -cE '^  [0-9]+: (luks2|clevis)$'":    "2", // one key slot, one token
	}
	maps.Copy(wants, b.others())
	prints(t, m, wants)
}

// others are commands about the volumes that open without the server, and what they print.
func (b *bound) others() map[string]string {
	return map[string]string{
		"cat /var/lib/either/word":                            "kept by one",
		"findmnt -n -o FSTYPE,SOURCE /var/lib/either | xargs": "ext4 /dev/mapper/either",
		"ignition clevis list /dev/disk/by-id/virtio-either | grep -c ': 1 of (tang \"" + b.url + "\" key .*, \"tpm2\")$'": "1",
		"findmnt -n -o FSTYPE,SOURCE,LABEL /var/lib/data | xargs":                                                          "ext4 /dev/mapper/data data",
		"mdadm --detail /dev/md/data | grep -cE 'active sync +/dev/vd[bc]1$'":                                              "2",
		"mdadm --detail /dev/md/data | sed -n 's/.*Raid Level : //p'":                                                      "raid1",
		"cryptsetup luksDump /dev/md/data | grep -cE 'systemd-tpm2|^  [0-9]: luks2'":                                       "2",
	}
}

// prints runs commands that print one thing each.
func prints(t *testing.T, m *vm.Machine, wants map[string]string) {
	t.Helper()
	for command, want := range wants {
		if got, err := m.Run(t.Context(), "root", command); err != nil || strings.TrimSpace(got) != want {
			t.Errorf("%s: got %q, %v, want %q", command, got, err, want)
		}
	}
}

// comesBack is a boot without the server: the machine comes up and says who does not answer, and mounts the volume when the server is there again.
func (b *bound) comesBack(t *testing.T, m *vm.Machine) {
	t.Helper()
	if out, err := m.Run(t.Context(), "root", "systemctl is-system-running --wait"); strings.TrimSpace(out) != "degraded" {
		t.Errorf("without the server the machine is %q, %v", out, err)
	}
	if got := run(t, m, "systemctl is-active multi-user.target; findmnt -n /var/lib/bound || echo not mounted"); got != "active\nnot mounted" {
		t.Errorf("without the server: %s", got)
	}
	prints(t, m, b.others())
	if got := run(t, m, "journalctl -b -o cat -u clevis@bound.service"); !strings.Contains(got, "tang server "+b.url+", key ") || !strings.Contains(got, "503") || !strings.Contains(got, "gave up after 30s") {
		t.Errorf("the journal does not say who did not answer: %s", got)
	}
	if got := run(t, m, "systemctl show -P User -P DynamicUser clevis@bound.service; ls -l /run/clevis/bound.sock | cut -c1-10"); !strings.HasSuffix(got, "yes\nsrw-------") {
		t.Errorf("who asks: %s", got)
	}
	b.away.Store(false)
	waitUntil(t, func() bool {
		time.Sleep(time.Second)
		out, err := m.Run(t.Context(), "root", "cat /var/lib/bound/word")
		return err == nil && out == "kept by two"
	})
}

// withoutServer is what such a boot leaves in the journal.
var withoutServer = vm.Allow(`clevis[@/]bound|/(dev/mapper|var/lib)/bound|systemd-cryptsetup@bound|Cryptography Setup for bound|var-lib-bound|dev-mapper-bound|remote-fs\.target|remote-crypt[a-z….]*target|tang server|Password querying disabled`,
	"the story has taken the server down")
