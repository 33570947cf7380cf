// Package named reads what root keeps under a name, one JSON document each: secrets (<dir>/<name>.json) and volumes
// (<dir>/<name>/volume.json).
//
// How a document gets there and goes is its keeper's: a secret by one rename of a file, a volume by one of a directory. Names are checked
// before they become paths. A file that vanishes between two looks was removed, and is none; one that cannot be read is an error.
package named

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Records are the things of one kind.
type Records[T any] struct {
	Dir  string
	Kind string // in errors: "secret"
	File string // behind the name: ".json", or "/volume.json" for a directory each
	None error  // what a missing one is
}

// CheckName accepts what is a name, as docker has it: of a file, and a part of flags.
func CheckName(kind, name string) error {
	if !regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$`).MatchString(name) {
		return fmt.Errorf("%s name %.140q: want letters, digits, _ . and - (not first), at most 128", kind, name)
	}
	return nil
}

// Get reads one.
func (r Records[T]) Get(name string) (*T, error) {
	if err := CheckName(r.Kind, name); err != nil {
		return nil, err
	}
	b, err := os.ReadFile(filepath.Join(r.Dir, name+r.File))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", name, r.None)
	}
	v := new(T)
	if err == nil {
		err = json.Unmarshal(b, v)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s %s: %w", r.Kind, name, err)
	}
	return v, nil
}

// List reads all, sorted by name. What has no name of the kind's is passed over.
func (r Records[T]) List() ([]*T, error) {
	entries, err := os.ReadDir(r.Dir)
	if err != nil {
		return nil, fmt.Errorf("list %ss: %w", r.Kind, err)
	}
	extension, _, directory := strings.Cut(r.File, "/")
	out := []*T{}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), extension)
		if !ok || e.IsDir() != directory || CheckName(r.Kind, name) != nil {
			continue
		}
		v, err := r.Get(name)
		if errors.Is(err, r.None) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}
