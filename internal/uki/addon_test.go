package uki

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"os"
	"testing"

	"github.com/proa-os/proa/internal/arch"
	"github.com/proa-os/proa/internal/testenv"
)

// Go's reader of PE files sees a UEFI program with one section, and we read it as systemd-stub does.
func TestAddon(t *testing.T) {
	const line = "console=ttyS1 mitigations=auto,nosmt"
	for _, name := range []string{"amd64", "arm64"} {
		a, err := arch.Of(name)
		if err != nil {
			t.Fatal(err)
		}
		b, err := Addon(a.PE, line)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := ReadAddon(b); got != line || err != nil {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
		f, err := pe.NewFile(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		opt, ok := f.OptionalHeader.(*pe.OptionalHeader64)
		if !ok || f.Machine != a.PE || opt.Subsystem != pe.IMAGE_SUBSYSTEM_EFI_APPLICATION || len(f.Sections) != 1 {
			t.Fatalf("%s: got %+v %+v", name, f.FileHeader, f.OptionalHeader)
		}
		s := f.Sections[0]
		data, err := s.Data()
		if err != nil || s.Name != ".cmdline" || string(data[:s.VirtualSize]) != line || s.Characteristics&pe.IMAGE_SCN_MEM_EXECUTE != 0 {
			t.Errorf("%s: section %+v, %q, %v", name, s.SectionHeader, data, err)
		}
		loadable(t, b)
	}
	for _, bad := range []string{"", "a\nb", "a\x00"} {
		if _, err := Addon(0x8664, bad); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

// loadable asks what EDK II asks of a file before it loads it (MdePkg/Library/BasePeCoffLib/BasePeCoff.c, PeCoffLoaderGetPeHeader and
// PeCoffLoaderLoadImage), and what systemd-stub asks behind that (src/boot/pe.c).
func loadable(t *testing.T, b []byte) {
	t.Helper()
	u16 := func(at int) int { return int(binary.LittleEndian.Uint16(b[at:])) }
	u32 := func(at int) int { return int(binary.LittleEndian.Uint32(b[at:])) }
	header := u32(dosPointer)
	opt := header + 4 + coffSize
	table := opt + u16(header+20)
	sections, size, headers := u16(header+6), u32(opt+optSizeOfImage), u32(opt+optSizeOfHeaders)
	directories := u32(opt + optDirectories)
	for name, ok := range map[string]bool{
		"DOS header":          string(b[:2]) == "MZ" && header > 64,
		"16 directories":      directories == 16 && u16(header+20) == optDirectories+4+8*directories,
		"size of image":       size > table && (size-table)/sectionSize > sections,
		"size of headers":     headers > table && headers < size && (headers-table)/sectionSize >= sections && headers <= len(b),
		"relocatable":         u32(opt+optDirectories+4+5*8) == 0 && u16(header+22)&1 == 0,
		"no signature":        u32(opt+optSecurity) == 0 && u32(opt+optSecurity+4) == 0,
		"section in the file": u32(table+20)+u32(table+16) <= len(b) && u32(table+20) >= headers,
		"section in memory":   u32(table+12) >= headers && u32(table+12)+u32(table+8) <= size,
		"whole pages":         u32(opt+optSectionAlignment)%4096 == 0 && u32(table+12)%4096 == 0 && size%4096 == 0,
		"entry point":         u32(opt+optEntry) < size,
	} {
		if !ok {
			t.Errorf("%s: the firmware would refuse the file", name)
		}
	}
}

// systemd's own empty addon passes the same questions, so that they are the right ones.
func TestSystemdsAddon(t *testing.T) {
	tools := testenv.Tools(t)
	b, err := os.ReadFile(tools.Path("usr/lib/systemd/boot/efi/addonx64.efi.stub"))
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := pe.NewFile(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	own, err := Addon(0x8664, "a")
	if err != nil {
		t.Fatal(err)
	}
	ours, err := pe.NewFile(bytes.NewReader(own))
	if err != nil {
		t.Fatal(err)
	}
	x, y := theirs.OptionalHeader.(*pe.OptionalHeader64), ours.OptionalHeader.(*pe.OptionalHeader64)
	if theirs.Machine != ours.Machine || x.Magic != y.Magic || x.Subsystem != y.Subsystem || x.NumberOfRvaAndSizes != y.NumberOfRvaAndSizes ||
		theirs.SizeOfOptionalHeader != ours.SizeOfOptionalHeader || x.FileAlignment != y.FileAlignment || theirs.Characteristics != ours.Characteristics || x.DllCharacteristics != y.DllCharacteristics {
		t.Errorf("systemd's addon has other headers:\n%+v %+v\n%+v %+v", theirs.FileHeader, x, ours.FileHeader, y)
	}
}
