package rootfs

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/proa-os/proa/image-builder/archivetest"
	"github.com/proa-os/proa/image-builder/kernel"
	"github.com/proa-os/proa/image-builder/lock"
	"github.com/proa-os/proa/image-builder/manifest"
	"github.com/proa-os/proa/image-builder/tree"
	"github.com/proa-os/proa/internal/digest"
)

// world is an Input of three small packages, a module and a program.
func world(t *testing.T) Input {
	t.Helper()
	in := Input{
		CacheDir: t.TempDir(), Programs: t.TempDir(), Version: "1.3.0-rc.1", Lock: &lock.Lock{},
		Overlays: []string{t.TempDir()},
		Kernel:   &kernel.Kernel{Version: "6.12.1", Dir: t.TempDir()},
		Manifest: &manifest.Manifest{
			Packages: lock.Spec{Arch: "amd64"},
			Tree: manifest.Tree{
				Remove: []string{"usr/share/doc"}, Dirs: []string{"var"}, Symlinks: map[string]string{"home": "var/home"},
				Modes: []manifest.Mode{{Path: "etc/machine-id", Mode: "0444", GID: 7}},
			},
			Busybox:  manifest.Busybox{Bin: []string{"sh", "mount"}},
			Programs: map[string]string{"usr/bin/updatectl": "./update-engine/cmd/updatectl"},
		},
	}
	in.Archives = &tree.Archives{}
	t.Cleanup(func() { in.Archives.Close() })
	in.add(t, "base-files", archivetest.File{Name: "./bin", Link: "usr/bin", Type: tar.TypeSymlink}, archivetest.File{Name: "./usr/share/doc/x", Body: "x"})
	in.add(t, "busybox", archivetest.File{Name: "./bin/busybox", Body: "busybox", Mode: 0o755}, archivetest.File{Name: "./usr/bin/mount", Body: "mount", Mode: 0o4755})
	in.add(t, "ca-certificates", archivetest.File{Name: "./usr/share/ca-certificates/mozilla/B.crt", Body: "B\n\n"}, archivetest.File{Name: "./usr/share/ca-certificates/mozilla/A.crt", Body: "A"})
	in.add(t, "openssh-server", archivetest.File{Name: "./usr/lib/sysusers.d/openssh-server.conf", Body: "u! sshd - \"sshd user\" /run/sshd\n"})
	write(t, filepath.Join(in.Overlays[0], "etc/machine-id"), "uninitialized\n")
	write(t, filepath.Join(in.Overlays[0], "usr/lib/sysusers.d/proa.conf"), "u root 0 - /root /bin/sh\nu sshd 984\ng shadow 42\n")
	write(t, filepath.Join(in.Overlays[0], "usr/lib/proa/people.conf"), "u ann 1000 - /home/ann /bin/sh\nm ann shadow\n")
	write(t, filepath.Join(in.Programs, "updatectl"), "program")
	write(t, filepath.Join(in.Kernel.ModulesDir(), "modules.dep"), "")
	write(t, filepath.Join(in.Kernel.ModulesDir(), "modules.dep.bin"), "")
	return in
}

func (in *Input) add(t *testing.T, name string, files ...archivetest.File) {
	t.Helper()
	b := archivetest.Deb{Name: name, Files: files}.Build(t)
	p := lock.Package{Name: name, Version: "1.0", Arch: "amd64", Size: int64(len(b)), SHA256: digest.Of(b)}
	write(t, lock.Path(in.CacheDir, p), string(b))
	in.Lock.Packages = append(in.Lock.Packages, p)
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestBuild(t *testing.T) {
	tr, err := Build(t.Context(), world(t))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := tr.Dump(&b); err != nil {
		t.Fatal(err)
	}
	sum := func(s string) string { return digest.Of([]byte(s)).String() }
	got := strings.Split(strings.TrimSpace(b.String()), "\n")
	for _, want := range []string{
		"bin: symlink 0777 0:0 usr/bin",
		"usr/bin/busybox: file 0755 0:0 " + sum("busybox"), // through bin
		"usr/bin/mount: file 0755 0:0 " + sum("mount"),     // the real one, without setuid
		"usr/bin/sh: symlink 0777 0:0 busybox",
		"usr/bin/updatectl: file 0755 0:0 " + sum("program"),
		"etc/ssl/certs/ca-certificates.crt: file 0644 0:0 " + sum("A\nB\n"),
		"etc/machine-id: file 0444 0:7 " + sum("uninitialized\n"),
		"etc/passwd: file 0644 0:0 " + sum("root:x:0:0::/root:/bin/sh\nsshd:x:984:984::/:/usr/sbin/nologin\nann:x:1000:1000::/home/ann:/bin/sh\n"),
		"etc/group: file 0644 0:0 " + sum("root:x:0:\nshadow:x:42:ann\nsshd:x:984:\nann:x:1000:\n"),
		"etc/shadow: file 0640 0:42 " + sum("root:!unprovisioned:20000::::::\nsshd:!*:20000::::::\nann:!*:20000::::::\n"),
		"etc/gshadow: file 0640 0:42 " + sum("root:!*::\nshadow:!*::ann\nsshd:!*::\nann:!*::\n"),
		"home: symlink 0777 0:0 var/home",
		"var: dir 0755 0:0",
		"usr/lib/modules/6.12.1/modules.dep.bin: file 0644 0:0 " + sum(""),
		"usr/lib/os-release: file 0644 0:0 " + sum(OSRelease("1.3.0-rc.1")),
	} {
		if !slices.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
	if strings.Contains(b.String(), "openssh-server.conf") {
		t.Error("a package's sysusers.d file, which pins no numbers, is still there")
	}
	if strings.Contains(b.String(), "people.conf") {
		t.Error("the accounts of people are still there, for systemd-sysusers or whoever to make again")
	}
	if strings.Contains(b.String(), "usr/share/doc") || strings.Contains(b.String(), "mozilla") {
		t.Errorf("removed files are still there:\n%s", b.String())
	}
}

// systemd-boot sorts a pre-release before its release only with "~".
func TestOSReleaseOfPreRelease(t *testing.T) {
	if got := OSRelease("1.3.0-rc.1"); !strings.Contains(got, "IMAGE_VERSION=1.3.0~rc.1\n") || !strings.Contains(got, "VERSION_ID=1.3.0-rc.1\n") {
		t.Errorf("got\n%s", got)
	}
}

func TestBuildRefuses(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*testing.T, *Input)
		want   string
	}{
		{"dead pattern", func(_ *testing.T, in *Input) { in.Manifest.Tree.Remove = []string{"usr/share/dco"} }, `"usr/share/dco"`},
		{"two packages, one file", func(t *testing.T, in *Input) {
			in.add(t, "thief", archivetest.File{Name: "./usr/bin/mount", Body: "mine"})
		}, "thief"},
		{"account without a number", func(t *testing.T, in *Input) {
			in.add(t, "new-service", archivetest.File{Name: "./usr/lib/sysusers.d/new.conf", Body: "u! newcomer -\nu! sshd -\n"})
		}, "usr/lib/sysusers.d/new.conf of a package declares user newcomer"},
		{"static accounts", func(t *testing.T, in *Input) { write(t, filepath.Join(in.Overlays[0], "etc/passwd"), "") }, "derived from"},
		{"cut package", func(t *testing.T, in *Input) {
			p := in.Lock.Packages[1]
			if err := os.Truncate(lock.Path(in.CacheDir, p), p.Size-1); err != nil {
				t.Fatal(err)
			}
		}, "busybox"},
		{"no program", func(t *testing.T, in *Input) { in.Programs = t.TempDir() }, "updatectl"},
		{"missing library", func(t *testing.T, in *Input) {
			ls, err := os.ReadFile("/bin/ls")
			if err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(in.Overlays[0], "usr/bin/ls"), string(ls))
		}, "usr/bin/ls needs libc.so.6"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := world(t)
			tt.change(t, &in)
			if _, err := Build(t.Context(), in); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}
