package repo

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/release"
	"github.com/proa-os/proa/internal/slot"
	"github.com/proa-os/proa/internal/verity"
	"github.com/proa-os/proa/update-engine/match"
	"github.com/proa-os/proa/update-engine/payload"
)

// payloadTemp is how the names of payloads begin that are being made.
const payloadTemp = ".payload-"

// Staged says what Stage or Delta made, for a table of sizes.
type Staged struct {
	Release  *release.Release
	Raw      int64            // bytes of root image (without tree) and boot program
	Payloads map[string]int64 // all that the release has now: "full", "from VERSION"
	Made     []Made
	Failed   []Failed // deltas that could not be made beside those that were
	Files    []Written
}

// Failed is a delta that could not be made. Machines that run its source take the full payload.
type Failed struct {
	From  string `json:"from"` // version of the source
	Error string `json:"error"`
}

// Made is a payload that was made.
type Made struct {
	Release string          `json:"release"`
	Arch    string          `json:"arch"`
	Kind    string          `json:"kind"`           // full or delta
	From    string          `json:"from,omitempty"` // version of the source
	Size    int64           `json:"size"`           // bytes
	Full    int64           `json:"full_size"`      // of the release's full payload
	Raw     int64           `json:"raw_size"`
	Took    time.Duration   `json:"create_ns"`
	Dropped bool            `json:"dropped,omitempty"` // too large to be of use
	Payload release.Payload `json:"-"`

	source digest.SHA256 // root hash
}

// A build is a folder that image-builder wrote: release.json, root.img, boot.efi.
type build struct {
	release    *release.Release
	root, boot *os.File
}

func (b *build) Close() error { return errors.Join(b.root.Close(), b.boot.Close()) }

// Options for Stage.
type Options struct {
	// AllowInconsistent stages a build whose parts contradict each other or its release.json. Tests use it to be
	// the buggy or coerced release desk that machines must survive.
	AllowInconsistent bool
	// MinSource is the oldest version that may update straight to this one; empty keeps what the build says.
	MinSource string
	// Deltas is how many releases back deltas are made from.
	Deltas int
}

// Stage takes a build into the repository: it makes the full payload and deltas, proves them by applying them, and notes them and
// release.json in what waits for signatures. Machines see nothing of it before it is published.
func (d *Desk) Stage(ctx context.Context, dir string, o Options) (*Staged, error) {
	b, err := openBuild(dir)
	if err != nil {
		return nil, fmt.Errorf("stage %s: %w", dir, err)
	}
	defer b.Close()
	if !o.AllowInconsistent {
		if err := d.check(b); err != nil {
			return nil, fmt.Errorf("stage %s: %w", dir, err)
		}
	}
	if o.MinSource != "" {
		b.release.MinSource = o.MinSource
	}
	s, err := d.stage(ctx, b)
	if err != nil {
		return nil, fmt.Errorf("stage %s: %w", dir, err)
	}
	if o.Deltas == 0 || d.DryRun { // a dry run has not staged what they would lead to
		return s, nil
	}
	more, err := d.Delta(ctx, DeltaOptions{Version: s.Release.Version, Arch: s.Release.Arch, Last: o.Deltas})
	if err != nil {
		return nil, fmt.Errorf("stage %s: release %s is staged with its full payload, but not its deltas: %w", dir, s.Release.Version, err)
	}
	s.Release, s.Payloads, s.Failed = more.Release, more.Payloads, more.Failed
	s.Made, s.Files = append(s.Made, more.Made...), append(s.Files, more.Files...)
	return s, nil
}

func (d *Desk) stage(ctx context.Context, b *build) (*Staged, error) {
	r := b.release
	if _, err := slot.Arm(r.Version); err != nil {
		return nil, err
	}
	if err := d.isNew(r); err != nil {
		return nil, err
	}
	full, temp, err := d.fullPayload(ctx, b)
	if err != nil {
		return nil, err
	}
	defer temp.Close()
	r.Payloads = &release.Payloads{Full: full.Payload}
	text, err := r.Marshal()
	if err != nil {
		return nil, err
	}
	unlock, err := d.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	c, req, targets, err := d.restaging()
	if err != nil {
		return nil, err
	}
	if err := d.isNew(r); err != nil { // another desk may have been faster
		return nil, err
	}
	c.adoptPayload(targets, temp, full.Payload)
	c.addTarget(targets, releaseTarget(r), text)
	if err := d.note(req, r, text); err != nil {
		return nil, err
	}
	if err := c.stage(req); err != nil {
		return nil, err
	}
	return &Staged{
		Release: r, Raw: rawSize(r), Payloads: map[string]int64{"full": full.Size}, Made: []Made{full}, Files: c.written(),
	}, c.commit()
}

// rawSize is what a release's payloads make: root image without tree, and boot program.
func rawSize(r *release.Release) int64 { return r.Root.HashOffset + r.Boot.Size }

// restaging begins a change of the staged releases metadata; the lock is held.
func (d *Desk) restaging() (*change, *Request, *targetsMeta, error) {
	pub, err := d.published()
	if err != nil {
		return nil, nil, nil, err
	}
	if err := d.clean(pub); err != nil {
		return nil, nil, nil, err
	}
	req, err := d.request(pub)
	if err != nil {
		return nil, nil, nil, err
	}
	targets, err := req.nextTargets(d)
	if err != nil {
		return nil, nil, nil, err
	}
	targets.Signed.Expires = d.expires(targetsExpires)
	targets.ClearSignatures()
	return d.change(), req, targets, nil
}

// note keeps the text of a release, and of the newest published one before it, for those who sign elsewhere.
func (d *Desk) note(req *Request, r *release.Release, text []byte) error {
	req.releases[releaseTarget(r)] = string(text)
	known, err := d.releases(&published{targets: req.published}, &Request{})
	if err != nil {
		return err
	}
	if before := previous(known, r); before != nil {
		req.releases[releaseTarget(before.Release)] = before.Text
	}
	return nil
}

// previous is the newest release before r for the same arch, or nil. known is sorted.
func previous(known []Known, r *release.Release) *Known {
	var before *Known
	for i, k := range known {
		if k.Arch == r.Arch && compareVersions(k.Version, r.Version) < 0 {
			before = &known[i]
		}
	}
	return before
}

func (d *Desk) isNew(r *release.Release) error {
	pub, err := d.published()
	if err != nil {
		return err
	}
	req, err := d.request(pub)
	if err != nil {
		return err
	}
	if req.target(releaseTarget(r)) != nil {
		return fmt.Errorf("release %s for %s exists already: versions are never reused, raise it", r.Version, r.Arch)
	}
	return nil
}

func (c *change) adoptPayload(targets *targetsMeta, temp *tempPayload, p release.Payload) {
	targets.Signed.Targets[p.Name] = targetInfo(p.Name, p.Size, p.SHA256)
	c.adopt(path.Join("targets", path.Dir(p.Name), filepath.Base(temp.Name())), targetFile(p.Name, p.SHA256), p.Size)
}

func targetInfo(name string, size int64, sum digest.SHA256) *metadata.TargetFiles {
	info := metadata.TargetFile()
	info.Path, info.Length, info.Hashes = name, size, metadata.Hashes{"sha256": sum[:]}
	return info
}

func sumIn(info *metadata.TargetFiles) digest.SHA256 {
	var sum digest.SHA256
	copy(sum[:], info.Hashes["sha256"])
	return sum
}

func openBuild(dir string) (*build, error) {
	text, err := os.ReadFile(filepath.Join(dir, "release.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: expected the output folder of image-builder, with release.json, root.img and boot.efi", err)
	}
	if err != nil {
		return nil, err
	}
	r, err := release.Parse(text)
	if err != nil {
		return nil, err
	}
	root, err := os.Open(filepath.Join(dir, "root.img"))
	if err != nil {
		return nil, err
	}
	boot, err := os.Open(filepath.Join(dir, "boot.efi"))
	if err != nil {
		root.Close()
		return nil, err
	}
	return &build{release: r, root: root, boot: boot}, nil
}

// check holds the three parts of a build against each other, so that no machine ever has to.
func (d *Desk) check(b *build) error {
	r := b.release
	for i, part := range []struct {
		file *os.File
		size int64
		sum  digest.SHA256
	}{{b.root, r.Root.Size, r.Root.SHA256}, {b.boot, r.Boot.Size, r.Boot.SHA256}} {
		in := digest.NewReader(part.file.Name(), part.file, part.size, part.sum)
		if _, err := io.Copy(io.Discard, in); err != nil {
			return fmt.Errorf("not the file that release.json describes: %w", err)
		}
		d.progress("check the build", int64(i+1), 3)
	}
	if err := checkParts(r, b.root, b.boot); err != nil {
		return err
	}
	d.progress("check the build", 3, 3)
	return nil
}

// checkParts compares a root image, whose tree it makes anew, and a boot program with their release.
func checkParts(r *release.Release, root, boot io.ReaderAt) error {
	salt, err := match.Salt(r)
	if err != nil {
		return err
	}
	hash, err := verity.RootHash(root, r.Root.HashOffset, salt)
	if err != nil {
		return fmt.Errorf("root.img: %w", err)
	}
	if hash != r.Root.RootHash {
		return fmt.Errorf("root.img: its rebuilt verity tree has root hash %s, release.json says %s", hash, r.Root.RootHash)
	}
	if err := match.BootProgram(boot, r); err != nil {
		return fmt.Errorf("boot.efi: %w", err)
	}
	return nil
}

// A tempPayload is a payload under a temporary name in the folder of its place. Close removes it, unless it was renamed.
type tempPayload struct{ *os.File }

// Close implements io.Closer.
func (t *tempPayload) Close() error {
	if err := os.Remove(t.Name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(err, t.File.Close())
	}
	return t.File.Close()
}

// newPayload makes the file for a payload, locked so that no other desk takes it for something that a power cut has left.
func (d *Desk) newPayload(name string) (*tempPayload, error) {
	if d.DryRun {
		f, err := os.CreateTemp("", "proa"+payloadTemp)
		return &tempPayload{f}, err
	}
	dir := path.Join("targets", path.Dir(name))
	if err := d.makeDirs(dir); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(d.path(dir), payloadTemp+"*")
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", f.Name(), err), (&tempPayload{f}).Close())
	}
	return &tempPayload{f}, nil
}

// fullPayload makes the full payload and proves it.
func (d *Desk) fullPayload(ctx context.Context, b *build) (Made, *tempPayload, error) {
	name := releaseDir(b.release) + "full.payload"
	bootSize, err := b.boot.Seek(0, io.SeekEnd)
	if err != nil {
		return Made{}, nil, err
	}
	f, err := d.newPayload(name)
	if err != nil {
		return Made{}, nil, err
	}
	start := time.Now()
	_, err = payload.Create(ctx, f, []payload.Input{
		{Kind: payload.RootImage, R: b.root, Size: b.release.Root.HashOffset},
		{Kind: payload.BootProgram, R: b.boot, Size: bootSize},
	}, payload.Options{Packer: d.Packer}, func(done, total int64) { d.progress("make full payload", done, total) })
	if err != nil {
		return Made{}, nil, errors.Join(err, f.Close())
	}
	p, err := d.prove(f, name, payload.Sources{})
	if err != nil {
		return Made{}, nil, errors.Join(err, f.Close())
	}
	return Made{
		Release: b.release.Version, Arch: b.release.Arch, Kind: "full", Size: p.Size, Full: p.Size, Raw: rawSize(b.release),
		Took: time.Since(start), Payload: p,
	}, f, nil
}

// prove applies a payload that was just made, and compares what comes out with what went in.
func (d *Desk) prove(f *tempPayload, name string, src payload.Sources) (release.Payload, error) {
	size, err := f.Seek(0, io.SeekEnd)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return release.Payload{}, err
	}
	whole := sha256.New()
	body := io.TeeReader(f, io.MultiWriter(whole, d.meter("prove "+path.Base(name), size)))
	m, err := payload.ReadManifest(body)
	if err != nil {
		return release.Payload{}, err
	}
	u := &unpacked{}
	if err := errors.Join(m.Apply(body, src, payload.Mark{}, &filler{u: u, dir: d.scratch()}), u.Close()); err != nil {
		return release.Payload{}, fmt.Errorf("the payload does not give back what went in: %w", err)
	}
	return release.Payload{Name: name, Size: size, SHA256: digest.SHA256(whole.Sum(nil)), Manifest: m.Digest()}, errors.Join(f.Chmod(0o644), f.Sync())
}

// scratch is where big temporary files go: the repository's own disk, unless it must not be written to.
func (d *Desk) scratch() string {
	if d.DryRun {
		return os.TempDir()
	}
	return d.path("staged")
}

// meter is a writer that reports what passes as progress.
func (d *Desk) meter(stage string, total int64) io.Writer {
	return &meter{d: d, stage: stage, total: total}
}

type meter struct {
	d           *Desk
	stage       string
	done, total int64
}

// Write implements io.Writer.
func (m *meter) Write(b []byte) (int, error) {
	m.done += int64(len(b))
	m.d.progress(m.stage, m.done, m.total)
	return len(b), nil
}
