package plan

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/coreos/ignition/v2/config/v3_6/types"

	"github.com/proa-os/proa/ignition/config"
)

func load(t *testing.T, text string) *config.Merged {
	t.Helper()
	m, err := config.Load(t.Context(), "c.ign", []byte(text), func(context.Context, types.Resource, types.Config) ([]byte, error) {
		return nil, fmt.Errorf("no network here")
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// The order is what configs rely on; the text is what `ignition plan` prints.
func TestOrder(t *testing.T) {
	ops, err := Build(load(t, `{"ignition":{"version":"3.6.0"},
 "systemd":{"units":[
  {"name":"b.service","enabled":true,"contents":"[Install]\nWantedBy=x.target\n"},
  {"name":"a@1.service","enabled":false},
  {"name":"c.service","mask":true,"enabled":true,"contents":"[Service]\n"},
  {"name":"d.service","mask":false,"dropins":[{"name":"x.conf","contents":"[Unit]\n"}]}]},
 "storage":{
  "links":[{"path":"/h","target":"/a/b/c/f","hard":true},{"path":"/a/l","target":"x"}],
  "files":[{"path":"/a/b/c/f"},{"path":"/z"}],
  "directories":[{"path":"/a/b"},{"path":"/"}]},
 "passwd":{"users":[{"name":"u","sshAuthorizedKeys":["k1","k2\n"]},{"name":"v","shouldExist":false}],"groups":[{"name":"g"},{"name":"old","shouldExist":false}]}}`))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"ensure group g", "remove group old", "ensure user u", "remove user v", "write 2 ssh keys of user u",
		"make directory /", "write file /z", "make directory /a/b", "make link /a/l -> x", "write file /a/b/c/f", "make link /h -> /a/b/c/f",
		"write file /etc/systemd/system/b.service", "make link /etc/systemd/system/c.service -> /dev/null",
		"write file /etc/systemd/system/d.service.d/x.conf", "unmask unit d.service",
		"enable unit b.service", "disable unit a@1.service", "write file /etc/systemd/system-preset/20-ignition.preset",
	}
	got := make([]string, len(ops))
	for n, op := range ops {
		got[n] = op.String()
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if text := *ops[len(ops)-1].(File).Text; text != "disable a@.service 1\nenable b.service\n" {
		t.Errorf("preset: got %q", text)
	}
	if keys := ops[4].(Keys).Keys; keys[1] != "k2" {
		t.Errorf("keys: got %q", keys)
	}
}

func TestRefusals(t *testing.T) {
	tests := []struct{ name, config, want string }{
		{"unit in another directory", `"systemd":{"units":[{"name":"../../x.service","contents":"[Unit]\n"}]}`, `c.ign:1:61: systemd.units[0].name: invalid unit name: expected a name without slashes and spaces, found "../../x.service"; write what is expected, or remove it from the config`},
		{"unit name that goes on, with a secret", `"systemd":{"units":[{"name":"a.service [Service] Environment=K=hunter2.service"}]}`, `c.ign:1:61: systemd.units[0].name: invalid unit name: expected a name without slashes and spaces, found one with spaces; write what is expected, or remove it from the config`},
		{"drop-in in another directory", `"systemd":{"units":[{"name":"a.service","dropins":[{"name":"../x.conf","contents":""}]}]}`, `c.ign:1:92: systemd.units[0].dropins[0].name: invalid drop-in name: expected a name without slashes, found "../x.conf"; write what is expected, or remove it from the config`},
		{"user name", `"passwd":{"users":[{"name":"a:b"}]}`, `c.ign:1:60: passwd.users[0].name: invalid user or group name: expected 1 to 32 letters, digits, _, - and ., beginning with a letter or _, found "a:b"; write what is expected, or remove it from the config`},
		{"second line in passwd", `"passwd":{"users":[{"name":"a","gecos":"x\nroot2::0:0"}]}`, `c.ign:1:52: passwd.users[0]: invalid value: expected no colon and no line break in any field of passwd, found one; write what is expected, or remove it from the config`},
		{"second key", `"passwd":{"users":[{"name":"a","sshAuthorizedKeys":["k\nl"]}]}`, `c.ign:1:85: passwd.users[0].sshAuthorizedKeys[0]: invalid ssh key: expected one line, found several lines; write what is expected, or remove it from the config`},
		{"overwrite /etc", `"storage":{"directories":[{"path":"/etc","overwrite":true}]}`, `c.ign:1:67: storage.directories[0].path: refuse to overwrite a top directory: expected a path with at least two names, found /etc; write what is expected, or remove it from the config`},
		{"/var with another file system", `"storage":{"filesystems":[{"device":"/dev/vdb","format":"xfs","path":"/var"}]}`, `c.ign:1:89: storage.filesystems[0].format: cannot put this file system at /var: expected ext4, found "xfs"; write what is expected, or remove it from the config`},
		{"a unit for /var", `"storage":{"filesystems":[{"device":"/dev/vdb","format":"ext4","path":"/var"}]},"systemd":{"units":[{"name":"var.mount"}]}`, `c.ign:1:141: systemd.units[0].name: cannot mount /var by a unit: expected no unit var.mount, and no with_mount_unit: it is mounted before systemd starts, found one; write what is expected, or remove it from the config`},
		{"a file system over /var/lib", `"storage":{"filesystems":[{"device":"/dev/vdb","format":"ext4","path":"/var/lib"}]}`, `c.ign:1:103: storage.filesystems[0].path: cannot put a file system there: expected a path below /var, such as /var/lib/containers, found /var/lib; write what is expected, or remove it from the config`},
		{"a file system in the overlay", `"storage":{"filesystems":[{"device":"/dev/vdb","format":"ext4","path":"/var/lib/etc/upper"}]}`, `c.ign:1:103: storage.filesystems[0].path: cannot put a file system there: expected a path below /var, such as /var/lib/containers, found /var/lib/etc/upper; write what is expected, or remove it from the config`},
		{"a file system over /etc", `"storage":{"filesystems":[{"device":"/dev/vdb","format":"ext4","path":"/etc"}]}`, `c.ign:1:103: storage.filesystems[0].path: cannot put a file system there: expected a path below /var, such as /var/lib/containers, found /etc; write what is expected, or remove it from the config`},
		{"a file over /var", `"storage":{"files":[{"path":"/var","overwrite":true,"contents":{"source":"data:,x"}}]}`, `c.ign:1:61: storage.files[0].path: refuse to overwrite a top directory: expected a path with at least two names, found /var; write what is expected, or remove it from the config`},
		{"a link over /etc", `"storage":{"links":[{"path":"/etc","target":"x","overwrite":true}]}`, `c.ign:1:61: storage.links[0].path: refuse to overwrite a top directory: expected a path with at least two names, found /etc; write what is expected, or remove it from the config`},
		{"owner that is root by overflow", `"storage":{"files":[{"path":"/a/b","user":{"id":4294967296}}]}`, `c.ign:1:81: storage.files[0].user.id: invalid id: expected 0 to 4294967294, found 4294967296; write what is expected, or remove it from the config`},
		{"owner that is no owner", `"storage":{"directories":[{"path":"/a/b","group":{"id":-1}}]}`, `c.ign:1:88: storage.directories[0].group.id: invalid id: expected 0 to 4294967294, found -1; write what is expected, or remove it from the config`},
		{"user id", `"passwd":{"users":[{"name":"a","uid":-1}]}`, `c.ign:1:70: passwd.users[0].uid: invalid id: expected 0 to 4294967294, found -1; write what is expected, or remove it from the config`},
		{"group id", `"passwd":{"groups":[{"name":"a","gid":4294967295}]}`, `c.ign:1:71: passwd.groups[0].gid: invalid id: expected 0 to 4294967294, found 4294967295; write what is expected, or remove it from the config`},
		{"the root as a file", `"storage":{"files":[{"path":"/"}]}`, `c.ign:1:61: storage.files[0].path: not a directory: expected a path below /, found /; write what is expected, or remove it from the config`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Build(load(t, `{"ignition":{"version":"3.6.0"},`+tt.config+`}`))
			if err == nil || err.Error() != tt.want {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
		})
	}
}

// What opens a volume: nothing of ours, one pin, or as many of several as the threshold says.
func TestLocks(t *testing.T) {
	const tang = `{"url":"http://h","thumbprint":"oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U"}`
	for clevis, want := range map[string]string{
		`{}`:                                  "make encrypted volume l on /dev/vdz",
		`{"threshold":1}`:                     "make encrypted volume l on /dev/vdz",
		`{"tpm2":true,"threshold":1}`:         "make encrypted volume l on /dev/vdz, opened by the TPM",
		`{"tang":[` + tang + `]}`:             "make encrypted volume l on /dev/vdz, opened by tang http://h",
		`{"tang":[` + tang + `],"tpm2":true}`: "make encrypted volume l on /dev/vdz, opened by 1 of (tang http://h, the TPM)",
		`{"threshold":2,"tang":[` + tang + `,{"url":"https://g","thumbprint":"oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U","advertisement":"{}"}]}`: "make encrypted volume l on /dev/vdz, opened by 2 of (tang http://h, tang https://g)",
		`{"custom":{"pin":"tpm2","config":"{}"}}`: "make encrypted volume l on /dev/vdz, opened by the TPM",
	} {
		m := load(t, `{"ignition":{"version":"3.6.0"},"storage":{"luks":[{"name":"l","device":"/dev/vdz","clevis":`+clevis+`}]}}`)
		ops, err := Build(m)
		if err != nil || len(ops) != 1 || ops[0].String() != want {
			t.Errorf("%s: got %v, %v", clevis, ops, err)
		}
		_, shown, needs := m.NeedsNetwork()
		if asks := strings.Contains(clevis, "http://h"); needs != asks || asks && shown != "http://h" {
			t.Errorf("%s: needs the network %v: %q", clevis, needs, shown)
		}
	}
	for clevis, want := range map[string]string{
		`{"tang":[` + tang + `],"threshold":2}`:                    "which is 1, found 2",
		`{"tang":[{"url":"http://u:p@h","thumbprint":"x"}]}`:       "expected an url",
		`{"custom":{"pin":"tpm2","config":"{\"pcr_ids\":\"7\"}"}}`: `unknown field "pcr_ids"`,
	} {
		_, err := Build(load(t, `{"ignition":{"version":"3.6.0"},"storage":{"luks":[{"name":"l","device":"/dev/vdz","clevis":`+clevis+`}]}}`))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", clevis, err, want)
		}
	}
}
