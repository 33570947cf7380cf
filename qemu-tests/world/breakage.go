package world

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/proa-os/proa/internal/arch"
	"github.com/proa-os/proa/internal/tooltree"
	"github.com/proa-os/proa/internal/uki"
)

// Rebuild makes an image's boot program anew, as one of another version, after change has had its way with what is in it.
func Rebuild(tools *tooltree.Tree, image Image, version string, change func(*uki.Contents)) ([]byte, error) {
	program, err := rebuild(tools, image, version, change)
	if err != nil {
		return nil, fmt.Errorf("rebuild boot program of %s: %w", image.Version(), err)
	}
	return program, nil
}

func rebuild(tools *tooltree.Tree, image Image, version string, change func(*uki.Contents)) ([]byte, error) {
	a, err := arch.Of(image.Release.Arch)
	if err != nil {
		return nil, err
	}
	stub, err := os.ReadFile(tools.Path(a.Stub()))
	if err != nil {
		return nil, err
	}
	old, err := os.ReadFile(filepath.Join(image.Dir, "boot.efi"))
	if err != nil {
		return nil, err
	}
	content, err := sections(old, uki.SectionOSRelease, uki.SectionCmdline, uki.SectionUname, uki.SectionLinux, uki.SectionInitrd)
	if err != nil {
		return nil, err
	}
	_, err = sections(old, uki.SectionGRUB)
	c := uki.Contents{
		// systemd-boot sorts by the version in here, GRUB by the file's name.
		OSRelease: strings.ReplaceAll(string(content[uki.SectionOSRelease]), image.Version(), version),
		Cmdline:   string(content[uki.SectionCmdline]),
		Uname:     string(content[uki.SectionUname]),
		Linux:     content[uki.SectionLinux],
		Initrd:    content[uki.SectionInitrd],
		GRUB:      err == nil,
	}
	change(&c)
	return uki.Build(stub, c)
}

// sections are the contents of sections of a boot program, by name.
func sections(program []byte, names ...string) (map[string][]byte, error) {
	p, err := uki.Open(bytes.NewReader(program))
	if err != nil {
		return nil, err
	}
	content := map[string][]byte{}
	for _, name := range names {
		s, err := p.Section(name)
		if err != nil {
			return nil, err
		}
		if content[name], err = io.ReadAll(s); err != nil {
			return nil, err
		}
	}
	return content, nil
}
