package manifest

import (
	"strings"
	"testing"
)

const minimal = `[packages]
arch = "amd64"
suites = ["trixie"]
include = ["systemd"]
`

func TestParse(t *testing.T) {
	m, err := Parse([]byte(minimal + "[[tree.mode]]\npath = \"etc/shadow\"\nmode = \"0640\"\ngid = 42\n"))
	if err != nil {
		t.Fatal(err)
	}
	if p, err := m.Tree.Modes[0].Perm(); err != nil || p != 0o640 {
		t.Errorf("mode: got %o, %v", p, err)
	}
	if m.Sum.IsZero() {
		t.Error("no sum")
	}
}

func TestParseRefuses(t *testing.T) {
	for _, tt := range []struct{ name, add, want string }{
		{"unknown key", "[kernel]\ndropp = []\n", `unknown key "kernel.dropp"`},
		{"syntax", "[kernel\n", "line 6"},
		{"our keys", "[boot]\ncommand_line = \"proa.roothash=1\"\n", "written by the builder"},
		{"mode", "[[tree.mode]]\npath = \"x\"\nmode = \"rw\"\n", "octal"},
		{"foreign program", "[programs]\n\"usr/bin/x\" = \"example.com/x\"\n", "package of this module"},
		{"absolute pattern", "[tree]\nremove = [\"/etc\"]\n", "without a leading slash"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse([]byte(minimal + tt.add))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
	if _, err := Parse([]byte("[packages]\n")); err == nil {
		t.Error("no arch: no error")
	}
}
