package provision

import (
	"strings"
	"testing"

	"github.com/coreos/ignition/v2/config/v3_6"
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

func TestMerge(t *testing.T) {
	c := New().SSHKey("core", key).Hostname("ours")
	err := c.Merge([]byte(`{"ignition":{"version":"3.2.0"},
		"passwd":{"users":[{"name":"core","sshAuthorizedKeys":["` + strings.Replace(key, "lab", "theirs", 1) + `"]}]},
		"storage":{"files":[{"path":"/etc/hostname","contents":{"source":"data:,theirs"}}]}}`))
	if err != nil {
		t.Fatal(err)
	}
	b, err := c.JSON()
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
	if len(got.Storage.Files) != 1 || *got.Storage.Files[0].Contents.Source != "data:,theirs" {
		t.Errorf("got files %+v, want their host name", got.Storage.Files)
	}
	if err := c.Merge([]byte(`{"ignition":{"version":"2.0.0"}}`)); err == nil {
		t.Error("got no error for a config of spec 2")
	}
}
