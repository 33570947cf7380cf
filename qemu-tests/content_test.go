package qemutests

import (
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/proa-os/proa/image-builder/manifest"
	"github.com/proa-os/proa/qemu-tests/vm"
)

// TestContent looks at what runs on a machine and what it shows to others: its identity, its files' modes, who listens, the memory
// it takes, how its operator becomes root.
func TestContent(t *testing.T) {
	s := begin(t, 5)
	m := s.goOn("content")
	first := madeItself(t, m)
	step(t, m, "drivers for what is there", func(t *testing.T) {
		if got := run(t, m, "cut -d' ' -f1 /proc/modules | grep -xE 'virtio_blk|nvme|mpt3sas|megaraid_sas|hv_vmbus|usb_storage|xen_blkfront'"); got != "virtio_blk" {
			t.Errorf("got drivers %q, want virtio_blk alone", got)
		}
	})
	step(t, m, "the root image is read-only, without setuid and setgid files", func(t *testing.T) {
		if out, err := m.Run(t.Context(), "root", "touch /usr/written"); err == nil {
			t.Errorf("/usr can be written: %s", out)
		}
		if out := run(t, m, `find / -xdev \( -perm -4000 -o -perm -2000 \) -not -type d`); out != "" {
			t.Errorf("setuid or setgid files in the root image:\n%s", out)
		}
		// State is mounted nosuid; /etc lies on it.
		if out := run(t, m, `find /etc /var -xdev \( -perm -4000 -o -perm -2000 \) -not -type d`); out != "" {
			t.Errorf("setuid or setgid files in state:\n%s", out)
		}
	})
	step(t, m, "only sshd listens", func(t *testing.T) { onlySSHListens(t, m) })
	step(t, m, "core becomes root by run0", func(t *testing.T) {
		out, err := m.Run(t.Context(), "core", "run0 --pipe id -u </dev/null")
		if err != nil || strings.TrimSpace(out) != "0" {
			t.Errorf("run0 id -u: got %q, %v, want 0", out, err)
		}
		if out, err := m.Run(t.Context(), "core", "cat /etc/shadow"); err == nil {
			t.Errorf("core reads /etc/shadow without run0: %q", out)
		}
	})
	step(t, m, "accounts are the image's", func(t *testing.T) {
		if got := accountsRun(t, m); got != "no" {
			t.Errorf("systemd-sysusers: got ConditionResult %q, want no: there is nothing to add", got)
		}
		// As if an older release had written /etc, before proa-fetch was there, and somebody had made a user.
		run(t, m, "cd /etc && sed -i /^proa-fetch:/d passwd group shadow gshadow && echo bob:x:1001:100::/var/home/bob:/bin/sh >>passwd")
	})
	before := strings.Split(run(t, m, "cat /etc/passwd"), "\n")
	step(t, m, "a restart keeps the identity, and adds the image's new accounts", func(t *testing.T) {
		if err := m.Reboot(t.Context()); err != nil {
			t.Fatal(err)
		}
		up(t, m)
		if got := madeItself(t, m); !slices.Equal(got, first) {
			t.Errorf("got identity %q, had %q", got, first)
		}
		if got := accountsRun(t, m); got != "yes" {
			t.Errorf("systemd-sysusers: got ConditionResult %q, want yes", got)
		}
		after := strings.Split(run(t, m, "cat /etc/passwd"), "\n")
		for _, line := range before {
			if !slices.Contains(after, line) {
				t.Errorf("systemd-sysusers has changed %q", line)
			}
		}
		if got := run(t, m, "id proa-fetch && grep -c ^proa-fetch: /etc/passwd /etc/group /etc/shadow /etc/gshadow"); got !=
			"uid=990(proa-fetch) gid=990(proa-fetch) groups=990(proa-fetch)\n/etc/passwd:1\n/etc/group:1\n/etc/shadow:1\n/etc/gshadow:1" {
			t.Errorf("the image's account is not there with its number: got %q", got)
		}
	})
	step(t, m, "memory", func(t *testing.T) { idleMemory(t, s, m) })
	t.Run("what is wrong is found", func(t *testing.T) { unclean(t, m) })
}

// accountsRun says whether this boot had to look for missing accounts.
func accountsRun(t *testing.T, m *vm.Machine) string {
	t.Helper()
	return run(t, m, "systemctl show -P ConditionResult systemd-sysusers.service")
}

// TestImageBudget has a build print what it holds against the manifest's budgets; compressed, by the lowest level of zstd that shows it.
func TestImageBudget(t *testing.T) {
	s := begin(t)
	var table strings.Builder
	if _, err := s.programs.Run(t.Context(), &table, "image-builder/cmd/image-builder", "build", "--version", "1.0.0", "--no-qcow2", "--out", filepath.Join(s.dir, "built")); err != nil {
		t.Fatal(err)
	}
	t.Log("\n" + table.String())
	for _, want := range []string{"root image ", "root image, zstd -", "boot program ", "packages ", "setuid and setgid files "} {
		if !strings.Contains(table.String(), "\n  "+want) {
			t.Errorf("the build prints no budget of %q", want)
		}
	}
}

// madeItself is what a machine makes for itself on its first boot: machine id and public host key.
func madeItself(t *testing.T, m *vm.Machine) []string {
	t.Helper()
	id := run(t, m, "cat /etc/machine-id")
	if len(id) != 32 || strings.Trim(id, "0123456789abcdef") != "" {
		t.Errorf("machine id %q: want 32 hexadecimal digits", id)
	}
	return []string{id, run(t, m, "cat /etc/ssh/ssh_host_ed25519_key.pub")}
}

// idleMemory compares what a machine takes after its boot with the manifest's budget: what is neither free nor a cache that the kernel
// drops when somebody wants the memory, as free(1) counts. MemAvailable would not do: it also leaves out the free memory that the
// kernel keeps in reserve for huge pages, which is 67 MB of a machine with 1 GiB and serves whoever asks for one.
func idleMemory(t *testing.T, s *story, m *vm.Machine) {
	t.Helper()
	mf, err := manifest.Read(filepath.Join(s.repo, "manifests/image.toml"))
	if err != nil {
		t.Fatal(err)
	}
	// What only the boot needed goes within the minute: udev's workers, programs that D-Bus started.
	run(t, m, "udevadm settle; sleep 60")
	memory := map[string]int64{} // bytes
	for line := range strings.Lines(run(t, m, "cat /proc/meminfo")) {
		if f := strings.Fields(line); len(f) == 3 && f[2] == "kB" {
			kib, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			memory[strings.TrimSuffix(f[0], ":")] = kib << 10
		}
	}
	caches := memory["Buffers"] + memory["Cached"] + memory["SReclaimable"] - memory["Shmem"]
	used, budget := memory["MemTotal"]-memory["MemFree"]-caches, int64(mf.Budget.IdleMemory)
	t.Logf("idle memory: %.1f MB of %.1f MB in use, budget %.1f MB; %.1f MB in caches", float64(used)/1e6, float64(memory["MemTotal"])/1e6,
		float64(budget)/1e6, float64(caches)/1e6)
	if memory["MemFree"] == 0 || memory["Cached"] == 0 || used > budget {
		t.Errorf("got %d bytes in use when idle, the budget is %d; the largest:\n%s", used, budget,
			run(t, m, "cat /proc/meminfo; ps -o rss,comm | sort -rn | head -20; sort -k2 -rn /proc/modules | head -30; systemctl list-units --type=service --state=running --no-legend --plain"))
	}
}

// onlySSHListens fails for every socket on a network address that would take a stranger's packet, but sshd's.
func onlySSHListens(t *testing.T, m *vm.Machine) {
	t.Helper()
	known := map[string]string{
		"tcp *:22":       "sshd", // ssh.service on both families is one socket
		"tcp 0.0.0.0:22": "sshd",
		"tcp [::]:22":    "sshd",
		// The DHCP clients' own sockets (RFC 2131, RFC 8415): they take answers to what networkd asked, on the interface that asked.
		"udp DHCPv4": "systemd-network",
		"udp DHCPv6": "systemd-network",
		// The time client's own socket, while it waits for an answer of the server that it asked.
		"udp NTP": "systemd-timesyn",
	}
	seen := map[string]bool{}
	for line := range strings.Lines(run(t, m, "ss -Hlntup")) {
		f := strings.Fields(line)
		if len(f) < 5 {
			t.Fatalf("cannot read %q of ss", line)
		}
		protocol, address := f[0], f[4]
		host, port := address[:strings.LastIndexByte(address, ':')], address[strings.LastIndexByte(address, ':')+1:]
		host, _, _ = strings.Cut(host, "%") // the interface
		if strings.HasPrefix(host, "127.") || host == "[::1]" {
			continue
		}
		key := protocol + " " + host + ":" + port
		switch {
		case protocol == "udp" && port == "68" && host != "0.0.0.0" && !strings.HasPrefix(host, "["):
			key = "udp DHCPv4"
		case protocol == "udp" && port == "546" && strings.HasPrefix(host, "[fe80:"):
			key = "udp DHCPv6"
		case protocol == "udp" && strings.Contains(line, `"systemd-timesyn`):
			key = "udp NTP"
		}
		if who, ok := known[key]; !ok || !strings.Contains(line, `"`+who) {
			t.Errorf("somebody listens on the network: %s", strings.TrimSpace(line))
		}
		seen[key] = true
	}
	if !seen["tcp 0.0.0.0:22"] && !seen["tcp *:22"] {
		t.Errorf("sshd is not among the listeners, so ss does not show them: %v", seen)
	}
}
