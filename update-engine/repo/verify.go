package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/release"
	"github.com/proa-os/proa/update-engine/payload"
	"github.com/proa-os/proa/update-engine/plan"
)

// Checked is what Check found.
type Checked struct {
	Roots    int64    `json:"root_version"`
	Releases int      `json:"releases"`
	Applied  []Made   `json:"applied"` // payloads that were applied; Took is how long that took
	Problems []string `json:"problems"`
	// Unused names files that no metadata leads to: what a power cut or release discard has left, or what does not belong there.
	Unused []Written `json:"unused,omitempty"`
}

// Check verifies everything in the repository's folder, published and staged: the chain of roots from the first, or from the anchor; every
// signature, version, expiry, length and hash; every plan; every release; and, unless quick, every payload by applying it, deltas to the
// release that they start from. It goes on after a problem, and returns all of them. anchor may be nil.
func (d *Desk) Check(ctx context.Context, anchor []byte, quick bool) (*Checked, error) {
	k := &checker{d: d, quick: quick, result: &Checked{Problems: []string{}, Applied: []Made{}}, used: map[string]bool{}}
	if _, err := d.highest(metadata.ROOT); err != nil {
		return nil, err
	}
	root := k.roots(anchor)
	if root == nil {
		return k.result, nil
	}
	pub := k.chain(root)
	if pub == nil {
		return k.result, nil
	}
	known := k.targets(pub)
	k.plans(pub)
	if !quick {
		k.payloads(ctx, known)
	}
	k.unused()
	return k.result, ctx.Err()
}

type checker struct {
	d      *Desk
	quick  bool
	result *Checked
	used   map[string]bool // files that metadata leads to
}

func (k *checker) problem(name, format string, a ...any) {
	k.result.Problems = append(k.result.Problems, k.d.path(name)+": "+fmt.Sprintf(format, a...))
}

// open loads a metadata file, or notes why not.
func open[T metadata.Roles](k *checker, name string) (*metadata.Metadata[T], []byte) {
	k.used[name] = true
	b, err := os.ReadFile(k.d.path(name))
	if err != nil {
		k.problem(name, "%v", errors.Unwrap(err))
		return nil, nil
	}
	m, err := parse[T](b)
	if err != nil {
		k.problem(name, "not readable as TUF metadata: %v", err)
		return nil, nil
	}
	return m, b
}

// roots walks the chain of roots and returns the newest, nil if it cannot be trusted.
func (k *checker) roots(anchor []byte) *rootMeta {
	newest, _ := k.d.highest(metadata.ROOT)
	if newest == 0 {
		k.problem("metadata/1.root.json", "missing")
		return nil
	}
	var before *rootMeta
	met := len(anchor) == 0
	for n := int64(1); n <= newest; n++ {
		name := metaFile(n, metadata.ROOT)
		root, b := open[metadata.RootType](k, name)
		if root == nil {
			return nil
		}
		if root.Signed.Version != n {
			k.problem(name, "expected version %d, found %d", n, root.Signed.Version)
			return nil
		}
		if before == nil {
			before = root
		}
		for _, signer := range []*rootMeta{before, root} {
			if err := signer.VerifyDelegate(metadata.ROOT, root); err != nil {
				k.problem(name, "not signed by enough keys of root %d: %v", version(signer), err)
				return nil
			}
		}
		met = met || bytes.Equal(bytes.TrimSpace(b), bytes.TrimSpace(anchor))
		before = root
	}
	if !met {
		k.problem(metaFile(newest, metadata.ROOT), "no root up to this one is the trust anchor that was given: machines with that anchor refuse this repository")
		return nil
	}
	k.expiry(metaFile(newest, metadata.ROOT), before.Signed.Expires)
	k.result.Roots = newest
	return before
}

func (k *checker) expiry(name string, expires time.Time) {
	if k.d.Now().After(expires) {
		k.problem(name, "expired at %s", expires.Format(time.RFC3339))
	}
}

// chain follows timestamp, snapshot, targets and plan.
func (k *checker) chain(root *rootMeta) *published {
	p := &published{roots: []*rootMeta{root}}
	if p.timestamp, _ = open[metadata.TimestampType](k, timestampFile); p.timestamp == nil {
		return nil
	}
	k.signed(timestampFile, root.VerifyDelegate(metadata.TIMESTAMP, p.timestamp))
	k.expiry(timestampFile, p.timestamp.Signed.Expires)
	var ok bool
	if p.snapshot, ok = listed[metadata.SnapshotType](k, timestampFile, metadata.SNAPSHOT, p.timestamp.Signed.Meta); !ok {
		return nil
	}
	name := metaFile(version(p.snapshot), metadata.SNAPSHOT)
	k.signed(name, root.VerifyDelegate(metadata.SNAPSHOT, p.snapshot))
	k.expiry(name, p.snapshot.Signed.Expires)
	if p.targets, ok = listed[metadata.TargetsType](k, name, metadata.TARGETS, p.snapshot.Signed.Meta); !ok {
		return nil
	}
	targets := metaFile(version(p.targets), metadata.TARGETS)
	k.signed(targets, root.VerifyDelegate(metadata.TARGETS, p.targets))
	k.expiry(targets, p.targets.Signed.Expires)
	if p.plan, ok = listed[metadata.TargetsType](k, name, rolePlan, p.snapshot.Signed.Meta); !ok {
		return nil
	}
	name = metaFile(version(p.plan), rolePlan)
	k.signed(name, p.targets.VerifyDelegate(rolePlan, p.plan))
	k.expiry(name, p.plan.Signed.Expires)
	return p
}

func (k *checker) signed(name string, err error) {
	if err != nil {
		k.problem(name, "not signed by enough of its keys: %v", err)
	}
}

// listed opens the metadata that by lists for a role and compares it with what is listed.
func listed[T metadata.Roles](k *checker, by, role string, meta map[string]*metadata.MetaFiles) (*metadata.Metadata[T], bool) {
	info := meta[role+".json"]
	if info == nil {
		k.problem(by, "names no %s.json", role)
		return nil, false
	}
	name := metaFile(info.Version, role)
	m, b := open[T](k, name)
	if m == nil {
		return nil, false
	}
	if err := info.VerifyLengthHashes(b); err != nil {
		k.problem(name, "not the file that %s means: %v", path.Base(by), err)
	}
	if version(m) != info.Version {
		k.problem(name, "expected version %d, found %d", info.Version, version(m))
	}
	return m, true
}

// targets checks the files of the releases metadata, and of what is staged, and returns the releases.
func (k *checker) targets(pub *published) []Known {
	all := []*targetsMeta{pub.targets}
	if r, err := k.d.request(pub); err != nil {
		k.problem(requestFile, "%v", err)
	} else if r.Targets != nil {
		all = append(all, r.Targets)
	}
	var known []Known
	for i, m := range all {
		for name, info := range m.Signed.Targets {
			file := targetFile(name, sumIn(info))
			if k.used[file] {
				continue
			}
			k.used[file] = true
			if path.Base(name) != "release.json" {
				k.file(file, info, strings.HasSuffix(name, ".payload"))
				continue
			}
			if r := k.release(name, info, m); r != nil {
				known = append(known, Known{Release: r, Staged: i > 0})
			}
		}
	}
	k.result.Releases = len(known)
	slices.SortFunc(known, func(a, b Known) int {
		if n := compareVersions(a.Version, b.Version); n != 0 {
			return n
		}
		return strings.Compare(a.Arch, b.Arch)
	})
	return known
}

// file compares a target with its length and hash. A payload's hash is compared when it is applied.
func (k *checker) file(name string, info *metadata.TargetFiles, payload bool) {
	f, err := os.Open(k.d.path(name))
	if err != nil {
		k.problem(name, "%v", errors.Unwrap(err))
		return
	}
	defer f.Close()
	fi, err := f.Stat()
	if err == nil && fi.Size() != info.Length {
		err = fmt.Errorf("expected %d bytes, found %d", info.Length, fi.Size())
	}
	if err == nil && !payload {
		_, err = io.Copy(io.Discard, digest.NewReader(path.Base(name), f, info.Length, sumIn(info)))
	}
	if err != nil {
		k.problem(name, "%v", err)
	}
}

// release reads a release.json and compares it with the metadata around it.
func (k *checker) release(name string, info *metadata.TargetFiles, in *targetsMeta) *release.Release {
	file := targetFile(name, sumIn(info))
	b, err := k.d.readTarget(name, sumIn(info))
	if err != nil {
		k.problem(file, "%v", err)
		return nil
	}
	r, err := release.Parse(b)
	if err == nil && releaseTarget(r) != name {
		err = fmt.Errorf("it is release %s for %s", r.Version, r.Arch)
	}
	if err == nil && r.Payloads == nil {
		err = errors.New("it names no payloads")
	}
	if err != nil {
		k.problem(file, "%v", err)
		return nil
	}
	for _, p := range append(deltasOf(r), r.Payloads.Full) {
		if t := in.Signed.Targets[p.Name]; t == nil || t.Length != p.Size || sumIn(t) != p.SHA256 {
			k.problem(file, "payload %s is not the one that the metadata means", p.Name)
		}
	}
	return r
}

func deltasOf(r *release.Release) (list []release.Payload) {
	for _, p := range r.Payloads.Deltas {
		list = append(list, p)
	}
	return list
}

// plans checks that each channel gets a release that exists.
func (k *checker) plans(pub *published) {
	known := versionsIn(pub.targets)
	for name, info := range pub.plan.Signed.Targets {
		file := targetFile(name, sumIn(info))
		k.used[file] = true
		b, err := k.d.readTarget(name, sumIn(info))
		if err != nil {
			k.problem(file, "%v", err)
			continue
		}
		p, err := plan.Parse(b, strings.TrimSuffix(path.Base(name), ".json"))
		if err == nil && plan.Target(p.Channel) != name {
			err = fmt.Errorf("signed as %s", name)
		}
		if err == nil && !slices.Contains(known, p.Release) {
			err = fmt.Errorf("channel %s gets release %s, which nobody has signed", p.Channel, p.Release)
		}
		if err != nil {
			k.problem(file, "%v", err)
		}
	}
}

// payloads applies every payload: for each release the full one, and with what it makes the deltas that start from it.
func (k *checker) payloads(ctx context.Context, known []Known) {
	for _, source := range known {
		full := source.Payloads.Full
		u := k.apply(ctx, source.Release, "full", "", full, nil)
		if u == nil {
			continue
		}
		for _, r := range known {
			p, ok := r.Payloads.Deltas[source.Root.RootHash]
			if !ok || r.Arch != source.Arch {
				continue
			}
			if made := k.apply(ctx, r.Release, "delta", source.Version, p, u); made != nil {
				made.Close()
			}
		}
		u.Close()
	}
}

// apply applies one payload, or notes why that does not work.
func (k *checker) apply(ctx context.Context, r *release.Release, kind, from string, p release.Payload, source *unpacked) *unpacked {
	start := time.Now()
	stage := "apply " + path.Base(p.Name) + " of " + r.Version
	src := payload.Sources{}
	if source != nil {
		src = source.sources()
	}
	u, err := k.d.apply(ctx, r, p, src, stage)
	if err != nil {
		if ctx.Err() == nil {
			k.result.Problems = append(k.result.Problems, err.Error())
		}
		return nil
	}
	k.result.Applied = append(k.result.Applied, Made{
		Release: r.Version, Arch: r.Arch, Kind: kind, From: from, Size: p.Size, Full: r.Payloads.Full.Size, Raw: rawSize(r), Took: time.Since(start), Payload: p,
	})
	return u
}

// unused lists what no metadata leads to. Metadata of before and what it led to is not counted: machines may be reading it.
func (k *checker) unused() {
	for _, dir := range []string{"metadata", "targets"} {
		_ = fs.WalkDir(os.DirFS(k.d.Dir), dir, func(name string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() || k.used[name] || k.old(name) {
				return nil
			}
			fi, err := e.Info()
			if err == nil {
				k.result.Unused = append(k.result.Unused, Written{name, fi.Size()})
			}
			return nil
		})
	}
}

// old reports whether a file may belong to metadata of before.
func (k *checker) old(name string) bool {
	if strings.HasPrefix(name, "targets/plan/") {
		return true
	}
	dir, base := path.Split(name)
	return dir == "metadata/" && strings.HasSuffix(base, ".json") && !strings.HasPrefix(base, ".") ||
		strings.HasSuffix(base, ".release.json") && !strings.HasPrefix(base, ".")
}
