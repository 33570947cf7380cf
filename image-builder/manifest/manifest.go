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
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"

	"github.com/proa-os/proa/image-builder/lock"
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
	// Sum is the hash of the file's bytes; it goes into release.json.
	Sum digest.SHA256 `toml:"-"`
}

// Kernel says which modules stay.
type Kernel struct {
	// Drop lists directories and files below usr/lib/modules/<version>/ that are left out.
	Drop []string `toml:"drop"`
}

// Initramfs says what the boot program carries besides /init.
type Initramfs struct {
	// Modules are names as modprobe takes them; what they depend on is added, built-in ones are left out.
	Modules []string `toml:"modules"`
}

// Boot is about the boot program.
type Boot struct {
	CommandLine string `toml:"command_line"` // put behind the proa.* keys
}

// Tree says how the packages' files become the root image's.
type Tree struct {
	Remove   []string          `toml:"remove"`   // patterns of path.Match and **; one that removes nothing is an error
	Symlinks map[string]string `toml:"symlinks"` // path -> target
	Dirs     []string          `toml:"dirs"`     // empty directories: mount points
	Modes    []Mode            `toml:"mode"`
}

// Busybox names the applets that become programs: links to usr/bin/busybox where no package brings the real one.
type Busybox struct {
	Bin  []string `toml:"bin"`  // in usr/bin
	Sbin []string `toml:"sbin"` // in usr/sbin
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
	return &m, m.check()
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
