package lock

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"

	"github.com/proa-os/proa/image-builder/deb"
	"github.com/proa-os/proa/internal/arch"
	"github.com/proa-os/proa/internal/digest"
)

// Spec is the manifest's table [packages].
type Spec struct {
	Arch    string   `toml:"arch" json:"arch"`       // Debian's name: amd64
	Suites  []string `toml:"suites" json:"suites"`   // trixie, trixie-updates, trixie-security
	Include []string `toml:"include" json:"include"` // packages wanted
	Exclude []string `toml:"exclude" json:"exclude"` // packages left out although something depends on them
}

// Validate checks what resolving relies on; the caller has decoded the table and refused unknown keys.
func (s Spec) Validate() error {
	switch {
	case s.Arch == "":
		return errors.New("[packages] has no arch")
	case len(s.Suites) == 0:
		return errors.New("[packages] has no suites")
	case len(s.Include) == 0:
		return errors.New("[packages] has no include")
	}
	if _, err := arch.Of(s.Arch); err != nil {
		return fmt.Errorf("[packages] %w", err)
	}
	for i, suite := range s.Suites {
		if !validSuite(suite) {
			return fmt.Errorf("[packages] suite %q is not a codename such as trixie or trixie-security", suite)
		}
		if slices.Contains(s.Suites[:i], suite) {
			return fmt.Errorf("[packages] suite %s is there twice", suite)
		}
	}
	for _, list := range []struct {
		key   string
		names []string
	}{{"include", s.Include}, {"exclude", s.Exclude}} {
		seen := make(map[string]bool)
		for _, name := range list.names {
			if err := deb.CheckName(name); err != nil {
				return fmt.Errorf("[packages] %s: %w", list.key, err)
			}
			if seen[name] {
				return fmt.Errorf("[packages] %s: %s is there twice", list.key, name)
			}
			seen[name] = true
		}
	}
	return nil
}

func validSuite(s string) bool {
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// Sum identifies the package list; the order of include and exclude does not count.
func (s Spec) Sum() digest.SHA256 {
	s.Include, s.Exclude = slices.Sorted(slices.Values(s.Include)), slices.Sorted(slices.Values(s.Exclude))
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // strings always marshal
	}
	return digest.Of(b)
}

// Manifest is a manifest that has nothing but a package list: manifests/tools.toml.
type Manifest struct {
	Mirror   string `toml:"mirror"` // optional: URL of the main archive
	Packages Spec   `toml:"packages"`
}

// ReadManifest reads the TOML file; unknown keys are errors.
func ReadManifest(file string) (Manifest, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return Manifest{}, fmt.Errorf("read manifest: %w", err)
	}
	m, err := decodeManifest(string(b))
	if err != nil {
		return Manifest{}, fmt.Errorf("read manifest %s: %w", file, err)
	}
	return m, nil
}

func decodeManifest(text string) (Manifest, error) {
	var m Manifest
	meta, err := toml.Decode(text, &m)
	if perr := (toml.ParseError{}); errors.As(err, &perr) {
		return Manifest{}, fmt.Errorf("line %d: %s", perr.Position.Line, perr.Message)
	}
	if err != nil {
		return Manifest{}, err
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		return Manifest{}, fmt.Errorf("unknown key %s", unknown[0])
	}
	return m, m.Packages.Validate()
}
