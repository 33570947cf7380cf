package sbom

import (
	"cmp"
	"fmt"
	"io"
	"net/mail"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/proa-os/proa/image-builder/deb"
	"github.com/proa-os/proa/image-builder/lock"
	"github.com/proa-os/proa/internal/digest"
)

// Debian is a package of the lock with what its control file says (deb-control(5)).
type Debian struct {
	lock.Package
	Source     string `json:"source"` // as written: name, with the version in parentheses if it is another
	Maintainer string `json:"maintainer"`
	Homepage   string `json:"homepage"`
	Depends    string `json:"depends"` // Pre-Depends and Depends
	Provides   string `json:"provides"`
	Parts      []Part `json:"parts"`
}

// ReadDebian reads the control file of a package file, which is compared with the lock once more.
func ReadDebian(file string, p lock.Package) (Debian, error) {
	f, err := os.Open(file)
	if err != nil {
		return Debian{}, fmt.Errorf("read control file of %s: %w", p, err)
	}
	defer f.Close()
	verified := digest.NewReader(file, f, p.Size, p.SHA256)
	d, err := deb.NewReader(verified)
	if err != nil {
		return Debian{}, fmt.Errorf("read control file of %s: %w", p, err)
	}
	defer d.Close()
	c := d.Control
	if _, err := io.Copy(io.Discard, verified); err != nil {
		return Debian{}, fmt.Errorf("read control file of %s: %w", p, err)
	}
	if c.Get("Package") != p.Name || c.Get("Version") != p.Version {
		return Debian{}, fmt.Errorf("read control file of %s: it is of %s %s", p, c.Get("Package"), c.Get("Version"))
	}
	return Debian{
		Package: p, Source: cmp.Or(c.Get("Source"), p.Name), Maintainer: c.Get("Maintainer"), Homepage: c.Get("Homepage"),
		Depends: strings.Trim(c.Get("Pre-Depends")+","+c.Get("Depends"), ","), Provides: c.Get("Provides"),
	}, nil
}

// debian adds the packages and what they depend on within the image: packages that were left out on purpose are not there.
func (b *builder) debian(list []Debian, parts map[Part]string) error {
	provided := map[string][]string{} // name -> identifiers
	for _, p := range list {
		id := b.add("deb", p.Name, p.pkg())
		for _, part := range p.Parts {
			b.relate(parts[part], "CONTAINS", id)
		}
		names, err := deb.ParseRelations(p.Provides)
		if err != nil {
			return fmt.Errorf("%s provides: %w", p.Name, err)
		}
		provided[p.Name] = append(provided[p.Name], id)
		for _, group := range names {
			provided[group[0].Name] = append(provided[group[0].Name], id)
		}
	}
	for _, p := range list {
		groups, err := deb.ParseRelations(p.Depends)
		if err != nil {
			return fmt.Errorf("%s depends: %w", p.Name, err)
		}
		self := b.ids["deb "+p.Name]
		for _, group := range groups {
			for _, alternative := range group {
				if ids := provided[alternative.Name]; len(ids) > 0 && !slices.Contains(ids, self) {
					b.relate(self, "DEPENDS_ON", ids[0])
					break
				}
			}
		}
	}
	return nil
}

func (p Debian) pkg() pkg {
	out := pkg{
		Name: p.Name, VersionInfo: p.Version, PackageFileName: p.Filename, Supplier: "Organization: Debian", Originator: person(p.Maintainer),
		Homepage: p.Homepage, SourceInfo: "built from Debian source package " + p.Source,
		Checksums:    []checksum{{"SHA256", p.SHA256.String()}},
		ExternalRefs: []externalRef{{"PACKAGE-MANAGER", "purl", p.purl()}},
	}
	if u, err := url.Parse(p.Homepage); err != nil || u.Scheme == "" || u.Host == "" {
		out.Homepage = ""
	}
	return out
}

// purl is the package URL (purl-spec, type deb).
func (p Debian) purl() string {
	suite, _, _ := strings.Cut(p.Suite, "-")
	s := fmt.Sprintf("pkg:deb/debian/%s@%s?arch=%s", escape(p.Name), escape(p.Version), escape(p.Arch))
	if suite != "" {
		s += "&distro=" + escape(suite)
	}
	return s
}

// escape leaves what RFC 3986 calls unreserved.
func escape(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }

// person turns "Name <address>" into SPDX's "Person: Name (address)"; teams are organizations.
func person(maintainer string) string {
	if maintainer == "" {
		return ""
	}
	kind, name, address := "Person", maintainer, ""
	if a, err := mail.ParseAddress(maintainer); err == nil {
		name, address = cmp.Or(a.Name, a.Address), a.Address
	} else if n, rest, ok := strings.Cut(maintainer, "<"); ok {
		name, address = strings.TrimSpace(n), strings.TrimSuffix(strings.TrimSpace(rest), ">")
	}
	lower := strings.ToLower(name)
	for _, word := range []string{"team", "maintainers", "developers", "group", "project", "debian "} {
		if strings.Contains(lower, word) {
			kind = "Organization"
		}
	}
	if address == "" {
		return fmt.Sprintf("%s: %s", kind, name)
	}
	return fmt.Sprintf("%s: %s (%s)", kind, name, address)
}
