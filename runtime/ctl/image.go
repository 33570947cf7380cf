package ctl

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/term"

	"github.com/proa-os/proa/internal/durable"
	"github.com/proa-os/proa/runtime/archive"
	"github.com/proa-os/proa/runtime/fetch"
	"github.com/proa-os/proa/runtime/flagset"
	"github.com/proa-os/proa/runtime/image"
	"github.com/proa-os/proa/runtime/ref"
	"github.com/proa-os/proa/runtime/store"
	"github.com/proa-os/proa/runtime/trust"
)

// imageVerbs are those that move images about.
func imageVerbs() []verb {
	return []verb{
		{name: "push", args: "IMAGE", what: "upload an image to the registry in its name", min: 1, max: 1, lister: "images", setup: pushSetup,
			more: `Compressed layers that are not kept here are fetched again first. Uploading runs as the user proa-fetch.`},
		{name: "tag", args: "IMAGE NAME", what: "give an image another name", min: 2, max: 2, lister: "images", setup: plain(tag)},
		{name: "load", what: "read images from an archive or a directory", setup: loadSetup,
			more: `Reads what docker save, podman save, skopeo and containerctl save write: docker archives and OCI layouts, as tar
archives (not compressed) or directories. The trust policy holds as for pull.`},
		{name: "save", args: "IMAGE...", what: "write images to an archive or a directory", min: 1, max: -1, lister: "images", setup: saveSetup,
			more: `The archive is an OCI layout and a docker archive at once: docker load, podman load, skopeo and containerctl load
read it. Layers and digests stay as they are; compressed layers that are not kept here are fetched again first.`},
		{name: "rmi", args: "IMAGE...", what: "remove images; layers stay as long as a container needs them", min: 1, max: -1, lister: "images", setup: func(s *flagset.Set) action {
			var force bool
			s.Bool(&force, "f,force", "no error if there is none")
			s.Func("no-prune", "", "accepted: layers go with gc", accept)
			return func(_ context.Context, c *call) error { return c.rmi(force) }
		}},
		{name: "gc", what: "remove layers that nothing needs, and what interrupted pulls left", setup: func(s *flagset.Set) action {
			var blobs bool
			s.Bool(&blobs, "blobs", "also compressed layers that are kept for save and push")
			return func(ctx context.Context, c *call) error {
				return errors.Join(c.forgetAll(ctx), c.forgetUnits(ctx), c.gc(blobs))
			}
		}, more: `Layers of images, of containers (running or not) and of pulls under way stay.`},
	}
}

type pushFlags struct {
	tlsVerify bool
	progress  string
}

func pushSetup(s *flagset.Set) action {
	f := &pushFlags{tlsVerify: true, progress: "auto"}
	s.Bool(&f.tlsVerify, "tls-verify", "=false: also speak plain HTTP and take any certificate")
	progressFlag(s, &f.progress)
	return f.run
}

func (f *pushFlags) run(ctx context.Context, c *call) error {
	it, r, err := c.item(ctx, c.args[0], !f.tlsVerify, f.progress)
	if err != nil {
		return err
	}
	dir, release, err := c.store.Scratch()
	if err != nil {
		return err
	}
	defer release()
	if err := archive.WriteDir(filepath.Join(dir.Name(), "layout"), []archive.Item{it}, c.store.OpenBlob); err != nil {
		return err
	}
	layout, err := os.Open(filepath.Join(dir.Name(), "layout"))
	if err != nil {
		return err
	}
	defer layout.Close()
	fetcher, err := c.startFetcher(ctx, r, !f.tlsVerify, layout)
	if err != nil {
		return err
	}
	defer fetcher.Close()
	if err := fetcher.Push(ctx, it.Image.Digest, r.Identifier()); err != nil {
		return fmt.Errorf("push %s: %w", r, err)
	}
	fmt.Fprintln(c.Out, it.Image.Digest)
	return nil
}

// item reads an image and sees to it that its compressed layers are here.
func (c *call) item(ctx context.Context, name string, insecure bool, progress string) (it archive.Item, r ref.Ref, err error) {
	r, rec, err := c.image(name)
	if err != nil {
		return it, r, err
	}
	img, err := c.store.Load(rec.Top)
	if err != nil {
		return it, r, err
	}
	it = archive.Item{Image: img, Names: []string{r.String()}}
	if _, ok := r.Digest(); ok {
		it.Names = nil
	}
	missing := false
	for _, l := range img.Layers {
		missing = missing || !c.store.HasBlob(l)
	}
	if !missing {
		return it, r, nil
	}
	fetcher, err := c.startFetcher(ctx, r, insecure, nil)
	if err != nil {
		return it, r, err
	}
	defer fetcher.Close()
	show, end := c.progress(progress)
	defer end()
	if err := c.store.KeepBlobs(ctx, fetcher, img, show); err != nil {
		return it, r, fmt.Errorf("%s: its compressed layers are not kept here, and fetching them again does not work: %w", r, err)
	}
	return it, r, nil
}

// noSignatures is where a name has no registry to look for signatures in.
type noSignatures struct{}

func (noSignatures) Manifest(context.Context, string) ([]byte, error) {
	return nil, fetch.ErrNotFound
}
func (noSignatures) Document(context.Context, image.Descriptor) ([]byte, error) {
	return nil, fetch.ErrNotFound
}
func (noSignatures) Referrers(context.Context, image.Digest) ([]byte, error) {
	return nil, fetch.ErrNotFound
}

func tag(ctx context.Context, c *call) error {
	to, err := ref.Parse(c.args[1])
	if err != nil {
		return err
	}
	s := c.store
	unlock, err := s.Lock()
	if err != nil {
		return err
	}
	defer unlock()
	_, rec, err := c.image(c.args[0])
	if err != nil {
		return err
	}
	img, err := s.Load(rec.Top)
	if err != nil {
		return err
	}
	// A name that demands a signature is not to be had by renaming.
	p, err := trust.Read(c.Trust...)
	if err != nil {
		return err
	}
	v, err := p.Check(ctx, to, img, noSignatures{}, func(error) bool { return true })
	if errors.Is(err, trust.ErrNotTrusted) {
		return fmt.Errorf("%w (tag looks for no signatures: push it, sign it and pull it)", err)
	}
	if err != nil {
		return err
	}
	return s.Tag(rec, to, v)
}

type loadFlags struct {
	input, name, progress string
}

func loadSetup(s *flagset.Set) action {
	f := &loadFlags{progress: "auto"}
	s.String(&f.input, "i,input", "FILE", "archive or directory (default: an archive on standard input)")
	s.String(&f.name, "name", "NAME", "the image's name, where the archive holds one image")
	progressFlag(s, &f.progress)
	return f.run
}

func (f *loadFlags) run(ctx context.Context, c *call) error {
	s := c.store
	input := f.input
	if input == "" {
		dir, release, err := s.Scratch()
		if err != nil {
			return err
		}
		defer release()
		input = filepath.Join(dir.Name(), "archive")
		if err := spool(input, c.In); err != nil {
			return err
		}
	}
	a, err := archive.Open(input)
	if err != nil {
		return err
	}
	defer a.Close()
	var images []archive.Entry
	for _, en := range a.Images {
		if !en.IsSignature() {
			images = append(images, en)
		}
	}
	if f.name != "" {
		if len(images) != 1 {
			return fmt.Errorf("--name: the archive holds %d images", len(images))
		}
		images[0].Names = []string{f.name}
	}
	for _, en := range images {
		if err := c.loadImage(ctx, s, a, en, f.progress); err != nil {
			return err
		}
	}
	return nil
}

func spool(name string, in io.Reader) error {
	if f, ok := in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return errors.New("an archive on a terminal? Say --input FILE")
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(f, in)
	return err
}

func (e *Env) loadImage(ctx context.Context, s *store.Store, a *archive.Reader, en archive.Entry, progress string) error {
	img, err := image.Resolve(en.Top, func(d image.Descriptor) ([]byte, error) { return a.Document(ctx, d) })
	if err != nil {
		return err
	}
	var names []ref.Ref
	for _, n := range en.Names {
		if !strings.ContainsAny(n, ":/") {
			continue // a tag alone
		}
		r, err := ref.Parse(n)
		if err != nil {
			return err
		}
		names = append(names, r)
	}
	if len(names) == 0 {
		return fmt.Errorf("the image %s has no name in the archive: say --name NAME", en.Top)
	}
	p, err := trust.Read(e.Trust...)
	if err != nil {
		return err
	}
	for _, r := range names {
		v, err := p.Check(ctx, r, img, a, func(err error) bool { return errors.Is(err, archive.ErrMissing) })
		if err != nil {
			return err
		}
		show, end := e.progress(progress)
		_, err = s.Import(ctx, a, img, r, v, true, show)
		end()
		if err != nil {
			return err
		}
		fmt.Fprintln(e.Out, r)
	}
	return nil
}

type saveFlags struct {
	output, progress string
	dir, tlsVerify   bool
}

func saveSetup(s *flagset.Set) action {
	f := &saveFlags{progress: "auto", tlsVerify: true}
	s.String(&f.output, "o,output", "FILE", "where to (default: standard output)")
	s.Bool(&f.dir, "dir", "as a directory, which must not exist")
	s.Bool(&f.tlsVerify, "tls-verify", "=false: fetch layers without TLS if need be")
	progressFlag(s, &f.progress)
	return f.run
}

func (f *saveFlags) run(ctx context.Context, c *call) error {
	out, _ := c.Out.(*os.File)
	switch {
	case f.dir && f.output == "":
		return errors.New("--dir needs --output")
	case f.output == "" && out != nil && term.IsTerminal(int(out.Fd())):
		return errors.New("an archive to a terminal? Say --output FILE")
	}
	s := c.store
	var items []archive.Item
	for _, name := range c.args {
		it, _, err := c.item(ctx, name, !f.tlsVerify, f.progress)
		if err != nil {
			return err
		}
		items = append(items, it)
	}
	switch {
	case f.dir:
		if err := os.Mkdir(f.output, 0o755); err != nil {
			return err
		}
		return archive.WriteDir(f.output, items, s.OpenBlob)
	case f.output == "":
		return archive.WriteTar(c.Out, items, s.OpenBlob)
	}
	return saveFile(f.output, items, s)
}

// saveFile leaves no half archive under the name.
func saveFile(name string, items []archive.Item, s *store.Store) error {
	tmp, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	w := bufio.NewWriterSize(tmp, 256<<10)
	err = errors.Join(archive.WriteTar(w, items, s.OpenBlob), w.Flush(), tmp.Chmod(0o644), tmp.Sync(), tmp.Close())
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(filepath.Dir(name))
	if err != nil {
		return err
	}
	defer root.Close()
	return durable.Rename(root, filepath.Base(tmp.Name()), filepath.Base(name))
}

func (c *call) gc(blobs bool) error {
	s := c.store
	unlock, err := s.Lock()
	if err != nil {
		return err
	}
	defer unlock()
	before, err := s.Count()
	if err != nil {
		return err
	}
	err = errors.Join(s.ForgetPartial(), s.Collect())
	if err == nil && blobs {
		err = s.ForgetBlobs()
	}
	if err != nil {
		return err
	}
	after, err := s.Count()
	if err != nil {
		return err
	}
	fmt.Fprintf(c.Err, "removed %d layers, %d blobs, %d interrupted pulls\n", before.Layers-after.Layers, before.Blobs-after.Blobs, before.Partial-after.Partial)
	return nil
}

func (c *call) rmi(force bool) error {
	unlock, err := c.store.Lock()
	if err != nil {
		return err
	}
	defer unlock()
	for _, name := range c.args {
		r, _, err := c.image(name)
		if errors.Is(err, store.ErrNoImage) && force {
			continue
		}
		if err != nil {
			return err
		}
		if err := c.store.Untag(r); err != nil {
			return err
		}
		fmt.Fprintln(c.Out, r)
	}
	return nil
}
