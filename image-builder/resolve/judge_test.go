package resolve_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/proa-os/proa/image-builder/archive"
	"github.com/proa-os/proa/image-builder/resolve"
	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/testenv"
	"github.com/proa-os/proa/internal/tooltree"
)

// apt is a machine without packages, as apt sees it: one directory, the indexes of the suites, an empty dpkg status.
type apt struct {
	tree *tooltree.Tree
	dir  string
}

// newAPT makes one; indexes are Packages files by suite.
func newAPT(t *testing.T, indexes map[string]string) *apt {
	t.Helper()
	a := &apt{tree: testenv.Tools(t), dir: t.TempDir()}
	sources := ""
	files := map[string]string{"status": ""}
	for suite, text := range indexes {
		sources += "deb http://m.test/debian " + suite + " main\n"
		list := "lists/m.test_debian_dists_" + suite
		files[list+"_main_binary-amd64_Packages"] = text
		files[list+"_Release"] = "Origin: Test\nSuite: stable\nCodename: " + suite + "\nArchitectures: amd64\nComponents: main\n"
	}
	files["etc/sources.list"] = sources
	for _, dir := range []string{"lists/partial", "cache/archives/partial", "etc/preferences.d"} {
		if err := os.MkdirAll(filepath.Join(a.dir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(a.dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return a
}

// install asks what apt would fetch to install the packages; it returns "name version", sorted. It does not ask apt to put the
// installation in order, which loops through Pre-Depends can make impossible: nothing is configured in an image.
func (a *apt) install(t *testing.T, names ...string) ([]string, error) {
	t.Helper()
	args := []string{"-qq", "-y", "--print-uris"}
	for _, o := range []string{
		"Dir=" + a.dir, "Dir::Etc=" + a.dir + "/etc", "Dir::State=" + a.dir, "Dir::State::lists=" + a.dir + "/lists",
		"Dir::State::status=" + a.dir + "/status", "Dir::Cache=" + a.dir + "/cache", "Dir::Log=" + a.dir, "Dir::Bin::dpkg=/nonexistent",
		"APT::Architecture=amd64", "APT::Architectures::=amd64", "APT::Install-Recommends=false", "Debug::NoLocking=true",
	} {
		args = append(args, "-o", o)
	}
	cmd := a.tree.Command(t.Context(), "apt-get", append(append(args, "install"), names...)...)
	cmd.Env = append(cmd.Env, "APT_CONFIG="+a.dir+"/status") // an empty file instead of the host's configuration
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if err != nil {
		return nil, fmt.Errorf("apt-get: %w: %s%s", err, out, stderr.String())
	}
	var installed []string
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line) // 'URI' name_version_arch.deb size hash
		name, rest, ok1 := strings.Cut(f[1], "_")
		version, _, ok2 := strings.Cut(rest, "_")
		if !ok1 || !ok2 {
			t.Fatalf("apt-get prints %q", line)
		}
		installed = append(installed, name+" "+strings.ReplaceAll(version, "%3a", ":"))
	}
	slices.Sort(installed)
	return installed, nil
}

// closure is resolve.Closure for Packages files by suite, in the form of install.
func closure(t *testing.T, indexes map[string]string, include ...string) ([]string, error) {
	t.Helper()
	var all []archive.Package
	for suite, text := range indexes {
		list, err := archive.ParsePackages("index of "+suite, suite, strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, list...)
	}
	chosen, err := resolve.Closure(all, "amd64", include, nil)
	var out []string
	for _, p := range chosen {
		out = append(out, p.Name+" "+p.Version.String())
	}
	return out, err
}

// randomSuite makes packages p0, p1 ... with random relations among them, by choice with alternatives. suffix ends every version, so
// that no two suites have the same one.
func randomSuite(r *rand.Rand, suffix string, packages int, alternatives bool) string {
	version := func() string { return []string{"1", "1.0-1", "2~rc1", "2", "1:0.5"}[r.IntN(5)] }
	relation := func() string {
		s := fmt.Sprintf("p%d", r.IntN(packages))
		if r.IntN(6) == 0 {
			s = fmt.Sprintf("virtual%d", r.IntN(packages))
		}
		if r.IntN(8) == 0 {
			s += ":any"
		}
		if r.IntN(3) == 0 {
			s += " (" + []string{"<<", "<=", "=", ">=", ">>", ">=", ">="}[r.IntN(7)] + " " + version() + []string{"", "+deb13u1"}[r.IntN(2)] + ")"
		}
		return s
	}
	var b strings.Builder
	for i := range packages {
		if r.IntN(10) == 0 {
			continue // another suite may have it
		}
		v := version() + suffix
		fmt.Fprintf(&b, "Package: p%d\nVersion: %s\nArchitecture: amd64\nMulti-Arch: allowed\nMaintainer: x <x@example.org>\n", i, v)
		for _, f := range []struct {
			name string
			odds int
		}{{"Depends", 2}, {"Pre-Depends", 8}, {"Conflicts", 12}, {"Breaks", 12}} {
			if r.IntN(f.odds) != 0 {
				continue
			}
			var groups []string
			for range 1 + r.IntN(2) {
				g := relation()
				if alternatives && strings.HasSuffix(f.name, "Depends") && r.IntN(2) == 0 {
					g += " | " + relation()
				}
				groups = append(groups, g)
			}
			fmt.Fprintf(&b, "%s: %s\n", f.name, strings.Join(groups, ", "))
		}
		// Each virtual package has one provider, so that there is nothing to choose.
		switch r.IntN(4) {
		case 0:
			fmt.Fprintf(&b, "Provides: virtual%d\n", i)
		case 1:
			fmt.Fprintf(&b, "Provides: virtual%d (= %s)\n", i, version())
		}
		fmt.Fprintf(&b, "Filename: pool/p%d_%s.deb\nSize: 1\nSHA256: %s\nDescription: x\n\n", i, strings.ReplaceAll(v, ":", "_"), digest.Of([]byte(fmt.Sprint(i, v))))
	}
	return b.String()
}

// TestClosureJudge: where nothing is to be chosen, apt installs exactly what Closure returns, and fails where Closure does.
func TestClosureJudge(t *testing.T) {
	counts := make(map[bool]int)
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 1))
		indexes := map[string]string{"trixie": randomSuite(r, "", 12, false), "trixie-security": randomSuite(r, "+deb13u1", 12, false)}
		a := newAPT(t, indexes)
		include := []string{fmt.Sprintf("p%d", r.IntN(12)), fmt.Sprintf("p%d", r.IntN(12))}
		if include[0] == include[1] {
			include = include[1:]
		}
		got, err := closure(t, indexes, include...)
		want, aptErr := a.install(t, include...)
		counts[err == nil]++
		if (err == nil) != (aptErr == nil) || !slices.Equal(got, want) {
			t.Errorf("seed %d, include %q:\ngot %q, %v\napt %q, %v", seed, include, got, err, want, aptErr)
		}
	}
	if counts[true] < 10 || counts[false] < 10 {
		t.Errorf("got %d closures and %d failures, want plenty of both", counts[true], counts[false])
	}
}

// TestClosureIsClosedJudge: with alternatives there may be several right answers. Closure's is one: asked for exactly these packages, apt
// installs them and nothing else.
func TestClosureIsClosedJudge(t *testing.T) {
	checked := 0
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 2))
		indexes := map[string]string{"trixie": randomSuite(r, "", 12, true), "trixie-security": randomSuite(r, "+deb13u1", 12, true)}
		got, err := closure(t, indexes, fmt.Sprintf("p%d", r.IntN(12)))
		if err != nil || len(got) < 2 {
			continue
		}
		checked++
		var names []string
		for _, p := range got {
			name, _, _ := strings.Cut(p, " ")
			names = append(names, name)
		}
		if want, err := newAPT(t, indexes).install(t, names...); err != nil || !slices.Equal(got, want) {
			t.Errorf("seed %d:\ngot %q\napt %q, %v", seed, got, want, err)
		}
	}
	if checked < 10 {
		t.Errorf("only %d closures of more than one package: the generator has gone wrong", checked)
	}
}
