package match

import (
	"fmt"
	"io"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/uki"
	"github.com/proa-os/proa/update-engine/reboot"
)

// Kernel returns what a boot program starts its kernel from.
func Kernel(bootProgram io.ReaderAt) (reboot.Kernel, error) {
	p, err := uki.Open(bootProgram)
	if err != nil {
		return reboot.Kernel{}, err
	}
	line, err := p.Cmdline()
	if err != nil {
		return reboot.Kernel{}, err
	}
	image, err := p.Section(uki.SectionLinux)
	if err != nil {
		return reboot.Kernel{}, err
	}
	sum, _, err := digest.OfReader(image)
	if err != nil {
		return reboot.Kernel{}, fmt.Errorf("read section %s: %w", uki.SectionLinux, err)
	}
	return reboot.Kernel{Image: sum, CommandLine: line}, nil
}
