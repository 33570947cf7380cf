package repo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/release"
	"github.com/proa-os/proa/update-engine/payload"
)

// DropAbove is the percentage of the full payload above which a delta is not kept.
const DropAbove = payload.MaxShare

// DefaultDeltas is how many releases back deltas are made from when nobody says otherwise.
const DefaultDeltas = 3

// DeltaOptions choose which deltas are made.
type DeltaOptions struct {
	Version string   // of the release that they lead to; empty: the newest staged one, else the newest
	Arch    string   // empty: the only one that has this version
	From    []string // versions to start from; nil: the Last before it
	Last    int      // 0: DefaultDeltas
}

// Delta makes deltas to a release from those before it, each proven by applying it, and notes them in its release.json, which
// waits for signatures then. What is there already is not made again; what is no use, being almost as big as the full payload, is
// made, reported and dropped. What cannot be made is reported, too, and is an error only if nothing else was made: a release that is broken must not
// keep those that run another one from their deltas.
func (d *Desk) Delta(ctx context.Context, o DeltaOptions) (*Staged, error) {
	known, err := d.Releases()
	if err != nil {
		return nil, err
	}
	to, err := o.target(known)
	if err != nil {
		return nil, err
	}
	sources, err := o.sources(known, to)
	if err != nil {
		return nil, err
	}
	s := &Staged{Release: to.Release, Raw: rawSize(to.Release), Payloads: sizes(known, *to)}
	if len(sources) == 0 {
		return s, nil
	}
	files, err := d.deltas(ctx, s, sources)
	for _, f := range files {
		defer f.Close()
	}
	if err != nil {
		return nil, err
	}
	return s, d.keepDeltas(s, files)
}

func (o DeltaOptions) target(known []Known) (*Known, error) {
	var found []Known
	for _, k := range known {
		if (o.Version == "" || k.Version == o.Version) && (o.Arch == "" || k.Arch == o.Arch) {
			found = append(found, k)
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("there is no release %s: stage it first", strings.TrimSpace(o.Version+" "+o.Arch))
	}
	if o.Version == "" {
		if staged := slices.DeleteFunc(slices.Clone(found), func(k Known) bool { return !k.Staged }); len(staged) > 0 {
			found = staged
		}
		newest := found[len(found)-1].Version
		found = slices.DeleteFunc(found, func(k Known) bool { return k.Version != newest })
	}
	if len(found) > 1 {
		return nil, fmt.Errorf("release %s is there for several architectures: choose one with --arch", found[0].Version)
	}
	return &found[0], nil
}

// sources are the releases to start from, the newest last, without those that have a delta.
func (o DeltaOptions) sources(known []Known, to *Known) ([]*release.Release, error) {
	tooOld := func(v string) bool { return to.MinSource != "" && compareVersions(v, to.MinSource) < 0 }
	var before []*release.Release
	for _, k := range known {
		if k.Arch == to.Arch && compareVersions(k.Version, to.Version) < 0 {
			before = append(before, k.Release)
		}
	}
	if o.From != nil {
		for _, v := range o.From {
			if !slices.ContainsFunc(before, func(r *release.Release) bool { return r.Version == v }) {
				return nil, fmt.Errorf("there is no release %s for %s before %s to start from", v, to.Arch, to.Version)
			}
			if tooOld(v) {
				return nil, fmt.Errorf("no machine that runs %s would take a delta from it: %s takes updates from %s on (min_source)", v, to.Version, to.MinSource)
			}
		}
		before = slices.DeleteFunc(before, func(r *release.Release) bool { return !slices.Contains(o.From, r.Version) })
	} else {
		last := o.Last
		if last == 0 {
			last = DefaultDeltas
		}
		before = before[max(0, len(before)-last):]
	}
	return slices.DeleteFunc(before, func(r *release.Release) bool {
		_, have := to.Payloads.Deltas[r.Root.RootHash]
		return have || tooOld(r.Version) || r.Root.RootHash == to.Root.RootHash
	}), nil
}

// deltas makes a payload from each source and notes in s what became of it. The files stay open; there is one for each that is worth
// keeping. A source that is broken costs its own delta and no other; it is an error if there is nothing but failures.
func (d *Desk) deltas(ctx context.Context, s *Staged, sources []*release.Release) (files []*tempPayload, err error) {
	target, err := d.unpack(ctx, s.Release)
	if err != nil {
		return nil, err
	}
	defer target.Close()
	var failed []error
	for _, from := range sources {
		m, f, err := d.delta(ctx, from, target)
		if err != nil && ctx.Err() != nil {
			return files, err
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("delta from %s to %s: %w", from.Version, s.Release.Version, err))
			s.Failed = append(s.Failed, Failed{From: from.Version, Error: err.Error()})
			continue
		}
		s.Made = append(s.Made, m)
		if m.Dropped {
			if err := f.Close(); err != nil {
				return files, err
			}
			continue
		}
		files = append(files, f)
	}
	if len(s.Made) > 0 {
		return files, nil
	}
	return files, errors.Join(failed...)
}

// delta makes and proves one payload.
func (d *Desk) delta(ctx context.Context, from *release.Release, to *unpacked) (Made, *tempPayload, error) {
	old, err := d.unpack(ctx, from)
	if err != nil {
		return Made{}, nil, err
	}
	defer old.Close()
	r := to.release
	name := releaseDir(r) + "from-" + from.Version + ".payload"
	f, err := d.newPayload(name)
	if err != nil {
		return Made{}, nil, err
	}
	start := time.Now()
	_, err = payload.CreateDelta(ctx, f, payload.Delta{
		Source:  from.Root.RootHash,
		OldRoot: payload.Input{R: old.root, Size: from.Root.HashOffset}, OldBoot: payload.Input{R: old.boot, Size: from.Boot.Size},
		NewRoot: payload.Input{R: to.root, Size: r.Root.HashOffset}, NewBoot: payload.Input{R: to.boot, Size: r.Boot.Size},
	}, payload.Options{Packer: d.Packer}, func(done, total int64) { d.progress("make delta from "+from.Version, done, total) })
	if err != nil {
		return Made{}, nil, errors.Join(err, f.Close())
	}
	took := time.Since(start)
	p, err := d.prove(f, name, old.sources())
	if err != nil {
		return Made{}, nil, errors.Join(err, f.Close())
	}
	full := r.Payloads.Full.Size
	return Made{
		Release: r.Version, Arch: r.Arch, Kind: "delta", From: from.Version, Size: p.Size, Full: full, Raw: rawSize(r),
		Took: took, Dropped: !payload.Worthwhile(p.Size, full), Payload: p, source: from.Root.RootHash,
	}, f, nil
}

// keepDeltas notes the deltas in the release.json, as it is now.
func (d *Desk) keepDeltas(s *Staged, files []*tempPayload) error {
	if len(files) == 0 {
		return nil
	}
	unlock, err := d.lock()
	if err != nil {
		return err
	}
	defer unlock()
	c, req, targets, err := d.restaging()
	if err != nil {
		return err
	}
	name := releaseTarget(s.Release)
	info := targets.Signed.Targets[name]
	if info == nil {
		return fmt.Errorf("release %s is gone: another desk has discarded it", s.Release.Version)
	}
	before := sumIn(info)
	b, err := d.readTarget(name, before)
	if err != nil {
		return err
	}
	r, err := release.Parse(b)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if r.Payloads.Deltas == nil {
		r.Payloads.Deltas = map[digest.SHA256]release.Payload{}
	}
	for _, m := range s.Made {
		if m.Dropped {
			continue
		}
		c.adoptPayload(targets, files[0], m.Payload)
		r.Payloads.Deltas[m.source], files = m.Payload, files[1:]
		s.Payloads["from "+m.From] = m.Size
	}
	text, err := r.Marshal()
	if err != nil {
		return err
	}
	c.addTarget(targets, name, text)
	if err := d.note(req, r, text); err != nil {
		return err
	}
	if err := c.stage(req); err != nil {
		return err
	}
	if published := req.published.Signed.Targets[name]; published == nil || sumIn(published) != before {
		c.remove(targetFile(name, before)) // it was only staged
	}
	s.Release, s.Files = r, c.written()
	return c.commit()
}
