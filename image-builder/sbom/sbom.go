// Package sbom writes the software bill of materials of a release: sbom.spdx.json, SPDX 2.3 in JSON.
//
// It says what the images are made of, so that a scanner finds what a vulnerability touches without opening them:
//
//	DOCUMENT -DESCRIBES-> disk image
//	disk image -CONTAINS-> root image, boot program, the packages of the boot loaders
//	root image -CONTAINS-> Debian packages, our programs
//	boot program -CONTAINS-> the packages of kernel and stub, /init
//	Debian package -DEPENDS_ON-> Debian packages of the same image
//	our program -DEPENDS_ON-> Go modules it links (debug/buildinfo), Go's standard library
//
// Debian packages and modules have package URLs. Debian's checksum is that of the .deb; where it came from is a path below any mirror, never
// a host. Licenses are NOASSERTION but for our own programs: Debian's control files do not declare any.
//
// The document depends on the release alone: its time is the builder's constant one, its namespace holds the sum of everything else in it.
package sbom

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/proa-os/proa/internal/digest"
)

// Input is what a release is made of.
type Input struct {
	Version  string // of the release, semver
	Arch     string
	Created  time.Time
	Disk     Image // its sum may be zero
	Root     Image
	Boot     Image
	Debian   []Debian
	Programs []Program
}

// A Part is an image that a package is, or has left something, in.
type Part string

// The parts of a release.
const (
	InDisk Part = "disk image"
	InRoot Part = "root image"
	InBoot Part = "boot program"
)

// An Image is one of the release's files.
type Image struct {
	File   string
	SHA256 digest.SHA256
}

const (
	license   = "Apache-2.0" // of this repository
	noAnswer  = "NOASSERTION"
	namespace = "https://github.com/proa-os/proa/spdx/"
)

// The parts of SPDX 2.3 that are used (clauses 6, 7 and 11 of the specification; JSON names from its schema).
type document struct {
	SPDXVersion       string         `json:"spdxVersion"`
	DataLicense       string         `json:"dataLicense"`
	SPDXID            string         `json:"SPDXID"`
	Name              string         `json:"name"`
	DocumentNamespace string         `json:"documentNamespace"`
	CreationInfo      creationInfo   `json:"creationInfo"`
	Packages          []pkg          `json:"packages"`
	Relationships     []relationship `json:"relationships"`
}

type creationInfo struct {
	Created  string   `json:"created"`
	Creators []string `json:"creators"`
}

type pkg struct {
	Name             string        `json:"name"`
	SPDXID           string        `json:"SPDXID"`
	VersionInfo      string        `json:"versionInfo,omitempty"`
	PackageFileName  string        `json:"packageFileName,omitempty"`
	Supplier         string        `json:"supplier,omitempty"`
	Originator       string        `json:"originator,omitempty"`
	DownloadLocation string        `json:"downloadLocation"`
	FilesAnalyzed    bool          `json:"filesAnalyzed"`
	Checksums        []checksum    `json:"checksums,omitempty"`
	Homepage         string        `json:"homepage,omitempty"`
	SourceInfo       string        `json:"sourceInfo,omitempty"`
	LicenseConcluded string        `json:"licenseConcluded"`
	LicenseDeclared  string        `json:"licenseDeclared"`
	CopyrightText    string        `json:"copyrightText"`
	ExternalRefs     []externalRef `json:"externalRefs,omitempty"`
	Purpose          string        `json:"primaryPackagePurpose,omitempty"`
}

type checksum struct {
	Algorithm string `json:"algorithm"`
	Value     string `json:"checksumValue"`
}

type externalRef struct {
	Category string `json:"referenceCategory"`
	Type     string `json:"referenceType"`
	Locator  string `json:"referenceLocator"`
}

type relationship struct {
	Element string `json:"spdxElementId"`
	Type    string `json:"relationshipType"`
	Related string `json:"relatedSpdxElement"`
}

const documentID = "SPDXRef-DOCUMENT"

// builder collects the document.
type builder struct {
	packages  []pkg
	relations []relationship
	ids       map[string]string // by kind and name
	used      map[string]bool   // identifiers
}

// Marshal returns the document.
func Marshal(in Input) ([]byte, error) {
	b := &builder{ids: map[string]string{}, used: map[string]bool{documentID: true}}
	parts := map[Part]string{
		InDisk: b.image(InDisk, "OPERATING-SYSTEM", in.Disk, in), InRoot: b.image(InRoot, "OPERATING-SYSTEM", in.Root, in), InBoot: b.image(InBoot, "FIRMWARE", in.Boot, in),
	}
	b.relate(documentID, "DESCRIBES", parts[InDisk])
	b.relate(parts[InDisk], "CONTAINS", parts[InRoot])
	b.relate(parts[InDisk], "CONTAINS", parts[InBoot])
	if err := b.debian(in.Debian, parts); err != nil {
		return nil, fmt.Errorf("write bill of materials: %w", err)
	}
	for _, p := range in.Programs {
		b.program(p, in.Version, parts)
	}
	slices.SortFunc(b.packages, func(a, b pkg) int { return cmp.Compare(a.SPDXID, b.SPDXID) })
	slices.SortFunc(b.relations, func(a, b relationship) int {
		return cmp.Or(cmp.Compare(a.Element, b.Element), cmp.Compare(a.Type, b.Type), cmp.Compare(a.Related, b.Related))
	})
	d := document{
		SPDXVersion: "SPDX-2.3", DataLicense: "CC0-1.0", SPDXID: documentID, Name: fmt.Sprintf("proa-%s-%s", in.Version, in.Arch),
		CreationInfo: creationInfo{in.Created.UTC().Format(time.RFC3339), []string{"Organization: Proa", "Tool: image-builder"}},
		Packages:     b.packages, Relationships: slices.Compact(b.relations),
	}
	content, err := encode(d)
	if err != nil {
		return nil, err
	}
	d.DocumentNamespace = fmt.Sprintf("%s%s-%s", namespace, d.Name, digest.Of(content))
	return encode(d)
}

func encode(d document) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(d); err != nil {
		return nil, fmt.Errorf("write bill of materials: %w", err)
	}
	return b.Bytes(), nil
}

func (b *builder) image(part Part, purpose string, i Image, in Input) string {
	p := pkg{Name: "proa " + string(part), VersionInfo: in.Version, PackageFileName: i.File, Supplier: "Organization: Proa", Purpose: purpose}
	if !i.SHA256.IsZero() {
		p.Checksums = []checksum{{"SHA256", i.SHA256.String()}}
	}
	return b.add("image", string(part), p)
}

// add gives a package its identifier, unless one of that kind and name has it already, and returns it.
func (b *builder) add(kind, name string, p pkg) string {
	key := kind + " " + name
	if id, ok := b.ids[key]; ok {
		return id
	}
	clean := func(r rune) rune { // SPDX 2.3, 3.2: letters, digits, "." and "-"
		if r < 0x80 && (r == '.' || r == '-' || r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z') {
			return r
		}
		return '-'
	}
	base := "SPDXRef-" + strings.Map(clean, kind+"-"+name)
	p.SPDXID = base
	for n := 2; b.used[p.SPDXID]; n++ {
		p.SPDXID = fmt.Sprintf("%s-%d", base, n)
	}
	p.DownloadLocation, p.LicenseConcluded, p.CopyrightText = cmp.Or(p.DownloadLocation, noAnswer), noAnswer, noAnswer
	p.LicenseDeclared = cmp.Or(p.LicenseDeclared, noAnswer)
	b.used[p.SPDXID], b.ids[key] = true, p.SPDXID
	b.packages = append(b.packages, p)
	return p.SPDXID
}

func (b *builder) relate(element, kind, related string) {
	b.relations = append(b.relations, relationship{element, kind, related})
}
