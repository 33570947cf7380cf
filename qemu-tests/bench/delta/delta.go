// Package delta measures payloads on pairs of real releases, and other programs that make small updates beside them: what `make
// bench-payload` prints.
//
//	pair.Make ─▶ old, new ─┬▶ full payload of today's release ─▶ apply
//	                       ├▶ delta payload ─▶ apply            ┐ each in a process of its own:
//	                       └▶ xdelta3, zstd, casync, bsdiff     ┴▶ bytes, CPU seconds, peak memory ─▶ Report ─▶ table or JSON
//
// What a payload costs is measured of this program's own child, which does what the release desk and the update agent do: it makes the payload,
// and applies it to the old images with every hash compared. CPU time and peak memory are those that the kernel notes of a child
// (getrusage(2); VmHWM for applying), its own children included. Applying is done three times, of which the least time counts and the most memory: other
// load on the host adds to what a second of CPU time is worth, up to a half where cores are shared. Memory is what the process holds, without the page cache.
//
// The others get the root images alone, without the verity tree: a fair pair, and for them the better one. Their programs are pinned
// Debian packages (manifests/peers.toml). casync is counted by what a machine that has the old image would fetch: the index, and the chunks
// which the old image's store has not. Debian's bsdiff is given the files that have changed, one by one: for a whole image it
// takes 17 times its size in memory.
//
// It prints which bars are met, and fails in the end if one of a size or of memory is not (Verdict); a bar of CPU time is a report. That a
// delta makes the right bytes is not a bar: it fails at once if one does not.
package delta

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/proa-os/proa/qemu-tests/bench/pair"
	"github.com/proa-os/proa/qemu-tests/world"
)

// Options are the flags of cmd/bench-payload.
type Options struct {
	Builder  string   // the program image-builder
	Out      string   // folder for payloads and what the others make, which is removed at the end
	APT      string   // the host's apt configuration, normally /etc/apt
	Pairs    []string // of pair.Names; all if empty
	NoPeers  bool     // measure payloads alone
	Messages io.Writer
}

// Run makes the pairs and measures.
func Run(ctx context.Context, o Options) (*Report, error) {
	repo, err := world.FindRepository()
	if err != nil {
		return nil, err
	}
	if len(o.Pairs) == 0 {
		o.Pairs = pair.Names()
	}
	if err := os.MkdirAll(o.Out, 0o755); err != nil {
		return nil, err
	}
	work, err := os.MkdirTemp(o.Out, "payload-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(work)
	b := &bench{Options: o, work: work}
	if !o.NoPeers {
		if b.peers, err = openPeers(ctx, repo, o.APT, o.Messages); err != nil {
			return nil, err
		}
	}
	report := &Report{}
	var today pair.Image
	for _, name := range o.Pairs {
		p, err := pair.Make(ctx, pair.Options{Repository: repo, Builder: o.Builder, Progress: o.Messages}, name)
		if err != nil {
			return nil, err
		}
		r, err := b.pair(ctx, p)
		if err != nil {
			return nil, fmt.Errorf("measure %s: %w", name, err)
		}
		report.Pairs, today = append(report.Pairs, r), p.New
		b.say("%s: %d bytes, of them manifest %d, root image %d, boot program %d; made with %s, applied with %s", name, r.Size, r.Manifest, r.Root, r.Boot, r.Create, r.Apply)
	}
	// It takes the longest, and all pairs' new releases are alike in size.
	report.Full, err = b.full(ctx, today)
	return report, err
}

type bench struct {
	Options
	work  string
	peers *peers // nil if they are not wanted
}

func (b *bench) path(name string) string { return filepath.Join(b.work, name) }

func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(b.Messages, "bench: "+format+"\n", args...)
}

// full makes the full payload of a release and applies it.
func (b *bench) full(ctx context.Context, image pair.Image) (Full, error) {
	b.say("make the full payload of %s", image.Release.Version)
	var f Full
	made, created, err := b.do(ctx, Task{Do: "full", New: image.Dir, Payload: b.path("full")})
	if err != nil {
		return f, err
	}
	defer os.Remove(b.path("full"))
	applied, err := b.apply(ctx, Task{New: image.Dir, Payload: b.path("full")})
	f = Full{Made: made, RootImage: image.Release.Root.HashOffset, BootProgram: image.Release.Boot.Size, Create: created, Apply: applied}
	return f, err
}

// applications is how often a payload is applied: what else runs on the host can only add to the time that it takes.
const applications = 3

// apply applies a payload, and returns the least time and the most memory.
func (b *bench) apply(ctx context.Context, t Task) (Usage, error) {
	t.Do, t.Work = "apply", b.work
	var best Usage
	for i := range applications {
		_, u, err := b.do(ctx, t)
		if err != nil {
			return u, err
		}
		if i == 0 || u.CPU < best.CPU {
			best.CPU = u.CPU
		}
		best.Memory = max(best.Memory, u.Memory)
	}
	return best, nil
}

// pair makes the delta of a pair, applies it, and has the others make theirs.
func (b *bench) pair(ctx context.Context, p pair.Pair) (Result, error) {
	b.say("%s: make and apply the delta", p.Name)
	r := Result{Name: p.Name, Title: p.Title}
	var err error
	if r.Changed, err = changed(p); err != nil {
		return r, err
	}
	payload := b.path("delta")
	if r.Made, r.Create, err = b.do(ctx, Task{Do: "delta", Old: p.Old.Dir, New: p.New.Dir, Payload: payload}); err != nil {
		return r, err
	}
	if r.Apply, err = b.apply(ctx, Task{Old: p.Old.Dir, New: p.New.Dir, Payload: payload}); err != nil {
		return r, err
	}
	if err := os.Remove(payload); err != nil || b.peers == nil {
		return r, err
	}
	r.Peers, err = b.others(ctx, p)
	return r, err
}

// others has every other program make an update of the root images.
func (b *bench) others(ctx context.Context, p pair.Pair) ([]Peer, error) {
	old, new := b.path("old"), b.path("new")
	defer os.Remove(old)
	defer os.Remove(new)
	for name, image := range map[string]pair.Image{old: p.Old, new: p.New} {
		if err := copyStart(name, image.Root(), image.Release.Root.HashOffset); err != nil {
			return nil, err
		}
	}
	var list []Peer
	for _, m := range methods() {
		dir, err := os.MkdirTemp(b.work, "peer-")
		if err != nil {
			return nil, err
		}
		size, used, err := m.make(ctx, b.peers, old, new, dir)
		if err := os.RemoveAll(dir); err != nil {
			return nil, err
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m.name, err)
		}
		list = append(list, Peer{Name: m.name, Size: size, Create: used})
		b.say("%s: %s: %d bytes, made with %s", p.Name, m.name, size, used)
	}
	return slices.Clip(list), nil
}

// copyStart copies the first n bytes of a file.
func copyStart(to, from string, n int64) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.CopyN(out, in, n)
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	return err
}
