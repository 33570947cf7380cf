// Package match says whether root images and boot programs belong together, by their content.
//
// A boot program carries the root hash of its root image on its command line; a release says both. The release desk
// asks before it signs, the update agent before the commit point, and again after a boot to know which file was booted. File
// names, labels and EFI variables are never asked.
package match

import (
	"encoding/hex"
	"fmt"
	"io"

	"github.com/proa-os/proa/internal/cmdline"
	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/release"
	"github.com/proa-os/proa/internal/uki"
)

// RootHash returns the root hash that a boot program boots, and the hash offset in bytes.
func RootHash(bootProgram io.ReaderAt) (digest.SHA256, int64, error) {
	p, err := uki.Open(bootProgram)
	if err != nil {
		return digest.SHA256{}, 0, err
	}
	line, err := p.Cmdline()
	if err != nil {
		return digest.SHA256{}, 0, err
	}
	hash, offset, err := cmdline.Proa(cmdline.Parse(line))
	if err != nil {
		return digest.SHA256{}, 0, fmt.Errorf("its command line: %w", err)
	}
	return hash, offset, nil
}

// BootProgram compares the command line of a boot program with the release that it should boot.
func BootProgram(f io.ReaderAt, r *release.Release) error {
	hash, offset, err := RootHash(f)
	if err != nil {
		return err
	}
	if hash != r.Root.RootHash {
		return fmt.Errorf("its command line boots root hash %s, release.json says %s", hash, r.Root.RootHash)
	}
	if offset != r.Root.HashOffset {
		return fmt.Errorf("its command line has hash offset %d, release.json says %d", offset, r.Root.HashOffset)
	}
	return nil
}

// Salt decodes the salt of a release's root image.
func Salt(r *release.Release) ([32]byte, error) {
	b, err := hex.DecodeString(r.Root.Salt)
	if err != nil || len(b) != 32 {
		return [32]byte{}, fmt.Errorf("release %s: salt %q: want 64 hexadecimal digits", r.Version, r.Root.Salt)
	}
	return [32]byte(b), nil
}
