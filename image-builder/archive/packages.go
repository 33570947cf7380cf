package archive

import (
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"

	"github.com/proa-os/proa/image-builder/deb"
	"github.com/proa-os/proa/internal/digest"
)

// Package is one entry of a Packages index. Relation fields are as written there.
type Package struct {
	Name    string
	Version deb.Version
	Arch    string // the index's architecture or "all"
	Suite   string
	// Filename is the path of the package file below the base of the suite's archive.
	Filename string
	Size     int64 // bytes
	SHA256   digest.SHA256

	Depends, PreDepends, Provides, Conflicts, Breaks string
}

// ParsePackages reads an uncompressed Packages index; name is what errors call it.
func ParsePackages(name, suite string, r io.Reader) ([]Package, error) {
	pr := deb.NewParagraphReader(name, r)
	var list []Package
	for {
		p, err := pr.Next()
		if err == io.EOF {
			return list, nil
		}
		if err != nil {
			return nil, err
		}
		pkg, err := parsePackage(p)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: package %q: %w", name, p.Line, p.Get("Package"), err)
		}
		pkg.Suite = suite
		list = append(list, pkg)
	}
}

func parsePackage(p deb.Paragraph) (Package, error) {
	pkg := Package{
		Name:       p.Get("Package"),
		Arch:       p.Get("Architecture"),
		Filename:   p.Get("Filename"),
		Depends:    p.Get("Depends"),
		PreDepends: p.Get("Pre-Depends"),
		Provides:   p.Get("Provides"),
		Conflicts:  p.Get("Conflicts"),
		Breaks:     p.Get("Breaks"),
	}
	if err := deb.CheckName(pkg.Name); err != nil {
		return Package{}, err
	}
	var err error
	if pkg.Version, err = deb.ParseVersion(p.Get("Version")); err != nil {
		return Package{}, err
	}
	if pkg.Size, err = strconv.ParseInt(p.Get("Size"), 10, 64); err != nil || pkg.Size <= 0 || pkg.Size > MaxPackage {
		return Package{}, fmt.Errorf("size %q is not a positive number of at most %d", p.Get("Size"), int64(MaxPackage))
	}
	if pkg.SHA256, err = digest.Parse(p.Get("SHA256")); err != nil {
		return Package{}, err
	}
	if pkg.SHA256.IsZero() {
		return Package{}, errors.New("sha256 is all zero")
	}
	if err := CheckFilename(pkg.Filename); err != nil {
		return Package{}, err
	}
	return pkg, nil
}

// MaxPackage is more bytes than any package file has: an ar archive keeps a member's size in ten digits.
const MaxPackage = 8 << 30

// CheckFilename checks that a package file's path is relative, clean, printable ASCII, means the same in a URL, and ends in .deb.
func CheckFilename(s string) error {
	odd := func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`?#%\`, r) }
	if !strings.HasSuffix(s, ".deb") || path.Clean("/"+s) != "/"+s || strings.ContainsFunc(s, odd) {
		return fmt.Errorf("filename %q is not a path to a .deb below the archive", s)
	}
	return nil
}
