// Package release is release.json: what one release is, for one architecture.
//
// image-builder writes it beside the images, the release desk adds the payloads and signs it as a TUF target,
// the update agent trusts it only after TUF has verified it. The byte format is in docs/formats.md.
//
// Whoever makes releases refuses keys that it does not know (Parse); machines ignore them, so that old ones read new releases (Read). A
// key that must be understood comes with a higher format, which old readers refuse.
package release

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/coreos/go-semver/semver"

	"github.com/proa-os/proa/internal/digest"
)

// format is the only one so far; no file says it.
const format = 1

// Release describes one release (docs/formats.md, "release.json").
type Release struct {
	Format   int         `json:"format,omitzero"` // 0 is 1
	Version  string      `json:"version"`         // semver 2.0, without a leading v
	Arch     string      `json:"arch"`            // as GOARCH: amd64
	Root     RootImage   `json:"root_image"`
	Boot     BootProgram `json:"boot_program"`
	Packages []Package   `json:"packages"`
	// Payloads is absent until the release desk has made them.
	Payloads *Payloads `json:"payloads,omitempty"`
	// MinSource is the oldest version that can update straight to this one; empty means any.
	MinSource string `json:"min_source,omitempty"`
	Build     Build  `json:"build"`
}

// RootImage is the EROFS file system followed by its verity superblock and tree.
type RootImage struct {
	Size       int64         `json:"size"`        // bytes, EROFS and tree
	SHA256     digest.SHA256 `json:"sha256"`      // of all Size bytes
	RootHash   digest.SHA256 `json:"root_hash"`   // of the verity tree
	Salt       string        `json:"salt"`        // hexadecimal
	HashOffset int64         `json:"hash_offset"` // bytes: the size of the EROFS part, where the verity superblock starts
}

// BootProgram is the UKI.
type BootProgram struct {
	Size   int64         `json:"size"` // bytes
	SHA256 digest.SHA256 `json:"sha256"`
	// What a machine compares with its own before it has downloaded anything, to tell how it will reboot.
	Linux       digest.SHA256 `json:"linux_sha256,omitzero"` // of section .linux
	CommandLine string        `json:"command_line,omitempty"`
}

// Package is a Debian package in the root image.
type Package struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// Payloads are the ways to reach a release.
type Payloads struct {
	Full   Payload                   `json:"full"`
	Deltas map[digest.SHA256]Payload `json:"deltas,omitempty"` // by the root hash of the root image that must be running
}

// Payload names a TUF target.
type Payload struct {
	Name   string        `json:"name"` // target path in the repository
	Size   int64         `json:"size"` // bytes
	SHA256 digest.SHA256 `json:"sha256"`
	// Manifest is the sum of the payload's header and manifest, which name the sums of its segments: what authenticates a payload
	// that is not read from its first byte.
	Manifest digest.SHA256 `json:"manifest_sha256"`
}

// Build says where a release comes from; it holds nothing of the build host.
type Build struct {
	GoVersion string        `json:"go_version"`
	Manifest  digest.SHA256 `json:"manifest_sha256"`
	Lock      digest.SHA256 `json:"lock_sha256"`
	// Tools is the lock of the programs that made the images, boot loader and stub among them.
	Tools digest.SHA256 `json:"tools_lock_sha256"`
	// SBOM is the bill of materials beside the images.
	SBOM digest.SHA256 `json:"sbom_sha256"`
}

// Parse reads and validates release.json; unknown keys are errors.
func Parse(b []byte) (*Release, error) { return parse(b, true) }

// Read is Parse for machines: unknown keys are ignored.
func Read(b []byte) (*Release, error) { return parse(b, false) }

func parse(b []byte, strict bool) (*Release, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	if strict {
		d.DisallowUnknownFields()
	}
	var r Release
	if err := d.Decode(&r); err != nil {
		return nil, fmt.Errorf("parse release: %w", err)
	}
	if d.More() {
		return nil, fmt.Errorf("parse release: data after the object")
	}
	if err := r.Validate(); err != nil {
		return nil, fmt.Errorf("parse release: %w", err)
	}
	return &r, nil
}

// Validate checks what every reader relies on.
func (r *Release) Validate() error {
	if r.Format != 0 && r.Format != format {
		return fmt.Errorf("format %d, this program reads %d: update in smaller steps", r.Format, format)
	}
	if _, err := semver.NewVersion(r.Version); err != nil {
		return fmt.Errorf("version %q: %w", r.Version, err)
	}
	if r.Arch == "" {
		return fmt.Errorf("version %s: no arch", r.Version)
	}
	const block = 4096
	root := r.Root
	switch {
	case root.HashOffset <= 0 || root.HashOffset%block != 0:
		return fmt.Errorf("root image of %s: hash offset %d is not a positive multiple of %d", r.Version, root.HashOffset, block)
	case root.Size <= root.HashOffset+block || root.Size%block != 0:
		return fmt.Errorf("root image of %s: size %d does not hold a verity tree behind offset %d", r.Version, root.Size, root.HashOffset)
	case root.RootHash.IsZero() || root.SHA256.IsZero():
		return fmt.Errorf("root image of %s: no hash", r.Version)
	case r.Boot.Size <= 0 || r.Boot.SHA256.IsZero():
		return fmt.Errorf("boot program of %s: no size or hash", r.Version)
	}
	return r.Payloads.validate(r)
}

// validate accepts nil: payloads that are not made yet.
func (p *Payloads) validate(r *Release) error {
	if p == nil {
		return nil
	}
	if err := p.Full.validate(); err != nil {
		return fmt.Errorf("full payload of %s: %w", r.Version, err)
	}
	for source, delta := range p.Deltas {
		if source.IsZero() || source == r.Root.RootHash {
			return fmt.Errorf("delta of %s from root hash %s: there is no way from there", r.Version, source)
		}
		if err := delta.validate(); err != nil {
			return fmt.Errorf("delta of %s from root hash %s: %w", r.Version, source, err)
		}
	}
	return nil
}

func (p Payload) validate() error {
	switch {
	case p.Name == "":
		return fmt.Errorf("no name")
	case p.Size <= 0:
		return fmt.Errorf("size of %d bytes", p.Size)
	case p.SHA256.IsZero() || p.Manifest.IsZero():
		return fmt.Errorf("no hash")
	}
	return nil
}

// Marshal returns the canonical bytes: indented by two spaces, one newline at the end.
func (r *Release) Marshal() ([]byte, error) {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write release %s: %w", r.Version, err)
	}
	return append(b, '\n'), nil
}
