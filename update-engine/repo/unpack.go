package repo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/release"
	"github.com/proa-os/proa/update-engine/payload"
)

// unpacked is a release as a machine has it, made by applying its full payload. The files have no names: they are gone when they are
// closed, or when the program ends however it does.
type unpacked struct {
	release    *release.Release
	root, boot *os.File
}

// Close implements io.Closer.
func (u *unpacked) Close() error {
	var errs []error
	for _, f := range []*os.File{u.root, u.boot} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// sources are what a delta reads on a machine that runs this release.
func (u *unpacked) sources() payload.Sources {
	return payload.Sources{Root: u.root, RootSize: u.release.Root.HashOffset, Boot: u.boot, BootSize: u.release.Boot.Size}
}

// unpack makes a release's root image (without its tree) and boot program again from its full payload, and compares them with release.json.
func (d *Desk) unpack(ctx context.Context, r *release.Release) (*unpacked, error) {
	if r.Payloads == nil {
		return nil, fmt.Errorf("release %s names no payloads", r.Version)
	}
	return d.apply(ctx, r, r.Payloads.Full, payload.Sources{}, "unpack "+r.Version)
}

// apply applies a payload of r and compares what it makes with release.json.
func (d *Desk) apply(ctx context.Context, r *release.Release, p release.Payload, src payload.Sources, stage string) (*unpacked, error) {
	u := &unpacked{release: r}
	err := d.applyTo(ctx, u, p, src, stage)
	if err == nil {
		err = u.check()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", d.path(targetFile(p.Name, p.SHA256)), err), u.Close())
	}
	return u, nil
}

func (d *Desk) applyTo(ctx context.Context, u *unpacked, p release.Payload, src payload.Sources, stage string) error {
	f, err := os.Open(d.path(targetFile(p.Name, p.SHA256)))
	if err != nil {
		return err
	}
	defer f.Close()
	body := io.TeeReader(digest.NewReader(path.Base(f.Name()), &cancelled{ctx, f}, p.Size, p.SHA256), d.meter(stage, p.Size))
	m, err := payload.ReadManifest(body)
	if err != nil {
		return err
	}
	if m.Digest() != p.Manifest {
		return fmt.Errorf("its manifest has sha256 %s, release.json says %s", m.Digest(), p.Manifest)
	}
	return m.Apply(body, src, payload.Mark{}, &filler{u: u, dir: d.scratch()})
}

func (u *unpacked) check() error {
	if u.root == nil || u.boot == nil {
		return errors.New("it does not make both a root image and a boot program")
	}
	size, err := u.root.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if size != u.release.Root.HashOffset {
		return fmt.Errorf("it makes a root image of %d bytes, release.json says %d", size, u.release.Root.HashOffset)
	}
	if _, err := u.boot.Seek(0, io.SeekStart); err != nil {
		return err
	}
	in := digest.NewReader("boot program", u.boot, u.release.Boot.Size, u.release.Boot.SHA256)
	if _, err := io.Copy(io.Discard, in); err != nil {
		return err
	}
	return checkParts(u.release, u.root, u.boot)
}

// A filler is a payload.Sink that keeps what is made.
type filler struct {
	u   *unpacked
	dir string
}

// Begin implements payload.Sink.
func (s *filler) Begin(o payload.Output) (io.WriterAt, error) {
	f, err := os.CreateTemp(s.dir, payloadTemp+"*")
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) || errors.Is(err, fs.ErrNotExist) {
		f, err = os.CreateTemp("", "proa"+payloadTemp+"*") // who only reads the repository, or has a copy of what is published, may verify it
	}
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil && !errors.Is(err, fs.ErrNotExist) { // another desk takes it for left over
		return nil, errors.Join(err, f.Close())
	}
	if o.Kind == payload.RootImage {
		s.u.root = f
	} else {
		s.u.boot = f
	}
	return f, nil
}

// Checkpoint implements payload.Sink.
func (s *filler) Checkpoint(payload.Mark) error { return nil }

// Complete implements payload.Sink. It reads back what was made.
func (s *filler) Complete(o payload.Output) error {
	f := s.u.boot
	if o.Kind == payload.RootImage {
		f = s.u.root
	}
	got, size, err := digest.OfReader(io.NewSectionReader(f, 0, o.Size+1))
	if err != nil {
		return err
	}
	if got != o.SHA256 || size != o.Size {
		return &digest.MismatchError{Name: o.Kind.String(), WantSize: o.Size, GotSize: size, WantSum: o.SHA256, GotSum: got}
	}
	return nil
}

// cancelled is a reader that ends when its context does.
type cancelled struct {
	ctx context.Context
	r   io.Reader
}

// Read implements io.Reader.
func (c *cancelled) Read(b []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(b)
}
