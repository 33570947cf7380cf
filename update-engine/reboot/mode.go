package reboot

import (
	"fmt"
	"slices"

	"github.com/proa-os/proa/internal/cmdline"
	"github.com/proa-os/proa/internal/digest"
)

// A Kernel is what the kernel of a boot program is started from.
type Kernel struct {
	Image       digest.SHA256 // of section .linux; zero if it is not known
	CommandLine string        // section .cmdline
}

// Choose says how to reboot from one kernel into another, and why if that is full. A soft reboot keeps the kernel that runs, so it must
// be the next one's in every bit, started with the same command line but for the root image.
func Choose(wanted Mode, running, next Kernel) (Mode, string) {
	switch {
	case wanted == Full:
		return Full, "the configuration asks for it"
	case running.Image.IsZero():
		return Full, "the boot program of the running release is not known"
	case next.Image.IsZero():
		return Full, "the kernel of the next release is not known"
	case running.Image != next.Image:
		return Full, "the kernel changes"
	}
	if before, after := words(running.CommandLine), words(next.CommandLine); !slices.Equal(before, after) {
		return Full, fmt.Sprintf("the kernel command line changes from %q to %q", before, after)
	}
	return Soft, "the kernel stays the same"
}

// words are those of a command line that the kernel and userspace go by: all but which root image it boots.
func words(line string) []string {
	var list []string
	for _, w := range cmdline.Parse(line).Words() {
		switch {
		case w.Key == cmdline.KeyRootHash || w.Key == cmdline.KeyHashOffset:
		case w.HasValue:
			list = append(list, w.Key+"="+w.Value)
		default:
			list = append(list, w.Key)
		}
	}
	return list
}
