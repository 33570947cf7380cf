package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/release"
	"github.com/proa-os/proa/update-engine/client"
	"github.com/proa-os/proa/update-engine/install"
	"github.com/proa-os/proa/update-engine/payload"
	"github.com/proa-os/proa/update-engine/state"
	"github.com/proa-os/proa/update-engine/tuf"
)

// A way is one payload that leads from the running release to the offered one.
type way struct {
	tuf.Target
	manifest digest.SHA256 // of the payload's header and manifest, signed with the release
	delta    bool          // it reads the running root image and its boot program
}

func (w way) String() string {
	if w.delta {
		return "delta"
	}
	return "full payload"
}

// ways returns the payloads that can be taken, the smaller first: a delta from what runs, if there is one, then the full payload. A
// delta that the metadata and release.json do not agree on is left out, for the full payload does without it.
func (a *Agent) ways(t *tuf.Client, r *release.Release, running state.Release) ([]way, error) {
	var ways []way
	if d, ok := r.Payloads.Deltas[running.Root]; ok {
		w, err := findWay(t, d)
		if err != nil {
			a.Log.Warn("delta left out", "version", r.Version, "payload", d.Name, "error", err)
		} else {
			w.delta = true
			ways = append(ways, w)
		}
	}
	full, err := findWay(t, r.Payloads.Full)
	if err != nil {
		return nil, err
	}
	return append(ways, full), nil
}

// findWay compares what release.json and the metadata say about a payload; both are signed.
func findWay(t *tuf.Client, p release.Payload) (way, error) {
	target, err := t.Target(p.Name)
	if err != nil {
		return way{}, err
	}
	if target.Size != p.Size || target.SHA256 != p.SHA256 {
		return way{}, &digest.MismatchError{Name: target.Name + " in release.json and in the metadata",
			WantSize: target.Size, GotSize: p.Size, WantSum: target.SHA256, GotSum: p.SHA256}
	}
	return way{Target: target, manifest: p.Manifest}, nil
}

// stream brings the offer into the passive slot, on the first way that leads there.
func (a *Agent) stream(ctx context.Context, running state.Release, folder BootFolder, o *offer, m *state.Machine) error {
	slotFile, err := a.Machine.Passive()
	if err != nil {
		return err
	}
	defer slotFile.Close()
	i := &install.Installer{Running: running.Root, Slot: slotFile, Boot: folder, BIOS: a.Machine.BIOS()}
	if _, err := i.Check(o.release); err != nil {
		return err
	}
	if err := a.move(m, state.Writing); err != nil {
		return err
	}
	return a.yielding(ctx, func(ctx context.Context) error { return a.takeFirst(ctx, i, folder, o, m) })
}

// takeFirst takes the first way that can be gone.
func (a *Agent) takeFirst(ctx context.Context, i *install.Installer, folder BootFolder, o *offer, m *state.Machine) (err error) {
	for n, w := range o.ways {
		err = a.take(ctx, i, folder, o, w, m)
		if err == nil || n == len(o.ways)-1 || !curable(ctx, err) {
			break
		}
		a.Log.Warn("delta failed, taking the full payload", "version", o.release.Version, "payload", w.Name,
			"full_size", o.ways[n+1].Size, "error", oneLine(err.Error()))
	}
	return err
}

// curable reports whether another payload can do better after an error: not if the network or the disk fails, or somebody
// wants to stop. A release that a delta shows to be bad may be good: the delta may have been made from something else.
func curable(ctx context.Context, err error) bool {
	var network *networkError
	var disk *install.DiskError
	return ctx.Err() == nil && !errors.As(err, &network) && !errors.As(err, &disk)
}

// takeFrom installs one payload, from any server, or from one alone if it is named. It returns whom the last bytes came from.
func (a *Agent) takeFrom(ctx context.Context, i *install.Installer, folder BootFolder, o *offer, w way, server string) (from []string, err error) {
	d := &download{a: a, ctx: ctx, release: o.release, way: w, server: server}
	defer func() { from = d.Close() }()
	manifest, err := d.manifest()
	if err != nil {
		return nil, err
	}
	var sources payload.Sources
	if w.delta {
		close, err := a.sources(i, folder, &sources)
		defer close()
		if err != nil {
			return nil, fmt.Errorf("open what the delta reads: %w", err)
		}
	}
	a.Log.Info("writing", "version", o.release.Version, "payload", w.Name, "size", w.Size)
	i.Progress = func(stage install.Stage, done, total int64) { a.progress(stageName(stage, w), done, total) }
	i.Log = func(r install.Written) {
		a.Log.Info("written", "version", o.release.Version, "payload", w.Name, "resumed_at", r.Resumed.Read, "bytes_written", r.Written, "bytes_kept", r.Kept)
	}
	return nil, i.Install(ctx, o.release, install.Payload{Manifest: manifest, Sources: sources, Body: d.from})
}

// stageName tells people which payload is written.
func stageName(s install.Stage, w way) string {
	switch {
	case s != install.Write:
		return string(s)
	case w.delta:
		return "write-delta"
	}
	return "write-full"
}

// sources opens what a delta reads. The function it returns closes it, also after an error.
func (a *Agent) sources(i *install.Installer, folder BootFolder, s *payload.Sources) (closeAll func(), err error) {
	var opened []io.Closer
	closeAll = func() {
		for _, c := range opened {
			_ = c.Close() // only read
		}
	}
	root, err := a.Machine.Source()
	if err != nil {
		return closeAll, err
	}
	opened = append(opened, root)
	s.Root, s.RootSize = root, root.Size()
	programs, err := install.Programs(folder)
	if err != nil {
		return closeAll, err
	}
	for _, p := range programs {
		if p.Root != i.Running {
			continue
		}
		f, err := folder.Open(p.File)
		if err != nil {
			return closeAll, err
		}
		opened = append(opened, f)
		s.Boot = f
		s.BootSize, err = f.Size()
		return closeAll, err
	}
	return closeAll, fmt.Errorf("no boot program on the ESP boots the running root hash %s", i.Running)
}

// A networkError ends a download for now. The next run goes on where it ended.
type networkError struct{ error }

func (e *networkError) Unwrap() error { return e.error }

// A download is the body of a payload: first from its start, for the manifest, then on from there or from a later place.
type download struct {
	a       *Agent
	ctx     context.Context
	release *release.Release
	way     way
	server  string // the only one that is asked; empty: all

	body *client.Body
	r    io.Reader // body with the errors of the network marked, and at first with the payload's own hash at its end
	off  int64
}

// manifest reads and authenticates the beginning.
func (d *download) manifest() (*payload.Manifest, error) {
	d.open(0)
	d.r = digest.NewReader("payload "+d.way.Name, marked{d.body}, d.way.Size, d.way.SHA256)
	m, err := payload.ReadManifest(d.r)
	if err != nil {
		return nil, err
	}
	if got := m.Digest(); got != d.way.manifest {
		return nil, fmt.Errorf("payload %s: its manifest has sha256 %s, release.json says %s: %w", d.way.Name, got, d.way.manifest, payload.ErrDamaged)
	}
	d.off = m.Start().Read
	if m.Size() != d.way.Size {
		return nil, fmt.Errorf("payload %s: its manifest describes %d bytes, the signed size is %d: its signers have to stage and sign it anew", d.way.Name, m.Size(), d.way.Size)
	}
	return m, nil
}

// from implements install.Body. What is not read from the start has no hash of the whole; the manifest's, of each segment, are signed.
func (d *download) from(offset int64) (io.Reader, error) {
	if offset == 0 || offset == d.off {
		return d.r, nil
	}
	d.a.Log.Info("download resumed", "version", d.release.Version, "payload", d.way.Name, "at", offset, "size", d.way.Size)
	d.Close()
	d.open(offset)
	return d.r, nil
}

func (d *download) open(offset int64) {
	cut := func(at int64, err error) {
		d.a.Log.Warn("download interrupted, resuming", "version", d.release.Version, "at", at, "size", d.way.Size, "error", err)
	}
	if d.server != "" {
		d.body = d.a.Client.StreamOnly(d.ctx, d.server, d.way.URL, offset, d.way.Size, cut)
	} else {
		d.body = d.a.Client.StreamFrom(d.ctx, d.way.URL, offset, d.way.Size, cut)
	}
	d.r = marked{d.body}
}

// Close ends the download and returns whom the bytes since its last beginning came from.
func (d *download) Close() []string {
	if d.body == nil {
		return nil
	}
	_ = d.body.Close() // it was read as far as it was needed
	return d.body.Servers()
}

// marked makes every error of a stream one of the network, but for a file that the servers do not have, or do not give, again and
// again, although they answer: another payload they may have.
type marked struct{ r io.Reader }

func (m marked) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	refused := errors.Is(err, fs.ErrNotExist) || errors.As(err, new(*client.StatusError))
	if err != nil && err != io.EOF && !refused {
		err = &networkError{err}
	}
	return n, err
}
