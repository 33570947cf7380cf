// Package lock pins the packages of an image: the lock file says, byte for byte, what a build uses.
//
// Run resolves a manifest's package list against the signed archive, says what changes, and writes the lock; it is the only thing
// that reads indexes. Fetch brings exactly the locked files into the cache. Everything after that works from the cache.
//
// The lock is JSON, one package a line, sorted by name, so that a diff of two locks reads as a list of upgrades:
//
//	{
//	  "format": 1,
//	  "arch": "amd64",
//	  "spec": "<sha256 of the package list it was resolved from>",
//	  "suites": [
//	    {"name":"trixie","date":"2025-08-09T09:12:33Z"}
//	  ],
//	  "packages": [
//	    {"name":"libc6","version":"2.41-12","arch":"amd64","archive":"main","suite":"trixie","filename":"pool/...","size":1,"sha256":"..."}
//	  ]
//	}
//
// The date of a suite is that of the signed index which the lock was resolved from. A later lock accepts no older one: a signature
// does not expire (plain trixie has no Valid-Until), so without the date a mirror could replay a state from before a security fix.
//
// A lock names archives, never mirrors: filename is relative to the base of any mirror of that archive. Whoever controls the lock
// controls the image; whoever controls the mirror controls nothing.
package lock

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/proa-os/proa/image-builder/archive"
	"github.com/proa-os/proa/image-builder/deb"
	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/durable"
)

// Format is the version of the file format that this package writes and the only one it reads.
const Format = 1

// Lock is the content of a lock file.
type Lock struct {
	Format   int           `json:"format"`
	Arch     string        `json:"arch"` // Debian's name: amd64
	Spec     digest.SHA256 `json:"spec"` // Spec.Sum of the package list
	Suites   []Suite       `json:"suites,omitempty"`
	Packages []Package     `json:"packages"`
}

// Suite is the signed state of a suite.
type Suite struct {
	Name string    `json:"name"`
	Date time.Time `json:"date"` // in UTC, to the second
}

// Package is one pinned package file.
type Package struct {
	Name     string        `json:"name"`
	Version  string        `json:"version"`
	Arch     string        `json:"arch"`
	Archive  archive.ID    `json:"archive"`
	Suite    string        `json:"suite"`
	Filename string        `json:"filename"` // below the base of a mirror of Archive
	Size     int64         `json:"size"`     // bytes
	SHA256   digest.SHA256 `json:"sha256"`
}

func (p Package) String() string { return p.Name + " " + p.Version }

// New makes a lock of packages resolved from suites.
func New(spec Spec, suites []Suite, packages []archive.Package) *Lock {
	l := &Lock{Format: Format, Arch: spec.Arch, Spec: spec.Sum(), Suites: suites}
	for _, p := range packages {
		l.Packages = append(l.Packages, Package{
			Name:     p.Name,
			Version:  p.Version.String(),
			Arch:     p.Arch,
			Archive:  archive.Of(p.Suite),
			Suite:    p.Suite,
			Filename: p.Filename,
			Size:     p.Size,
			SHA256:   p.SHA256,
		})
	}
	slices.SortFunc(l.Packages, byName)
	return l
}

func byName(a, b Package) int { return cmp.Compare(a.Name, b.Name) }

// Parse reads a lock; unknown keys, another format, a wrong order and malformed entries are errors.
func Parse(b []byte) (*Lock, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	var l Lock
	if err := d.Decode(&l); err != nil {
		return nil, fmt.Errorf("parse lock: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("parse lock: data after the object")
	}
	if l.Format != Format {
		return nil, fmt.Errorf("parse lock: expected format %d, found %d; run image-builder lock", Format, l.Format)
	}
	if err := checkSuites(l.Suites); err != nil {
		return nil, fmt.Errorf("parse lock: %w", err)
	}
	for i, p := range l.Packages {
		if err := p.validate(l.Arch); err != nil {
			return nil, fmt.Errorf("parse lock: package %d, %q: %w", i, p.Name, err)
		}
		if i > 0 && l.Packages[i-1].Name >= p.Name {
			return nil, fmt.Errorf("parse lock: package %q does not sort behind %q", p.Name, l.Packages[i-1].Name)
		}
	}
	return &l, nil
}

func checkSuites(suites []Suite) error {
	for i, s := range suites {
		switch {
		case !validSuite(s.Name):
			return fmt.Errorf("suite %q is not a codename", s.Name)
		case slices.ContainsFunc(suites[:i], func(o Suite) bool { return o.Name == s.Name }):
			return fmt.Errorf("suite %s is there twice", s.Name)
		case s.Date.IsZero() || s.Date.Location() != time.UTC || s.Date.Nanosecond() != 0:
			return fmt.Errorf("suite %s: expected a date in UTC to the second, found %s", s.Name, s.Date.Format(time.RFC3339Nano))
		}
	}
	return nil
}

func (p Package) validate(arch string) error {
	if err := deb.CheckName(p.Name); err != nil {
		return err
	}
	if _, err := deb.ParseVersion(p.Version); err != nil {
		return err
	}
	switch {
	case p.Arch != arch && p.Arch != "all":
		return fmt.Errorf("architecture %q is neither %s nor all", p.Arch, arch)
	case p.Archive != archive.Main && p.Archive != archive.Security:
		return fmt.Errorf("archive %q is neither %s nor %s", p.Archive, archive.Main, archive.Security)
	case p.Size <= 0 || p.Size > archive.MaxPackage:
		return fmt.Errorf("size %d is not positive and at most %d", p.Size, int64(archive.MaxPackage))
	case p.SHA256.IsZero():
		return errors.New("no sha256")
	}
	return archive.CheckFilename(p.Filename)
}

// Read reads and parses the file.
func Read(file string) (*Lock, error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("read lock: %w; run image-builder lock", err)
	}
	if err != nil {
		return nil, fmt.Errorf("read lock: %w", err)
	}
	l, err := Parse(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return l, nil
}

// Marshal returns the canonical bytes.
func (l *Lock) Marshal() ([]byte, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "{\n  \"format\": %d,\n  \"arch\": %q,\n  \"spec\": %q,\n", l.Format, l.Arch, l.Spec)
	if len(l.Suites) > 0 { // locks of before suites were recorded stay as they are
		if err := marshalLines(&b, "suites", l.Suites); err != nil {
			return nil, fmt.Errorf("write lock: %w", err)
		}
		b.WriteString(",\n")
	}
	if err := marshalLines(&b, "packages", l.Packages); err != nil {
		return nil, fmt.Errorf("write lock: %w", err)
	}
	b.WriteString("\n}\n")
	return b.Bytes(), nil
}

// marshalLines writes a list with one element a line, without json.Marshal's escaping of "<", ">" and "&".
func marshalLines[T any](b *bytes.Buffer, key string, list []T) error {
	fmt.Fprintf(b, "  %q: [", key)
	e := json.NewEncoder(b)
	e.SetEscapeHTML(false)
	for i, v := range list {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString("\n    ")
		if err := e.Encode(v); err != nil {
			return err
		}
		b.Truncate(b.Len() - 1) // the newline
	}
	b.WriteString("\n  ]")
	return nil
}

// Sum is the sum of the canonical bytes.
func (l *Lock) Sum() (digest.SHA256, error) {
	b, err := l.Marshal()
	if err != nil {
		return digest.SHA256{}, err
	}
	return digest.Of(b), nil
}

// PackagesSum is the sum of the packages alone: it stays the same when a newer state of the archive, or another package list, comes to
// the same packages.
func (l *Lock) PackagesSum() (digest.SHA256, error) {
	bare := *l
	bare.Spec, bare.Suites = digest.SHA256{}, nil
	return bare.Sum()
}

// Write replaces the file in one step.
func (l *Lock) Write(file string) error {
	b, err := l.Marshal()
	if err != nil {
		return err
	}
	if err := durable.WritePath(file, b, 0o644); err != nil {
		return fmt.Errorf("write lock: %w", err)
	}
	return nil
}

// Check fails if the lock was resolved from another package list than spec.
func (l *Lock) Check(spec Spec) error {
	if l.Spec != spec.Sum() {
		return errors.New("check lock: the manifest's package list has changed since the lock was made; run image-builder lock")
	}
	return nil
}

// Find returns the package of that name.
func (l *Lock) Find(name string) (Package, bool) {
	i, ok := slices.BinarySearchFunc(l.Packages, Package{Name: name}, byName)
	if !ok {
		return Package{}, false
	}
	return l.Packages[i], true
}
