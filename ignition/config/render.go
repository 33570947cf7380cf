package config

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"

	"github.com/coreos/ignition/v2/config/merge"
	"github.com/coreos/ignition/v2/config/util"
	"github.com/coreos/ignition/v2/config/v3_6/types"
	"github.com/coreos/vcontext/path"
)

// Limits on what a config may pull in, so that configs that name each other end in an error.
const (
	maxDepth     = 16
	maxDocuments = 64
)

// A Fetch returns the verified and decompressed bytes of a source. The config is the one merged so far: its
// timeouts and certificate authorities apply.
type Fetch func(ctx context.Context, r types.Resource, sofar types.Config) ([]byte, error)

// Origin is one config that took part.
type Origin struct {
	Name   string `json:"name"`
	SHA256 string `json:"sha256"` // hexadecimal, of its bytes
}

// Merged is a config without references to others, and where each of its values comes from.
type Merged struct {
	Config   types.Config     `json:"-"`
	Origins  []Origin         `json:"configs"`
	Places   map[string]Place `json:"places"`
	Warnings Issues           `json:"-"`
}

// Place is where path of the merged config, or the nearest thing around it, was written.
func (m *Merged) Place(path string) Place {
	name := ""
	if len(m.Origins) > 0 {
		name = m.Origins[0].Name
	}
	return place(m.Places, name, path)
}

// Empty is the config of a machine that was given none.
func Empty() *Merged {
	return &Merged{Config: types.Config{Ignition: types.Ignition{Version: types.MaxVersion.String()}}, Places: map[string]Place{}}
}

// Load parses raw and everything it refers to (spec: ignition.config.replace, ignition.config.merge; depth first,
// the referring config is the parent, a child's value wins) and validates the result.
func Load(ctx context.Context, name string, raw []byte, fetch Fetch) (*Merged, error) {
	return LoadWithFiles(ctx, name, raw, fetch, nil)
}

// LoadWithFiles is Load with the files that Butane's "local" keys of raw itself name.
func LoadWithFiles(ctx context.Context, name string, raw []byte, fetch Fetch, files fs.FS) (*Merged, error) {
	l := &loader{ctx: ctx, fetch: fetch, files: files}
	m, err := l.load(name, raw, 0)
	if err != nil {
		return nil, err
	}
	m.Config.Ignition.Config = types.IgnitionConfig{}
	m.Origins, m.Warnings = l.origins, l.warnings
	if err := m.validate(); err != nil {
		return nil, err
	}
	return m, nil
}

// validate checks what only a merge can make wrong. The error is of type Issues.
func (m *Merged) validate() error {
	var errs Issues
	for _, e := range validateValue(m.Config).Entries {
		if e.Kind.IsFatal() {
			p := pathString(e.Context)
			i := Issue{Place: m.Place(p), Problem: e.Message}
			explain(&i, p, nil)
			i.Found, i.Next = "", "each config is valid, their merge is not: change one of them"
			errs = append(errs, i)
		}
	}
	if len(errs) > 0 {
		return errs
	}
	return nil
}

type loader struct {
	ctx      context.Context
	fetch    Fetch
	files    fs.FS
	origins  []Origin
	warnings Issues
}

func (l *loader) load(name string, raw []byte, depth int) (*Merged, error) {
	files := l.files
	if depth > 0 { // configs from elsewhere do not read files here
		files = nil
	}
	d, err := parse(name, raw, files)
	if err != nil {
		return nil, err
	}
	if l.origins = append(l.origins, originOf(name, raw)); len(l.origins) > maxDocuments || depth > maxDepth {
		return nil, Issues{{Place: Place{Config: name}, Problem: "too many configs", Expected: fmt.Sprintf("at most %d, nested at most %d deep", maxDocuments, maxDepth), Next: "look for configs that refer to each other"}}
	}
	l.warnings = append(l.warnings, d.Warnings...)
	refs := d.Config.Ignition.Config
	if !util.NilOrEmpty(refs.Replace.Source) {
		return l.child(d, refs.Replace, "ignition.config.replace", d.Config, depth)
	}
	m := &Merged{Config: d.Config, Places: d.places}
	for n, r := range refs.Merge {
		child, err := l.child(d, r, fmt.Sprintf("ignition.config.merge[%d]", n), m.Config, depth)
		if err != nil {
			return nil, err
		}
		m = mergePlaced(m, child)
	}
	return m, nil
}

func (l *loader) child(parent *Document, r types.Resource, path string, sofar types.Config, depth int) (*Merged, error) {
	at := parent.Place(path + ".source")
	raw, err := l.fetch(l.ctx, r, sofar)
	if err != nil {
		i := Of(at, "fetch config", err, "check the address and the server")
		i.cause = err
		return nil, Issues{i}
	}
	name := Redact(*r.Source)
	if !remote(r) {
		name = path + " of " + parent.Name
	}
	return l.load(name, raw, depth+1)
}

// mergePlaced merges child into parent; upstream's transcript says which input each field came from.
func mergePlaced(parent, child *Merged) *Merged {
	merged, transcript := merge.MergeStructTranscribe(parent.Config, child.Config)
	m := &Merged{Config: merged.(types.Config), Places: map[string]Place{}}
	for _, t := range transcript.Mappings {
		from := parent.Places
		if t.From.Tag == merge.TAG_CHILD {
			from = child.Places
		}
		if at, ok := from[pathString(t.From)]; ok {
			m.Places[pathString(path.ContextPath{Path: t.To.Path})] = at
		}
	}
	return m
}

func originOf(name string, raw []byte) Origin {
	sum := sha256.Sum256(raw)
	return Origin{Name: name, SHA256: hex.EncodeToString(sum[:])}
}
