// Package inspect says what is in an image file: partitions, slots, boot programs, the release's version and packages.
//
// It reads a disk image (raw or qcow2), a root image, a boot program, or the directory of a built release, of which it takes the disk image. All comes out
// of the file's own bytes, by the formats' own rules and as the machine would find it: a slot by its EROFS and verity superblocks, a
// boot program by its name and command line in the ESP. release.json is not asked. No root and no loop devices are needed.
//
// Anything that is not as the builder writes it is an error or, where a machine could have come to it by itself (an empty slot, half an
// update), said as such.
package inspect

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/proa-os/proa/image-builder/qcow2"
	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/release"
)

// The kinds of image files.
const (
	KindDisk = "disk"
	KindRoot = "root image"
	KindBoot = "boot program"
)

// An Image is what was found in a file. The JSON form is `image-builder inspect --json`.
type Image struct {
	File   string `json:"file"`
	Format string `json:"format"` // "raw" or "qcow2"
	Kind   string `json:"kind"`
	Size   int64  `json:"size"` // bytes
	// SectorSizes are those for which the disk has a partition table, in bytes.
	SectorSizes []int         `json:"sector_sizes,omitempty"`
	DiskGUID    string        `json:"disk_guid,omitempty"`
	Partitions  []Partition   `json:"partitions,omitempty"`
	Slots       []Slot        `json:"slots,omitempty"`
	Programs    []BootProgram `json:"boot_programs,omitempty"`
	Addons      []Addon       `json:"addons,omitempty"`
	// Warnings are what a person should know and a machine can live with.
	Warnings []string `json:"warnings,omitempty"`
}

// A Partition is an entry of the partition table.
type Partition struct {
	Number int    `json:"number"`
	Name   string `json:"name"`
	Type   string `json:"type"`
	GUID   string `json:"guid"`
	Start  int64  `json:"start"` // bytes
	Size   int64  `json:"size"`  // bytes
}

// A Slot is a place for a root image. A root image in a file of its own counts as one called "root.img".
type Slot struct {
	Name       string            `json:"name"`
	Filled     bool              `json:"filled"`
	Version    string            `json:"version,omitempty"`     // IMAGE_VERSION of its os-release
	RootHash   *digest.SHA256    `json:"root_hash,omitempty"`   // of its verity tree
	HashOffset int64             `json:"hash_offset,omitempty"` // bytes
	Size       int64             `json:"size,omitempty"`        // bytes, file system and tree
	Programs   []string          `json:"boot_programs,omitempty"`
	Packages   []release.Package `json:"packages,omitempty"`
	// Verified is absent unless it was asked for: whether every block and the whole tree lead to the root hash.
	Verified *bool `json:"verified,omitempty"`
}

// A BootProgram is a file of the ESP's EFI/Linux, or a file of its own.
type BootProgram struct {
	File        string        `json:"file"`
	Size        int64         `json:"size"` // bytes
	SHA256      digest.SHA256 `json:"sha256"`
	Version     string        `json:"version,omitempty"`
	Good        bool          `json:"good"`
	TriesLeft   int           `json:"tries_left,omitempty"`
	TriesDone   int           `json:"tries_done,omitempty"`
	Kernel      string        `json:"kernel,omitempty"`
	RootHash    digest.SHA256 `json:"root_hash"`
	HashOffset  int64         `json:"hash_offset"`
	CommandLine string        `json:"command_line"`
	Sections    []Section     `json:"sections"`
}

// An Addon is a file of the ESP's loader/addons, whose words systemd-stub puts behind the command line of every boot program.
type Addon struct {
	File        string `json:"file"`
	CommandLine string `json:"command_line"`
}

// A Section is a part of a boot program.
type Section struct {
	Name   string        `json:"name"`
	Size   int64         `json:"size"` // bytes
	SHA256 digest.SHA256 `json:"sha256"`
}

// Options say how closely to look.
type Options struct {
	Verify bool // hash every block of the root images
}

// A Source is an opened image file, whose bytes are those of the disk, whatever the file's format.
type Source struct {
	io.ReaderAt
	Name   string
	Format string // "raw" or "qcow2"
	Size   int64  // bytes
	file   *os.File
}

// Open opens an image file, or the disk image of a release's directory. The caller closes it.
func Open(name string) (*Source, error) {
	if fi, err := os.Stat(name); err == nil && fi.IsDir() {
		name = filepath.Join(name, "disk.img")
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("open image: %w", err)
	}
	s := &Source{ReaderAt: f, Name: name, Format: "raw", file: f}
	head := make([]byte, 4)
	if s.Size, err = f.Seek(0, io.SeekEnd); err == nil && s.Size >= int64(len(head)) {
		_, err = f.ReadAt(head, 0)
	}
	if err == nil && qcow2.IsQcow2(head) {
		var d *qcow2.Disk
		if d, err = qcow2.Open(f); err == nil {
			s.ReaderAt, s.Format, s.Size = d, "qcow2", d.Size()
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open image %s: %w", name, err)
	}
	return s, nil
}

// Close closes the file.
func (s *Source) Close() error { return s.file.Close() }

// File looks into an image file, or into the disk image of a release's directory.
func File(name string, o Options) (*Image, error) {
	s, err := Open(name)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	i, err := Read(s, s.Size, o)
	if err != nil {
		return nil, fmt.Errorf("inspect %s: %w", s.Name, err)
	}
	i.File, i.Format = s.Name, s.Format
	return i, nil
}

// Read is File for size bytes of r.
func Read(r io.ReaderAt, size int64, o Options) (*Image, error) {
	i := &Image{Size: size}
	kind, err := kindOf(r)
	if err != nil {
		return nil, err
	}
	i.Kind = kind
	switch kind {
	case KindDisk:
		err = i.disk(r, size, o)
	case KindRoot:
		var s Slot
		s, err = slot("root.img", r, size, o)
		i.Slots = []Slot{s}
	case KindBoot:
		var p BootProgram
		p, err = bootProgram(r, size)
		i.Programs = []BootProgram{p}
	}
	return i, err
}

// kindOf goes by magic numbers.
func kindOf(r io.ReaderAt) (string, error) {
	b := make([]byte, 8192)
	n, err := r.ReadAt(b, 0)
	if n < len(b) && err != io.EOF {
		return "", err
	}
	switch b = b[:n]; {
	case len(b) < 4096:
		return "", fmt.Errorf("%d bytes are no image", n)
	case string(b[512:520]) == "EFI PART" || string(b[4096:4104]) == "EFI PART":
		return KindDisk, nil
	case string(b[1024:1028]) == "\xe2\xe1\xf5\xe0":
		return KindRoot, nil
	case string(b[:2]) == "MZ":
		return KindBoot, nil
	}
	return "", errors.New("neither a disk image with a GPT, a root image nor a boot program")
}

// Slot returns the slot with this root hash, or nil.
func (i *Image) Slot(root digest.SHA256) *Slot {
	for n, s := range i.Slots {
		if s.RootHash != nil && *s.RootHash == root {
			return &i.Slots[n]
		}
	}
	return nil
}

func (i *Image) warn(format string, a ...any) {
	i.Warnings = append(i.Warnings, fmt.Sprintf(format, a...))
}

// version turns os-release's spelling of a pre-release into semver's.
func version(s string) string { return strings.Replace(s, "~", "-", 1) }
