package qemutests

import (
	"strings"
	"testing"

	"github.com/proa-os/proa/qemu-tests/provision"
	"github.com/proa-os/proa/qemu-tests/vm"
)

// describedConfig has everything that a config can ask of a tree's accounts and units, and takes away a user and a unit of the image.
const describedConfig = `variant: proa
version: 1.0.0
passwd:
  groups:
    - {name: operators, gid: 2000}
  users:
    - name: ada
      uid: 2001
      gecos: Ada of Operations
      groups: [operators, systemd-journal]
      password_hash: ` + adasHash + `
    - name: core
      should_exist: false
storage:
  files:
    - path: /etc/lab/adas
      mode: 0600
      user: {name: ada}
      group: {name: operators}
      contents: {inline: mine}
    - path: /etc/containers/systemd/later.container
      contents: {inline: "[Container]\nImage=localhost/lab/later:1\n"}
  links:
    - {path: /etc/lab/link, target: greeting}
systemd:
  units:
    - name: systemd-timesyncd.service
      dropins: [{name: 10-lab.conf, contents: "[Service]\nTimeoutStartSec=77s\n"}]
    - {name: getty@tty1.service, mask: true}
    - {name: update-engine.timer, enabled: false} # of the image, where a link enables it
    - name: lab-off.service
      enabled: false
      contents: "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n"
`

const adasHash = "$y$j9T$4KVrfO9wN0xxiYuYbHPn30$3Zx5x3ZyyRmaC1ZBBdsGBMDcJOzgNMhRoGLwHUGhO91"

// described is the config of a machine of whose first boot everything is looked at, and the key with which root and ada log in.
func described(t *testing.T) (*provision.Config, *vm.Key) {
	t.Helper()
	key := must(vm.NewKey())(t)
	return provision.New().
		Hostname("line").
		File("/etc/lab/greeting", 0o640, "good morning\n").
		Unit("greet.service", true, "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/cat /etc/lab/greeting\n[Install]\nWantedBy=multi-user.target\n").
		SSHKey("ada", key.AuthorizedKey()).SSHKey("root", key.AuthorizedKey()).
		Include(describedConfig), key
}

// provisioned looks for all that described asks for.
func provisioned(t *testing.T, m *vm.Machine) {
	t.Helper()
	var commands, wants []string
	for _, c := range []struct{ command, want string }{
		{"cat /proc/sys/kernel/hostname", "line"},
		{"stat -c '%a %U' /etc/lab/greeting", "640 root"},
		{"systemctl is-active greet.service; journalctl -b -q -o cat -u greet.service | grep 'good morning'", "active good morning"},
		{"stat -c '%a %U %G' /etc/lab/adas; readlink /etc/lab/link", "600 ada operators greeting"},
		{"grep ^operators: /etc/group", "operators:x:2000:ada"},
		{"grep ^ada: /etc/passwd", "ada:x:2001:2001:Ada of Operations:/home/ada:/bin/sh"},
		{"grep ^ada: /etc/shadow", "ada:" + adasHash + "::0:99999:7:::"},
		{"id -nG ada | tr ' ' '\\n' | sort", "ada operators systemd-journal"},
		{"stat -c '%a %U' /home/ada", "700 ada"},
		{"id core 2>/dev/null; grep -E '^core:|[:,]core(,|$)' /etc/passwd /etc/shadow /etc/group /etc/gshadow; ls -A /home/core", ""},
		{"systemctl is-enabled getty@tty1.service; systemctl is-active getty@tty1.service", "masked inactive"},
		{"systemctl show -P TimeoutStartUSec -P DropInPaths systemd-timesyncd.service", "1min 17s /etc/systemd/system/systemd-timesyncd.service.d/10-lab.conf"},
		{"systemctl list-unit-files --no-legend greet.service lab-off.service", "greet.service enabled enabled lab-off.service disabled disabled"}, // the last column is the preset
		{"systemctl is-active lab-off.service update-engine.timer", "inactive inactive"},
		{"cat /etc/systemd/system-preset/20-ignition.preset", "disable lab-off.service disable update-engine.timer enable greet.service"},
		{"systemctl show -P LoadState -P SourcePath later.service", "loaded /etc/containers/systemd/later.container"},
		{"ls /var/lib/ignition/provisioned; grep -c provisioningBootID /var/lib/ignition/result.json", "/var/lib/ignition/provisioned 1"},
		{"ignition drift", "nothing differs from what was provisioned"},
	} {
		commands = append(commands, "echo $("+c.command+")") // one for all: a command costs less than to come in
		wants = append(wants, c.want)
	}
	got := strings.Split(run(t, m, strings.Join(commands, "\n")), "\n")
	for n, want := range wants {
		if n >= len(got) || got[n] != want {
			t.Errorf("%s: want %q, got\n%s", commands[n], want, strings.Join(got, "\n"))
		}
	}
	if out, err := m.Run(t.Context(), "ada", "id -un; cat /etc/lab/adas"); err != nil || out != "ada\nmine" {
		t.Errorf("got %q, %v, want ada to log in and to read what is hers", out, err)
	}
}
