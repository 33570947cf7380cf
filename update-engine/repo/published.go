package repo

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

type (
	rootMeta      = metadata.Metadata[metadata.RootType]
	targetsMeta   = metadata.Metadata[metadata.TargetsType]
	snapshotMeta  = metadata.Metadata[metadata.SnapshotType]
	timestampMeta = metadata.Metadata[metadata.TimestampType]
)

const timestampFile = "metadata/timestamp.json"

// published is what readers see: the roots, and what the timestamp leads to. In a repository that is being made some of it is nil.
type published struct {
	roots         []*rootMeta // in order, from the first
	targets, plan *targetsMeta
	snapshot      *snapshotMeta
	timestamp     *timestampMeta
}

// root is the newest root, or nil.
func (p *published) root() *rootMeta {
	if len(p.roots) == 0 {
		return nil
	}
	return p.roots[len(p.roots)-1]
}

// version is that of metadata which may be nil.
func version[T metadata.Roles](m *metadata.Metadata[T]) int64 {
	if m == nil {
		return 0
	}
	switch s := any(m.Signed).(type) {
	case metadata.RootType:
		return s.Version
	case metadata.TargetsType:
		return s.Version
	case metadata.SnapshotType:
		return s.Version
	case metadata.TimestampType:
		return s.Version
	}
	return 0
}

func metaFile(version int64, role string) string {
	return fmt.Sprintf("metadata/%d.%s.json", version, role)
}

// published reads the state of the repository. Signatures are not looked at: whoever writes here could forge the files
// anyway, and machines do look.
func (d *Desk) published() (*published, error) {
	p := &published{}
	newest, err := d.highest(metadata.ROOT)
	if err != nil {
		return nil, err
	}
	for n := int64(1); n <= newest; n++ {
		root, err := load[metadata.RootType](d, metaFile(n, metadata.ROOT))
		if err != nil {
			return nil, err
		}
		p.roots = append(p.roots, root)
	}
	p.timestamp, err = load[metadata.TimestampType](d, timestampFile)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err != nil {
		return nil, err
	}
	n, err := d.newest(metadata.SNAPSHOT, p.timestamp.Signed.Meta)
	if err != nil {
		return nil, err
	}
	if p.snapshot, err = load[metadata.SnapshotType](d, metaFile(n, metadata.SNAPSHOT)); err != nil {
		return nil, err
	}
	for role, m := range map[string]**targetsMeta{metadata.TARGETS: &p.targets, rolePlan: &p.plan} {
		n, err := d.newest(role, p.snapshot.Signed.Meta)
		if err != nil {
			return nil, err
		}
		if *m, err = load[metadata.TargetsType](d, metaFile(n, role)); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// newest is the version that the role above names. A careless desk takes the highest number it finds.
func (d *Desk) newest(role string, meta map[string]*metadata.MetaFiles) (int64, error) {
	if d.Careless {
		return d.highest(role)
	}
	info, ok := meta[role+".json"]
	if !ok {
		return 0, fmt.Errorf("read repository: its published metadata names no %s.json", role)
	}
	return info.Version, nil
}

func load[T metadata.Roles](d *Desk, name string) (*metadata.Metadata[T], error) {
	b, err := os.ReadFile(d.path(name))
	if err != nil {
		return nil, fmt.Errorf("read repository: %w", err)
	}
	m, err := parse[T](b)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", d.path(name), err)
	}
	return m, nil
}

// parse reads metadata and refuses what TUF's types allow and no reader expects: roles, keys or entries that are null, and keys of a
// wrong length, with which verifying would panic.
func parse[T metadata.Roles](b []byte) (*metadata.Metadata[T], error) {
	m, err := (&metadata.Metadata[T]{}).FromBytes(b)
	if err != nil {
		return nil, err
	}
	switch s := any(m.Signed).(type) {
	case metadata.RootType:
		for _, role := range Roles[:4] {
			if s.Roles[role] == nil {
				return nil, fmt.Errorf("no role %s", role)
			}
		}
		err = checkKeys(s.Keys)
	case metadata.TargetsType:
		if s.Delegations != nil {
			err = checkKeys(s.Delegations.Keys)
		}
		err = errors.Join(err, checkEntries(s.Targets))
	case metadata.SnapshotType:
		err = checkEntries(s.Meta)
	case metadata.TimestampType:
		err = checkEntries(s.Meta)
	}
	if err != nil {
		return nil, err
	}
	return m, nil
}

func checkEntries[E any](entries map[string]*E) error {
	for name, e := range entries {
		if e == nil {
			return fmt.Errorf("%s: null", name)
		}
	}
	return nil
}

func checkKeys(keys map[string]*metadata.Key) error {
	for id, k := range keys {
		if k == nil {
			return fmt.Errorf("key %s: null", id)
		}
		public, err := k.ToPublicKey()
		if err != nil {
			return fmt.Errorf("key %s: %w", id, err)
		}
		if ed, ok := public.(ed25519.PublicKey); !ok || len(ed) != ed25519.PublicKeySize {
			return fmt.Errorf("key %s: it is no ed25519 key", id)
		}
	}
	return nil
}

// highest is the highest N of N.<role>.json; 0 when there is none.
func (d *Desk) highest(role string) (int64, error) {
	entries, err := os.ReadDir(d.path("metadata"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("%s is no repository: make one with release init", d.Dir)
	}
	if err != nil {
		return 0, fmt.Errorf("read repository: %w", err)
	}
	var newest int64
	for _, e := range entries {
		number, ok := strings.CutSuffix(e.Name(), "."+role+".json")
		if n, err := strconv.ParseInt(number, 10, 64); ok && err == nil {
			newest = max(newest, n)
		}
	}
	return newest, nil
}
