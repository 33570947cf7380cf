package world

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/uki"
)

// WrongRootHash copies an image's root image and boot program to dir and makes the boot program, and release.json with
// it, demand a root image that does not exist.
func WrongRootHash(image Image, dir string) (Image, error) {
	broken := *image.Release
	program, err := os.ReadFile(filepath.Join(image.Dir, "boot.efi"))
	if err != nil {
		return Image{}, fmt.Errorf("break %s: %w", image.Version(), err)
	}
	broken.Root.RootHash = digest.Of([]byte("no root image has this root hash"))
	if program, err = ReplaceRootHash(program, broken.Root.RootHash); err != nil {
		return Image{}, fmt.Errorf("break %s: %w", image.Version(), err)
	}
	broken.Boot.SHA256 = digest.Of(program)
	text, err := broken.Marshal()
	if err != nil {
		return Image{}, fmt.Errorf("break %s: %w", image.Version(), err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Image{}, fmt.Errorf("break %s: %w", image.Version(), err)
	}
	for name, b := range map[string][]byte{"boot.efi": program, "release.json": text} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			return Image{}, fmt.Errorf("break %s: %w", image.Version(), err)
		}
	}
	if err := os.Link(filepath.Join(image.Dir, "root.img"), filepath.Join(dir, "root.img")); err != nil {
		return Image{}, fmt.Errorf("break %s: %w", image.Version(), err)
	}
	return Image{Dir: dir, Release: &broken}, nil
}

// ReplaceRootHash returns a boot program whose command line has another root hash, for both firmwares.
func ReplaceRootHash(program []byte, root digest.SHA256) ([]byte, error) {
	const key = "proa.roothash="
	p, err := uki.Open(bytes.NewReader(program))
	if err != nil {
		return nil, err
	}
	changed := bytes.Clone(program)
	for _, name := range []string{uki.SectionCmdline, uki.SectionGRUB} {
		i := slices.IndexFunc(p.Sections(), func(s uki.Section) bool { return s.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("no section %s", name)
		}
		s := p.Sections()[i]
		at := bytes.Index(program[s.Offset:s.Offset+s.Size], []byte(key))
		if at < 0 {
			return nil, fmt.Errorf("no %s in section %s", key, name)
		}
		copy(changed[s.Offset+int64(at+len(key)):], root.String())
	}
	return changed, nil
}
