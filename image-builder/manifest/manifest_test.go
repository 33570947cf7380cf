package manifest

import (
	"reflect"
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
		{"variable", "[tree]\nremove = [\"usr/lib/${tripel}/gconv\"]\n", "${triplet}"},
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

func TestBudget(t *testing.T) {
	m, err := Parse([]byte(minimal + "[budget]\nroot_image = \"320 MB\"\nroot_image_zstd = \"0.08 GB\"\nboot_program = 22000000\nsetuid_files = 0\nfiles = { \"usr/bin/a\" = \"8 MB\" }\n"))
	if err != nil {
		t.Fatal(err)
	}
	if want := (Budget{RootImage: 320e6, RootImageZstd: 80e6, BootProgram: 22e6, Files: map[string]Size{"usr/bin/a": 8e6}}); !reflect.DeepEqual(m.Budget, want) {
		t.Errorf("got %+v, want %+v", m.Budget, want)
	}
	for _, bad := range []string{`"320"`, `"320 MiB"`, `"-1 MB"`, `"x MB"`, "-1", "1.5", "true", `"NaN MB"`, `"1e300 GB"`} {
		if _, err := Parse([]byte(minimal + "[budget]\nroot_image = " + bad + "\n")); err == nil || !strings.Contains(err.Error(), "size") {
			t.Errorf("%s: got %v, want an error that says what a size is", bad, err)
		}
	}
}

func TestVariables(t *testing.T) {
	for arch, want := range map[string]string{"amd64": "usr/lib/x86_64-linux-gnu/gconv", "arm64": "usr/lib/aarch64-linux-gnu/gconv"} {
		text := strings.Replace(minimal, "amd64", arch, 1)
		text = strings.Replace(text, `"systemd"`, `"systemd", "linux-image-${arch}"`, 1) + "[tree]\nremove = [\"usr/lib/${triplet}/gconv\"]\n"
		if m, err := Parse([]byte(text)); err != nil || m.Tree.Remove[0] != want || m.Packages.Include[1] != "linux-image-"+arch {
			t.Errorf("%s: got %v, %v, want %s", arch, m, err, want)
		}
	}
	if _, err := Parse([]byte(strings.Replace(minimal, "amd64", "vax", 1))); err == nil || !strings.Contains(err.Error(), "vax") {
		t.Errorf("got %v for an unknown architecture", err)
	}
}

func TestArch(t *testing.T) {
	m, err := Parse([]byte(minimal + `[kernel]
keep = ["kernel/fs"]
[kernel.arch.amd64]
keep = ["kernel/arch/x86"]
drop = ["kernel/fs/x"]
[initramfs]
modules = ["erofs"]
drivers = ["nvme"]
[initramfs.arch.amd64]
modules = ["crc32c-intel"]
`))
	if err != nil {
		t.Fatal(err)
	}
	if got := m.Kernel.For("amd64"); len(got.Keep) != 2 || len(got.Drop) != 1 {
		t.Errorf("amd64: got %+v", got)
	}
	if got := m.Kernel.For("arm64"); len(got.Keep) != 1 || len(got.Drop) != 0 {
		t.Errorf("arm64: got %+v", got)
	}
	// An architecture's modules come first: a fast checksum before the one for every processor.
	if got := m.Initramfs.For("amd64"); strings.Join(got.Always, " ") != "crc32c-intel erofs" || len(got.Drivers) != 1 {
		t.Errorf("amd64: got %+v", got)
	}
}
