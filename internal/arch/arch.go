// Package arch is the one table of what depends on the processor: names, numbers and paths of the architectures that Proa
// is, or will be, made for.
//
// Two architectures matter in a build and are easily mixed up: the image's, which its manifest names, and the build host's,
// whose tools make it. Of gives the first, Host the second. An architecture is called by Debian's name wherever people
// write one; for amd64 and arm64 Go's name is the same.
//
// The names are from dpkg's cputable, the ELF processor supplements (machine, interpreter), the UEFI specification (3.5.1.1,
// removable media boot) and the Discoverable Partitions Specification.
package arch

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
)

// Arch is one architecture.
type Arch struct {
	Debian   string // Debian's name, as in a manifest: amd64
	GOARCH   string // Go's name
	Uname    string // machine of uname(2): x86_64
	Triplet  string // Debian's multiarch directory below usr/lib
	Machine  uint16 // of its ELF files; no constants of debug/elf, which would be linked into every program with this table
	PE       uint16 // machine of its UEFI programs
	Loader   string // dynamic loader, as a path in an unpacked libc6: links among the parents are resolved
	EFI      string // suffix of UEFI file names: x64 as in systemd-bootx64.efi
	RootType string // GPT type of a root partition, as gpt.GUID is written
	QEMU     string // program that emulates a whole machine
	Console  string // serial console of the emulated machine
	Kernel   string // Debian's package that depends on the current kernel
}

// table returns all architectures.
func table() []Arch {
	return []Arch{{
		Debian: "amd64", GOARCH: "amd64", Uname: "x86_64", Triplet: "x86_64-linux-gnu",
		Machine: 62, PE: 0x8664, Loader: "usr/lib64/ld-linux-x86-64.so.2",
		EFI: "x64", RootType: "4f68bce3-e8cd-4db1-96e7-fbcaf984b709",
		QEMU: "qemu-system-x86_64", Console: "ttyS0", Kernel: "linux-image-amd64",
	}, {
		Debian: "arm64", GOARCH: "arm64", Uname: "aarch64", Triplet: "aarch64-linux-gnu",
		Machine: 183, PE: 0xaa64, Loader: "usr/lib/ld-linux-aarch64.so.1",
		EFI: "aa64", RootType: "b921b045-1df0-41c3-af44-4c6f280d3fae",
		QEMU: "qemu-system-aarch64", Console: "ttyAMA0", Kernel: "linux-image-arm64",
	}}
}

// Of returns the architecture with Debian's name.
func Of(debian string) (Arch, error) {
	return find(debian, func(a Arch) string { return a.Debian })
}

// OfRoot returns the architecture whose root partitions have this GPT type.
func OfRoot(guid string) (Arch, error) {
	return find(guid, func(a Arch) string { return a.RootType })
}

// Host returns the architecture this program was compiled for.
func Host() (Arch, error) {
	return find(runtime.GOARCH, func(a Arch) string { return a.GOARCH })
}

func find(want string, name func(Arch) string) (Arch, error) {
	all := table()
	i := slices.IndexFunc(all, func(a Arch) bool { return name(a) == want })
	if i < 0 {
		var known []string
		for _, a := range all {
			known = append(known, name(a))
		}
		return Arch{}, fmt.Errorf("architecture %q is not one of %s", want, strings.Join(known, ", "))
	}
	return all[i], nil
}

// HasBIOS reports whether machines of this architecture may have a BIOS instead of UEFI: PCs.
func (a Arch) HasBIOS() bool { return a.Debian == "amd64" }

// LibDir is the directory of shared libraries in a tree.
func (a Arch) LibDir() string { return "usr/lib/" + a.Triplet }

// Stub and BootLoader are where package systemd-boot-efi has the stub of boot programs and the boot loader.
func (a Arch) Stub() string { return "usr/lib/systemd/boot/efi/linux" + a.EFI + ".efi.stub" }

// BootLoader is described at Stub.
func (a Arch) BootLoader() string { return "usr/lib/systemd/boot/efi/systemd-boot" + a.EFI + ".efi" }

// RemovableLoader is the path on an ESP at which firmware looks without being told.
func (a Arch) RemovableLoader() string { return "EFI/BOOT/BOOT" + strings.ToUpper(a.EFI) + ".EFI" }
