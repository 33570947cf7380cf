package sbom

import (
	"debug/buildinfo"
	"fmt"
	"path"
	"strings"

	"github.com/proa-os/proa/internal/digest"
)

// A Program is one of our own, as it was compiled.
type Program struct {
	Path    string // in the root image, or "init"
	Package string // Go's import path
	SHA256  digest.SHA256
	Part    Part
	Go      string
	Modules []Module
}

// A Module is a Go module that a program links.
type Module struct {
	Path, Version, Sum string // Sum as in go.sum
}

// ReadProgram reads what Go has written into the program in file.
func ReadProgram(file, place string, sum digest.SHA256, part Part) (Program, error) {
	info, err := buildinfo.ReadFile(file)
	if err != nil {
		return Program{}, fmt.Errorf("read build info of %s: %w", place, err)
	}
	p := Program{Path: place, Package: info.Path, SHA256: sum, Part: part, Go: info.GoVersion}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		p.Modules = append(p.Modules, Module{m.Path, m.Version, m.Sum})
	}
	return p, nil
}

func (b *builder) program(p Program, version string, parts map[Part]string) {
	id := b.add("program", p.Path, pkg{
		Name: path.Base(p.Path), VersionInfo: version, PackageFileName: p.Path, Supplier: "Organization: Proa", Purpose: "APPLICATION",
		SourceInfo: "compiled from " + p.Package, LicenseDeclared: license, Checksums: []checksum{{"SHA256", p.SHA256.String()}},
	})
	b.relate(parts[p.Part], "CONTAINS", id)
	b.relate(id, "DEPENDS_ON", b.module(Module{Path: "stdlib", Version: strings.TrimPrefix(p.Go, "go")}))
	for _, m := range p.Modules {
		b.relate(id, "DEPENDS_ON", b.module(m))
	}
}

func (b *builder) module(m Module) string {
	out := pkg{
		Name: m.Path, VersionInfo: m.Version, Purpose: "LIBRARY",
		ExternalRefs: []externalRef{{"PACKAGE-MANAGER", "purl", "pkg:golang/" + modulePath(m.Path) + "@" + escape(m.Version)}},
	}
	if m.Sum != "" {
		out.SourceInfo = "go.sum " + m.Sum
	}
	return b.add("go", m.Path+"@"+m.Version, out)
}

// modulePath escapes each part.
func modulePath(p string) string {
	parts := strings.Split(p, "/")
	for i := range parts {
		parts[i] = escape(parts[i])
	}
	return strings.Join(parts, "/")
}
