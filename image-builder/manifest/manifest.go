// Package manifest is manifests/image.toml: what an image is made of, as data.
//
// The manifest says which packages, files, programs, kernel modules and command line make the root image and the
// boot program; the lock beside it (package lock) says which exact packages those are today. Reading is strict: an
// unknown key is an error, so that a typing mistake never silently builds another system.
package manifest

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"

	"github.com/proa-os/proa/image-builder/lock"
	"github.com/proa-os/proa/internal/arch"
	"github.com/proa-os/proa/internal/digest"
)

// Manifest is the whole file.
type Manifest struct {
	Mirror    string            `toml:"mirror"`   // optional: base URL of the Debian mirror; empty means the host's apt sources
	Packages  lock.Spec         `toml:"packages"` // what `image-builder lock` resolves
	Kernel    Kernel            `toml:"kernel"`
	Initramfs Initramfs         `toml:"initramfs"`
	Boot      Boot              `toml:"boot"`
	Tree      Tree              `toml:"tree"`
	Busybox   Busybox           `toml:"busybox"`
	Programs  map[string]string `toml:"programs"` // path in the root image -> Go package of this module
	Budget    Budget            `toml:"budget"`
	// Sum is the hash of the file's bytes; it goes into release.json.
	Sum digest.SHA256 `toml:"-"`
}

// Kernel says which modules stay: patterns below usr/lib/modules/<version>/, see kernel.Rules.
type Kernel struct {
	Rules
	Arch map[string]Rules `toml:"arch"` // more of them for one architecture
}

// Rules are what to keep, and what of that to drop.
type Rules struct {
	Keep []string `toml:"keep"`
	Drop []string `toml:"drop"`
}

// For returns the rules for an architecture.
func (k Kernel) For(arch string) Rules {
	a := k.Arch[arch]
	return Rules{Keep: slices.Concat(k.Keep, a.Keep), Drop: slices.Concat(k.Drop, a.Drop)}
}

// Initramfs says what the boot program carries besides /init.
type Initramfs struct {
	Modules
	Arch map[string]Modules `toml:"arch"` // more of them for one architecture; they come first
}

// Modules are names as modprobe takes them; what they depend on is added, built-in ones are left out.
type Modules struct {
	Always  []string `toml:"modules"`      // loaded on every machine
	Drivers []string `toml:"drivers"`      // loaded where there is a device for them
	Packed  []string `toml:"packed"`       // drivers too, but stored compressed, as Debian ships them: for what few machines have
	Root    []string `toml:"root_modules"` // loaded from the root image, once it is mounted
}

// For returns the modules for an architecture.
func (i Initramfs) For(arch string) Modules {
	a := i.Arch[arch]
	return Modules{
		Always: slices.Concat(a.Always, i.Always), Drivers: slices.Concat(a.Drivers, i.Drivers),
		Packed: slices.Concat(a.Packed, i.Packed), Root: slices.Concat(a.Root, i.Root),
	}
}

// Boot is about the boot program.
type Boot struct {
	CommandLine string `toml:"command_line"` // put behind the proa.* keys
}

// Tree says how the packages' files become the root image's.
type Tree struct {
	Remove   []string          `toml:"remove"`   // patterns of path.Match and **, ${triplet} is Debian's directory of libraries; one that removes nothing is an error
	Symlinks map[string]string `toml:"symlinks"` // path -> target
	Dirs     []string          `toml:"dirs"`     // empty directories: mount points
	Modes    []Mode            `toml:"mode"`
}

// Busybox names the applets that become programs: links to usr/bin/busybox where no package brings the real one.
type Busybox struct {
	Bin  []string `toml:"bin"`  // in usr/bin
	Sbin []string `toml:"sbin"` // in usr/sbin
}

// Budget says what an image may cost at the most. What is not given has no limit.
type Budget struct {
	RootImage     Size            `toml:"root_image"`      // with its verity tree
	RootImageZstd Size            `toml:"root_image_zstd"` // the same, compressed as payloads are
	BootProgram   Size            `toml:"boot_program"`
	Packages      Size            `toml:"packages"`     // a number
	SetuidFiles   Size            `toml:"setuid_files"` // a number, for setgid ones too; none if not given
	Files         map[string]Size `toml:"files"`        // the size of a file of the root image, by its path
	IdleMemory    Size            `toml:"idle_memory"`  // in use on a machine after its boot; a story measures it
}

// Size is a number of bytes, or of things, given as a number or as "320 MB" or "1.5 GB", of 1000 bytes to the kB.
type Size int64

// UnmarshalTOML reads either form.
func (s *Size) UnmarshalTOML(v any) error {
	switch v := v.(type) {
	case int64:
		*s = Size(v)
	case string:
		number, unit, _ := strings.Cut(v, " ")
		scale, ok := map[string]float64{"kB": 1e3, "MB": 1e6, "GB": 1e9}[unit]
		n, err := strconv.ParseFloat(number, 64)
		if !ok || err != nil || n < 0 || n*scale > 1<<53 {
			return fmt.Errorf(`size %q: want a number of bytes or one such as "320 MB"`, v)
		}
		*s = Size(n * scale)
	default:
		return fmt.Errorf("size %v: want a number or text", v)
	}
	if *s < 0 {
		return fmt.Errorf("size %d is negative", *s)
	}
	return nil
}

// Mode sets what git cannot carry.
type Mode struct {
	Path string `toml:"path"`
	Mode string `toml:"mode"` // octal
	UID  int    `toml:"uid"`
	GID  int    `toml:"gid"`
}

// Perm returns the permission bits.
func (m Mode) Perm() (uint32, error) {
	v, err := strconv.ParseUint(m.Mode, 8, 12)
	if err != nil {
		return 0, fmt.Errorf("mode %q of %s: want octal digits such as 0640", m.Mode, m.Path)
	}
	return uint32(v), nil
}

// Read reads and checks the file.
func Read(name string) (*Manifest, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	m, err := Parse(b)
	if err != nil {
		return nil, fmt.Errorf("read manifest %s: %w", name, err)
	}
	return m, nil
}

// Parse is Read for bytes.
func Parse(b []byte) (*Manifest, error) {
	var m Manifest
	md, err := toml.Decode(string(b), &m)
	if err != nil {
		if pe := (toml.ParseError{}); errors.As(err, &pe) {
			return nil, fmt.Errorf("line %d: %s", pe.Position.Line, pe.Message)
		}
		return nil, err
	}
	if u := md.Undecoded(); len(u) > 0 {
		return nil, fmt.Errorf("unknown key %q", u[0].String())
	}
	m.Sum = digest.Of(b)
	if err := m.expand(); err != nil {
		return nil, err
	}
	return &m, m.check()
}

// expand replaces ${arch} in names of packages, as in linux-image-amd64, and ${triplet} in patterns by Debian's name of the directory of
// libraries: x86_64-linux-gnu. There are no other variables.
func (m *Manifest) expand() error {
	if m.Packages.Arch == "" {
		return nil // check says so
	}
	a, err := arch.Of(m.Packages.Arch)
	if err != nil {
		return fmt.Errorf("packages.arch: %w", err)
	}
	for _, v := range []struct {
		key, name, value string
		list             []string
	}{
		{"packages.include", "${arch}", a.Debian, m.Packages.Include},
		{"tree.remove", "${triplet}", a.Triplet, m.Tree.Remove},
	} {
		for i, s := range v.list {
			v.list[i] = strings.ReplaceAll(s, v.name, v.value)
			if strings.Contains(v.list[i], "${") {
				return fmt.Errorf("%s: %q: the only variable here is %s", v.key, s, v.name)
			}
		}
	}
	return nil
}

func (m *Manifest) check() error {
	if err := m.Packages.Validate(); err != nil {
		return fmt.Errorf("packages: %w", err)
	}
	switch {
	case strings.ContainsAny(m.Boot.CommandLine, "\n\x00"):
		return errors.New("boot.command_line must be one line")
	case strings.Contains(m.Boot.CommandLine, "proa."):
		return errors.New("boot.command_line: the proa.* keys are written by the builder")
	}
	for _, md := range m.Tree.Modes {
		if _, err := md.Perm(); err != nil {
			return err
		}
	}
	for p, pkg := range m.Programs {
		if !strings.HasPrefix(pkg, "./") {
			return fmt.Errorf("programs: %s: want a package of this module such as ./init/cmd/init, found %q", p, pkg)
		}
	}
	for _, pattern := range m.Tree.Remove {
		if _, err := path.Match(pattern, ""); err != nil || strings.HasPrefix(pattern, "/") {
			return fmt.Errorf("tree.remove: %q: want a pattern of path.Match, or with ** for any directories, without a leading slash", pattern)
		}
	}
	return nil
}
