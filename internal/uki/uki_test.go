package uki

import (
	"bytes"
	"crypto/sha256"
	"debug/pe"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"testing"
)

// sbat is what ukify would make of it, so that it leaves the section alone.
const sbat = "sbat,1,SBAT Version,sbat,1,https://github.com/rhboot/shim/blob/main/SBAT.md\nproa,1,test,proa,1,none\n\x00"

// program makes a PE file with these sections, each at the next free place, as a linker would.
func program(dllFlags uint16, headers int, sections ...[2]string) []byte {
	const peAt, optSize = 0x80, 240
	b := make([]byte, headers)
	copy(b, "MZ")
	b[dosPointer] = peAt
	copy(b[peAt:], "PE\x00\x00\x64\x86")
	le := binary.LittleEndian
	le.PutUint16(b[peAt+6:], uint16(len(sections)))
	le.PutUint16(b[peAt+20:], optSize)
	le.PutUint16(b[peAt+22:], 0x22e)
	opt := b[peAt+24:]
	le.PutUint16(opt, magicPE32Plus)
	le.PutUint32(opt[16:], 0x1000) // entry point
	le.PutUint64(opt[24:], 0x14df90000)
	le.PutUint32(opt[optSectionAlignment:], 0x1000)
	le.PutUint32(opt[optFileAlignment:], 512)
	le.PutUint32(opt[optSizeOfHeaders:], uint32(headers))
	le.PutUint32(opt[optChecksum:], 0xabcdef)
	le.PutUint16(opt[68:], 10) // EFI application
	le.PutUint16(opt[optDLLFlags:], dllFlags)
	le.PutUint32(opt[optDirectories:], 16)
	address := 0x1000
	for i, s := range sections {
		e := b[peAt+24+optSize+i*sectionSize:]
		copy(e[:8], s[0])
		padded := int(roundUp(int64(len(s[1])), 512))
		le.PutUint32(e[8:], uint32(len(s[1])))
		le.PutUint32(e[12:], uint32(address))
		le.PutUint32(e[16:], uint32(padded))
		le.PutUint32(e[20:], uint32(len(b)))
		le.PutUint32(e[36:], sectionInitialized|sectionRead)
		b = append(b, append([]byte(s[1]), make([]byte, padded-len(s[1]))...)...)
		address += int(roundUp(int64(len(s[1])), 0x1000))
		le.PutUint32(b[peAt+24+optSizeOfImage:], uint32(address))
	}
	return b
}

func stub() []byte {
	return program(0x160, 0x600, [2]string{".text", strings.Repeat("code", 3000)}, [2]string{".sbat", sbat},
		[2]string{".sdmagic", "#### LoaderInfo: systemd-stub test ####"}, [2]string{".reloc", "\x00\x10\x00\x00\x0c\x00\x00\x00\x00\x00\x00\x00"})
}

func contents() Contents {
	return Contents{
		OSRelease: "ID=proa\nIMAGE_VERSION=1.0.1\n",
		Cmdline:   "proa.roothash=" + strings.Repeat("ab", 32) + " proa.hashoffset=4096 console=ttyS0",
		Uname:     "6.12.0-proa",
		Linux:     program(0, 0x400, [2]string{".text", strings.Repeat("linux", 5000)}),
		Initrd:    bytes.Repeat([]byte("070701"), 700),
	}
}

func build(t testing.TB) []byte {
	t.Helper()
	b, err := Build(stub(), contents())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The sum is that of what ukify 257 makes of the same stub and sections.
func TestBuildIsUkifys(t *testing.T) {
	if got, want := fmt.Sprintf("%x", sha256.Sum256(build(t))), "063fadf693afd3a16b8008d6f3205dc12c52836edf558167db96ccb6a4435196"; got != want {
		t.Errorf("sha256 %s, ukify's is %s", got, want)
	}
}

// Go's own reader of PE files must find every section with its content.
func TestDebugPE(t *testing.T) {
	c := contents()
	f, err := pe.NewFile(bytes.NewReader(build(t)))
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, s := range f.Sections {
		fmt.Fprintf(&text, "%-8s memory %6x+%04x file %5x+%04x flags %x\n", s.Name, s.VirtualAddress, s.VirtualSize, s.Offset, s.Size, s.Characteristics)
		want := map[string]string{".osrel": c.OSRelease, ".cmdline": c.Cmdline, ".uname": c.Uname, ".linux": string(c.Linux), ".initrd": string(c.Initrd)}[s.Name]
		if got, err := s.Data(); err != nil || want != "" && string(got[:s.VirtualSize]) != want {
			t.Errorf("section %s: content differs, %v", s.Name, err)
		}
	}
	opt := f.OptionalHeader.(*pe.OptionalHeader64)
	fmt.Fprintf(&text, "image %x checksum %x flags %x\n", opt.SizeOfImage, opt.CheckSum, opt.DllCharacteristics)
	want := `.text    memory   1000+2ee0 file   600+3000 flags 40000040
.sbat    memory   4000+0065 file  3600+0200 flags 40000040
.sdmagic memory   5000+0027 file  3800+0200 flags 40000040
.reloc   memory   6000+000c file  3a00+0200 flags 40000040
.osrel   memory   7000+001c file  3c00+0200 flags 40000040
.cmdline memory   8000+0071 file  3e00+0200 flags 40000040
.uname   memory   9000+000b file  4000+0200 flags 40000040
.linux   memory   a000+6600 file  4200+6600 flags 40000020
.initrd  memory  11000+1068 file  a800+1200 flags 40000040
image 13000 checksum 0 flags 60
`
	if got := text.String(); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestOpen(t *testing.T) {
	c := contents()
	p, err := Open(bytes.NewReader(build(t)))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := p.Cmdline(); err != nil || got != c.Cmdline {
		t.Errorf("command line %q, %v", got, err)
	}
	s, err := p.Section(SectionInitrd)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(s); err != nil || !bytes.Equal(got, c.Initrd) {
		t.Errorf("initramfs differs: %d bytes, %v", len(got), err)
	}
	if _, err := p.Section(".splash"); err == nil {
		t.Error("found a section that is not there")
	}
	var names []string
	for _, s := range p.Sections() {
		names = append(names, s.Name)
	}
	if got, want := strings.Join(names, " "), ".text .sbat .sdmagic .reloc .osrel .cmdline .uname .linux .initrd"; got != want {
		t.Errorf("sections %s, want %s", got, want)
	}
}

func TestCmdlineText(t *testing.T) {
	for line, want := range map[string]string{
		"a=b c\n":                          "a=b c",
		"a=b\x00\x00":                      "a=b",
		"a=b\nc=d":                         "not one line",
		"a=b\x00 c=d":                      "not one line",
		"a=\xff":                           "not one line",
		string(make([]byte, maxCmdline+1)): "expected at most",
	} {
		c := contents()
		c.Cmdline = line
		b, err := Build(stub(), c)
		if err != nil {
			t.Fatal(err)
		}
		p, err := Open(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		got, err := p.Cmdline()
		if err != nil {
			got = err.Error()
		}
		if got != want && (err == nil || !strings.Contains(got, want)) {
			t.Errorf("%.20q: got %s, want %s", line, got, want)
		}
	}
}

func TestBuildRefuses(t *testing.T) {
	for _, c := range []struct {
		want   string
		stub   []byte
		change func(c *Contents)
	}{
		{"section .cmdline is empty", stub(), func(c *Contents) { c.Cmdline = "" }},
		{"section .linux is empty", stub(), func(c *Contents) { c.Linux = nil }},
		{"kernel: not a PE file", stub(), func(c *Contents) { c.Linux = bytes.Repeat([]byte("gz"), 100) }},
		{"stub: read DOS header", nil, nil},
		{"already has one", build(t), nil},
		{"no room in headers", program(0, 0x200, [2]string{".text", "x"}), nil},
		{"cannot hand over", stub(), func(c *Contents) { c.GRUB, c.Cmdline = true, "a=b'c" }},
		{"cannot hand over", stub(), func(c *Contents) { c.GRUB, c.Cmdline = true, `a="b\c"` }},
		{"too long", stub(), func(c *Contents) { c.GRUB, c.Cmdline = true, strings.Repeat("word ", 1000) }},
		{"expected at most 262144", program(0, 0x600, [2]string{".text", strings.Repeat("c", 256<<10)}), func(c *Contents) { c.GRUB = true }},
		{"stub is signed", edit(stub(), 0x80+24+optSecurity, 1), nil},
	} {
		cont := contents()
		if c.change != nil {
			c.change(&cont)
		}
		if _, err := Build(c.stub, cont); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %q", err, c.want)
		}
	}
}

func edit(b []byte, off int, v byte) []byte { b[off] = v; return b }

func TestOpenRefuses(t *testing.T) {
	const peAt, opt, table = 0x80, 0x80 + 24, 0x80 + 24 + 240
	for _, c := range []struct {
		want string
		off  int
		b    []byte
	}{
		{"it begins with", 0, []byte("ZM")},
		{"said to be at", dosPointer, []byte{0, 0, 0, 0}},
		{"said to be at", dosPointer, []byte{0xff, 0xff, 0xff, 0xff}},
		{"no PE signature", peAt, []byte("NE")},
		{"0 sections", peAt + 6, []byte{0, 0}},
		{"65535 sections", peAt + 6, []byte{0xff, 0xff}},
		{"do not hold", peAt + 6, []byte{90, 0}},
		{"64-bit", opt, []byte{0x0b, 0x01}},
		{"64-bit", peAt + 20, []byte{100, 0}},
		{"file alignment", opt + optFileAlignment, []byte{0, 1}},
		{"section alignment", opt + optSectionAlignment, []byte{1}},
		{"do not hold", opt + optSizeOfHeaders, []byte{0, 1}},
		{"do not hold", opt + optSizeOfHeaders, []byte{0xff, 0xff, 0xff, 0xff}},
		{"takes bytes", table + 20, []byte{0, 0}},
		{"takes bytes", table + 20, []byte{1}},
		{"takes bytes", table + 16, []byte{0xff, 0xff, 0xff, 0xff}},
		{"there twice", table, []byte(".sbat\x00\x00\x00")},
	} {
		b := build(t)
		copy(b[c.off:], c.b)
		if _, err := Open(bytes.NewReader(b)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("offset %#x: got %v, want %q", c.off, err, c.want)
		}
	}
	// A file cut off behind the headers opens, and its content is an error.
	p, err := Open(bytes.NewReader(build(t)[:0x1000]))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := p.Cmdline(); err == nil {
		t.Errorf("command line %q of a file without one", got)
	}
}

// FuzzOpen: whatever Open accepts, Go's debug/pe reads in the same way, and Build on top of it can be opened again.
func FuzzOpen(f *testing.F) {
	f.Add(build(f))
	f.Add(stub())
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := Open(bytes.NewReader(b))
		if err != nil {
			return
		}
		line, err := p.Cmdline()
		if err == nil && (len(line) > maxCmdline || strings.ContainsAny(line, "\n\x00")) {
			t.Errorf("accepted a command line of %d bytes: %.80q", len(line), line)
		}
		for _, s := range p.Sections() {
			r, err := p.Section(s.Name)
			if err != nil || r.Size() < 0 || r.Size() > maxProgramSize {
				t.Errorf("section %v: %v", s, err)
			}
		}
		comparePE(t, b, p)
		if again, err := Build(b, contents()); err == nil {
			q, err := Open(bytes.NewReader(again))
			if err != nil {
				t.Fatalf("built but does not open: %v", err)
			}
			if got, err := q.Cmdline(); err != nil || got != contents().Cmdline {
				t.Errorf("built, and then: command line %q, %v", got, err)
			}
		}
	})
}

// comparePE holds the sections against debug/pe, where that takes the file.
func comparePE(t *testing.T, b []byte, p *Program) {
	t.Helper()
	f, err := pe.NewFile(bytes.NewReader(b))
	if err != nil {
		return
	}
	if len(f.Sections) != len(p.Sections()) {
		t.Fatalf("got %d sections, debug/pe %d", len(p.Sections()), len(f.Sections))
	}
	for i, s := range p.Sections() {
		o := f.Sections[i]
		if strings.ContainsAny(s.Name, "/\x00") {
			continue // debug/pe looks long names up in a table of symbols, and cuts at the first NUL
		}
		if s.Name != o.Name || uint32(s.Offset) != o.Offset || s.Size != int64(min(o.Size, o.VirtualSize)) {
			t.Errorf("section %d: got %+v, debug/pe %+v", i, s, o.SectionHeader)
		}
	}
}
