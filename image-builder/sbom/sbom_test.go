package sbom

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	spdxjson "github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdxlib"

	"github.com/proa-os/proa/image-builder/archivetest"
	"github.com/proa-os/proa/image-builder/lock"
	"github.com/proa-os/proa/internal/digest"
)

func input() Input {
	p := func(name, version string) lock.Package {
		return lock.Package{Name: name, Version: version, Arch: "amd64", Suite: "trixie-security", Filename: "pool/main/x/" + name + ".deb", Size: 1, SHA256: digest.Of([]byte(name))}
	}
	return Input{
		Version: "1.3.0-rc.1", Arch: "amd64", Created: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
		Disk: Image{File: "disk.img"}, Root: Image{"root.img", digest.Of([]byte("root"))}, Boot: Image{"boot.efi", digest.Of([]byte("boot"))},
		Debian: []Debian{
			{Package: p("libstdc++6", "1:14.2.0-19~x+b1"), Source: "gcc-14 (14.2.0-19)", Maintainer: "Debian GCC Maintainers <debian-gcc@lists.debian.example>", Homepage: "http://gcc.gnu.org/", Depends: "gcc-14-base (= 14.2.0-19), libc6 (>= 2.38)", Parts: []Part{InRoot}},
			{Package: p("libc6", "2.41-12"), Source: "glibc", Maintainer: "A. Person <a@example.org>", Homepage: "none", Provides: "libc6-x (= 2.41), libcrypt", Parts: []Part{InRoot}},
			{Package: p("bash", "5.2"), Source: "bash", Maintainer: "odd", Depends: "awk | libcrypt, bash", Parts: []Part{InRoot}},
			{Package: p("linux-image-6.12", "6.12.1-1"), Source: "linux-signed", Parts: []Part{InRoot, InBoot}},
			{Package: p("systemd-boot-efi", "257"), Parts: []Part{InBoot, InDisk}},
		},
		Programs: []Program{
			{Path: "usr/bin/updatectl", Package: "github.com/proa-os/proa/update-engine/cmd/updatectl", SHA256: digest.Of([]byte("u")), Go: "go1.26.8", Part: InRoot, Modules: []Module{{"github.com/coreos/go-semver", "v0.3.1", "h1:x="}, {"golang.org/x/sys", "v0.1.0", ""}}},
			{Path: "init", Package: "github.com/proa-os/proa/init/cmd/init", SHA256: digest.Of([]byte("i")), Go: "go1.26.8", Part: InBoot, Modules: []Module{{"golang.org/x/sys", "v0.1.0", ""}}},
		},
	}
}

func marshal(t *testing.T, in Input) []byte {
	t.Helper()
	b, err := Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The SPDX project's own reader takes the document and finds every relation's ends; what it writes again holds everything that we wrote, so no
// key of ours is one that it does not know.
func TestJudge(t *testing.T) {
	b := marshal(t, input())
	d, err := spdxjson.Read(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if err := spdxlib.ValidateDocument(d); err != nil {
		t.Error(err)
	}
	ids, err := spdxlib.GetDescribedPackageIDs(d)
	if err != nil || len(ids) != 1 {
		t.Errorf("described: %v, %v", ids, err)
	}
	var again bytes.Buffer
	if err := spdxjson.Write(d, &again); err != nil {
		t.Fatal(err)
	}
	var ours, theirs any
	if err := json.Unmarshal(b, &ours); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(again.Bytes(), &theirs); err != nil {
		t.Fatal(err)
	}
	holds(t, "document", theirs, ours)
}

// holds fails where want has something that got has not.
func holds(t *testing.T, where string, got, want any) {
	t.Helper()
	switch w := want.(type) {
	case map[string]any:
		g, _ := got.(map[string]any)
		for k, v := range w {
			if k == "filesAnalyzed" && v == false && g[k] == nil {
				continue // the reader's writer leaves out what is false
			}
			holds(t, where+"."+k, g[k], v)
		}
	case []any:
		g, _ := got.([]any)
		if len(g) < len(w) {
			t.Errorf("%s: got %d elements, want %d", where, len(g), len(w))
			return
		}
		for i := range w {
			holds(t, where+"[]", g[i], w[i])
		}
	default:
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: the reader understood %v, we wrote %v", where, got, want)
		}
	}
}

func TestContent(t *testing.T) {
	var d document
	if err := json.Unmarshal(marshal(t, input()), &d); err != nil {
		t.Fatal(err)
	}
	names := map[string]pkg{}
	for _, p := range d.Packages {
		names[p.Name] = p
	}
	stdc := names["libstdc++6"]
	if got, want := stdc.ExternalRefs[0].Locator, "pkg:deb/debian/libstdc%2B%2B6@1%3A14.2.0-19~x%2Bb1?arch=amd64&distro=trixie"; got != want {
		t.Errorf("got purl %s, want %s", got, want)
	}
	if stdc.Originator != "Organization: Debian GCC Maintainers (debian-gcc@lists.debian.example)" || stdc.PackageFileName != "pool/main/x/libstdc++6.deb" || stdc.Checksums[0].Value != digest.Of([]byte("libstdc++6")).String() {
		t.Errorf("got %+v", stdc)
	}
	if names["libc6"].Originator != "Person: A. Person (a@example.org)" || names["libc6"].Homepage != "" || names["bash"].Originator != "Person: odd" {
		t.Errorf("got %+v, %+v", names["libc6"], names["bash"])
	}
	if got := names["github.com/coreos/go-semver"].ExternalRefs[0].Locator; got != "pkg:golang/github.com/coreos/go-semver@v0.3.1" {
		t.Errorf("got purl %s", got)
	}
	has := map[relationship]bool{}
	for _, r := range d.Relationships {
		has[r] = true
	}
	for _, want := range [][3]string{
		{"proa root image", "CONTAINS", "bash"}, {"proa root image", "CONTAINS", "updatectl"}, {"proa boot program", "CONTAINS", "linux-image-6.12"},
		{"proa boot program", "CONTAINS", "init"}, {"proa root image", "CONTAINS", "linux-image-6.12"},
		{"proa disk image", "CONTAINS", "systemd-boot-efi"}, {"proa boot program", "CONTAINS", "systemd-boot-efi"}, {"proa disk image", "CONTAINS", "proa root image"}, {"libstdc++6", "DEPENDS_ON", "libc6"}, {"bash", "DEPENDS_ON", "libc6"},
		{"updatectl", "DEPENDS_ON", "golang.org/x/sys"}, {"init", "DEPENDS_ON", "stdlib"},
	} {
		if !has[relationship{names[want[0]].SPDXID, want[1], names[want[2]].SPDXID}] {
			t.Errorf("missing: %s", strings.Join(want[:], " "))
		}
	}
	if len(d.Packages) != 3+5+2+3 {
		t.Errorf("got %d packages: %v", len(d.Packages), names)
	}
}

// Names that become the same identifier must not become the same package.
func TestIdentifiers(t *testing.T) {
	in := input()
	in.Debian = []Debian{{Package: lock.Package{Name: "a+b"}}, {Package: lock.Package{Name: "a_b"}}, {Package: lock.Package{Name: "a-b"}}}
	var d document
	if err := json.Unmarshal(marshal(t, in), &d); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, p := range d.Packages {
		if seen[p.SPDXID] {
			t.Errorf("%s is there twice", p.SPDXID)
		}
		seen[p.SPDXID] = true
	}
}

func TestDeterministic(t *testing.T) {
	a := marshal(t, input())
	if !bytes.Equal(a, marshal(t, input())) {
		t.Error("the same input makes different documents")
	}
	other := input()
	other.Debian[1].Version = "2.41-13"
	var x, y document
	if err := json.Unmarshal(a, &x); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(marshal(t, other), &y); err != nil {
		t.Fatal(err)
	}
	if x.DocumentNamespace == y.DocumentNamespace {
		t.Error("two documents have the same namespace")
	}
}

func TestReadDebian(t *testing.T) {
	b := archivetest.Deb{Name: "bash", Files: []archivetest.File{{Name: "./f", Body: "f"}}}.Build(t)
	file := filepath.Join(t.TempDir(), "deb")
	if err := os.WriteFile(file, b, 0o644); err != nil {
		t.Fatal(err)
	}
	p := lock.Package{Name: "bash", Version: "1.0", Size: int64(len(b)), SHA256: digest.Of(b)}
	d, err := ReadDebian(file, p)
	if err != nil || d.Source != "bash" || d.Maintainer == "" {
		t.Errorf("got %+v, %v", d, err)
	}
	p.Version = "2.0"
	if _, err := ReadDebian(file, p); err == nil || !strings.Contains(err.Error(), "it is of bash 1.0") {
		t.Errorf("another version: got %v", err)
	}
	p.Version, p.SHA256 = "1.0", digest.Of(nil)
	if _, err := ReadDebian(file, p); err == nil || !strings.Contains(err.Error(), "sha256") {
		t.Errorf("another sum: got %v", err)
	}
}

func TestReadProgram(t *testing.T) {
	file := filepath.Join(t.TempDir(), "init")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", file, "github.com/proa-os/proa/init/cmd/init")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	p, err := ReadProgram(file, "init", digest.Of(nil), InBoot)
	if err != nil || !strings.HasPrefix(p.Go, "go1.") || p.Package != "github.com/proa-os/proa/init/cmd/init" {
		t.Fatalf("got %+v, %v", p, err)
	}
	if len(p.Modules) != 1 || p.Modules[0].Path != "golang.org/x/sys" || !strings.HasPrefix(p.Modules[0].Sum, "h1:") {
		t.Errorf("got modules %+v, want x/sys", p.Modules)
	}
	if _, err := ReadProgram("/etc/hostname", "x", digest.Of(nil), InRoot); err == nil {
		t.Error("a text was read as a program")
	}
}
