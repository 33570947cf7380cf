package config

import (
	"strings"
	"testing"
)

// Errors of a config in Butane YAML name the lines and keys of the YAML.
func TestMalformedYAML(t *testing.T) {
	const head = "variant: proa\nversion: 1.0.0\n"
	tests := []struct{ name, text, want string }{
		{"unknown key", head + "storage:\n  filez: []\n", `c.bu:4:3: storage.filez: unknown key: expected one of directories, disks, files, filesystems, links, luks, raid, found "filez"; did you mean "files"?`},
		{"snake case", head + "passwd:\n  users:\n  - name: core\n    ssh_authorised_keys: []\n", `c.bu:6:5: passwd.users[0].ssh_authorised_keys: unknown key: expected one of gecos, groups, home_dir, name, no_create_home, no_log_init, no_user_group, password_hash, primary_group, shell, should_exist, ssh_authorized_keys, system, uid, found "ssh_authorised_keys"; did you mean "ssh_authorized_keys"?`},
		{"JSON's name", head + "passwd:\n  users:\n  - name: core\n    sshAuthorizedKeys: []\n", `found "sshAuthorizedKeys"; did you mean "ssh_authorized_keys"?`},
		{"wrong type", head + "storage:\n  files:\n  - path: /a\n    mode: rw\n", "c.bu:6:11: storage.files[0].mode: wrong type: expected an integer, found a string, \"rw\"; write its digits, without quotes and without a point"},
		{"relative path", head + "storage:\n  files:\n  - path: a\n", `c.bu:5:11: storage.files[0].path: path not absolute: expected a path that begins with /, found "a"; correct it there; ignition check tells whether it is right`},
		{"syntax", head + "storage:\n  files: [\n", "c.bu:5:1: invalid YAML: expected ], found the end; correct it there; ignition check tells whether it is right"},
		{"secret", head + "passwd:\n  users:\n  - name: core\n    password_hash: [hunter2]\n", "c.bu:6:20: passwd.users[0].password_hash: wrong type: expected a string, found a list; write one value, in quotes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Load(t.Context(), "c.bu", []byte(tt.text), dataOnly)
			if err == nil || err.Error() != tt.want && !(tt.name == "JSON's name" && strings.HasSuffix(err.Error(), tt.want)) {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
		})
	}
}

// YAML merges JSON and the other way round; places are those of the files that people wrote.
func TestYAMLMerges(t *testing.T) {
	child := "variant: fcos\nversion: 1.5.0\nstorage:\n  files:\n  - path: /b\n    mode: 0600\n"
	parent := `{"ignition":{"version":"3.4.0","config":{"merge":[{"source":"` + dataURL(child) + `"}]}}}`
	m, err := Load(t.Context(), "p.ign", []byte(parent), dataOnly)
	if err != nil {
		t.Fatal(err)
	}
	if f := m.Config.Storage.Files; len(f) != 1 || *f[0].Mode != 0o600 {
		t.Errorf("got %+v", f)
	}
	if got := m.Place("storage.files[0].mode").String(); got != "ignition.config.merge[0] of p.ign:6:11: storage.files[0].mode" {
		t.Errorf("got %s", got)
	}
}
