package provision

import (
	"testing"

	"github.com/coreos/ignition/v2/config/v3_6"
	"github.com/vincent-petithory/dataurl"
)

const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHNjaG9vbCBvZiBmaXNoIGluIHRoZSBzZWEgMTIzNDU2 lab"

func TestJSON(t *testing.T) {
	got, err := New().SSHKey("core", key).SSHKey("root", key).Hostname("proa-1").
		Unit("a.service", true, "[Service]\nExecStart=/bin/true\n").JSON()
	if err != nil {
		t.Fatal(err)
	}
	want := `{
  "ignition": {
    "version": "3.6.0"
  },
  "passwd": {
    "users": [
      {
        "name": "core",
        "sshAuthorizedKeys": [
          "` + key + `"
        ]
      },
      {
        "name": "root",
        "sshAuthorizedKeys": [
          "` + key + `"
        ]
      }
    ]
  },
  "storage": {
    "files": [
      {
        "contents": {
          "source": "data:text/plain;charset=utf-8;base64,cHJvYS0xCg=="
        },
        "mode": 420,
        "overwrite": true,
        "path": "/etc/hostname"
      }
    ]
  },
  "systemd": {
    "units": [
      {
        "contents": "[Service]\nExecStart=/bin/true\n",
        "enabled": true,
        "name": "a.service"
      }
    ]
  }
}
`
	if string(got) != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

func TestJSONIsValidated(t *testing.T) {
	for name, c := range map[string]*Config{
		"relative path": New().File("etc/hostname", 0o644, ""),
		"unit name":     New().Unit("a.nonsense", true, ""),
	} {
		if b, err := c.JSON(); err == nil {
			t.Errorf("%s: got %s, want an error", name, b)
		}
	}
}

// What a machine merges is a config of its own, in the words of whoever wrote it.
func TestInclude(t *testing.T) {
	const theirs = "variant: proa\nversion: 1.0.0\nhostname: theirs\n"
	b, err := New().SSHKey("core", key).SSHKey("core", key+"-2").Hostname("ours").Include(theirs).JSON()
	if err != nil {
		t.Fatal(err)
	}
	got, _, err := v3_6.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Passwd.Users) != 1 || len(got.Passwd.Users[0].SSHAuthorizedKeys) != 2 {
		t.Errorf("got users %+v, want core with both keys", got.Passwd.Users)
	}
	if m := got.Ignition.Config.Merge; len(m) != 1 || *m[0].Source != dataurl.EncodeBytes([]byte(theirs)) {
		t.Errorf("got merge %+v, want their text", m)
	}
}
