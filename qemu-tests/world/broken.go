package world

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/release"
	"github.com/proa-os/proa/internal/uki"
	"github.com/proa-os/proa/qemu-tests/vm"
)

// WrongRootHash copies an image's root image and boot program to dir and makes the boot program, and release.json with
// it, demand a root image that does not exist.
func WrongRootHash(image Image, dir string) (Image, error) {
	root := digest.Of([]byte("no root image has this root hash"))
	program, err := os.ReadFile(filepath.Join(image.Dir, "boot.efi"))
	if err == nil {
		program, err = ReplaceRootHash(program, root)
	}
	if err != nil {
		return Image{}, fmt.Errorf("break %s: %w", image.Version(), err)
	}
	return withProgram(image, dir, program, root)
}

// WithProgram makes a release in dir of an image's root image and another boot program than its own, such as one of Rebuild.
func WithProgram(image Image, dir string, program []byte) (Image, error) {
	return withProgram(image, dir, program, image.Release.Root.RootHash)
}

func withProgram(image Image, dir string, program []byte, root digest.SHA256) (Image, error) {
	changed := *image.Release
	changed.Root.RootHash = root
	content, err := sections(program, uki.SectionLinux, uki.SectionCmdline)
	if err == nil {
		changed.Boot = release.BootProgram{Size: int64(len(program)), SHA256: digest.Of(program),
			Linux: digest.Of(content[uki.SectionLinux]), CommandLine: string(content[uki.SectionCmdline])}
		err = os.MkdirAll(dir, 0o755)
	}
	var text []byte
	if err == nil {
		text, err = changed.Marshal()
	}
	if err == nil {
		err = errors.Join(os.WriteFile(filepath.Join(dir, "boot.efi"), program, 0o644), os.WriteFile(filepath.Join(dir, "release.json"), text, 0o644),
			vm.CopySparse(filepath.Join(dir, "root.img"), filepath.Join(image.Dir, "root.img"), 0))
	}
	if err != nil {
		return Image{}, fmt.Errorf("give %s another boot program: %w", image.Version(), err)
	}
	return Image{Dir: dir, Release: &changed}, nil
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
