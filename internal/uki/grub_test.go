package uki

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/proa-os/proa/internal/cmdline"
	"github.com/proa-os/proa/internal/testenv"
)

// grubbed builds a boot program that GRUB can boot, around the given stub.
func grubbed(t *testing.T, stub []byte, line string) []byte {
	t.Helper()
	c := contents()
	c.GRUB, c.Cmdline = true, line
	b, err := Build(stub, c)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The script names what the sections hold, and stands where GRUB's configuration looks.
func TestGRUB(t *testing.T) {
	const line = `proa.roothash=abcd console=ttyS0,115200n8 "quoted word" key="two words" empty= dyndbg="file a.c +p; b" ~+-.:/@`
	b := grubbed(t, stub(), line)
	p, err := Open(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	script := string(b[GRUBOffset:][:GRUBSize])
	m := regexp.MustCompile(`^linux \(uki\)(\d+)\+(\d+) (.*) \$proa_extra\ninitrd \(uki\)(\d+)\+(\d+)\n+$`).FindStringSubmatch(script)
	if m == nil {
		t.Fatalf("got script %q", strings.TrimRight(script, "\n"))
	}
	for i, name := range []string{SectionLinux, SectionInitrd} {
		want, err := p.Section(name)
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(want)
		if err != nil {
			t.Fatal(err)
		}
		var first, count int
		fmt.Sscan(m[1+3*i], &first)
		fmt.Sscan(m[2+3*i], &count)
		got := b[512*first:][:512*count]
		if !bytes.HasPrefix(got, content) || len(got)-len(content) >= 512 || len(bytes.Trim(got[len(content):], "\x00")) != 0 {
			t.Errorf("%s: blocks %d+%d are not the section and zeros", name, first, count)
		}
	}
	// The kernel's words, once GRUB has put its own quotes around those with a space.
	var got []string
	for _, w := range regexp.MustCompile(`'[^']*'`).FindAllString(m[3], -1) {
		w = strings.Trim(w, "'")
		if strings.Contains(w, " ") {
			w = `"` + w + `"`
		}
		got = append(got, w)
	}
	if g, w := cmdline.Parse(strings.Join(got, " ")).Words(), cmdline.Parse(line).Words(); !slices.Equal(g, w) {
		t.Errorf("got words %+v, want %+v", g, w)
	}
	// The rest is what it is without.
	if without, err := Build(stub(), contents()); err != nil || len(b) <= len(without) {
		t.Errorf("%d bytes with the section, %d without, %v", len(b), len(without), err)
	}
}

// objdump finds the section in a program around systemd's own stub, and grub-script-check takes what is in it.
func TestGRUBJudges(t *testing.T) {
	tools := testenv.Tools(t)
	real, err := os.ReadFile(tools.Path("usr/lib/systemd/boot/efi/linuxx64.efi.stub"))
	if err != nil {
		t.Fatal(err)
	}
	b := grubbed(t, real, contents().Cmdline+` key="two words"`)
	dir := t.TempDir()
	name := filepath.Join(dir, "boot.efi")
	if err := os.WriteFile(name, b, 0o644); err != nil {
		t.Fatal(err)
	}
	objdump := tools.Command(t.Context(), "objdump", "-h", "-w", name)
	out, err := objdump.CombinedOutput()
	if err != nil {
		t.Fatalf("objdump: %v\n%s", err, out)
	}
	if !regexp.MustCompile(`\.grub\s+00001000\s+\S+\s+\S+\s+00040000\s`).Match(out) || !bytes.Contains(out, []byte(".initrd")) {
		t.Errorf("objdump sees\n%s", out)
	}
	check(t, tools.Command(t.Context(), "grub-script-check", "-v"), b[GRUBOffset:][:GRUBSize])
}

func check(t *testing.T, cmd *exec.Cmd, script []byte) {
	t.Helper()
	cmd.Stdin = bytes.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("grub-script-check: %v\n%s", err, out)
	}
}
