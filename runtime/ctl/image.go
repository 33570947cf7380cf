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
	"github.com/proa-os/proa/runtime/endpoint"
	"github.com/proa-os/proa/runtime/fetch"
	"github.com/proa-os/proa/runtime/flagset"
	"github.com/proa-os/proa/runtime/image"
	"github.com/proa-os/proa/runtime/ref"
	"github.com/proa-os/proa/runtime/store"
	"github.com/proa-os/proa/runtime/trust"
)

// imageCommands are those that move images about.
func (e *Env) imageCommands() []command {
	load, save, push, login, gc := new(loadFlags), new(saveFlags), new(pushFlags), new(loginFlags), new(gcFlags)
	return []command{
		{name: "push", args: "[flags] IMAGE", what: "upload an image to the registry in its name", flags: push.flags, all: true,
			more: `Compressed layers that are not kept here are fetched again first. Uploading runs as the user proa-fetch.`,
			run:  func(ctx context.Context, w []string) (int, error) { return 0, e.push(ctx, w, push) }},
		{name: "tag", args: "IMAGE NAME", what: "give an image another name", all: true,
			run: func(ctx context.Context, w []string) (int, error) { return 0, e.tag(ctx, w) }},
		{name: "load", args: "[flags]", what: "read images from an archive or a directory", flags: load.flags, all: true,
			more: `Reads what docker save, podman save, skopeo and containerctl save write: docker archives and OCI layouts, as tar
archives (not compressed) or directories. The trust policy holds as for pull.`,
			run: func(ctx context.Context, w []string) (int, error) { return 0, e.load(ctx, w, load) }},
		{name: "save", args: "[flags] IMAGE...", what: "write images to an archive or a directory", flags: save.flags, all: true,
			more: `The archive is an OCI layout and a docker archive at once: docker load, podman load, skopeo and containerctl load
read it. Layers and digests stay as they are; compressed layers that are not kept here are fetched again first.`,
			run: func(ctx context.Context, w []string) (int, error) { return 0, e.save(ctx, w, save) }},
		{name: "gc", args: "[flags]", what: "remove layers that nothing needs, and what interrupted pulls left", flags: gc.flags, all: true,
			more: `Layers of images, of containers (running or not) and of pulls under way stay.`,
			run:  func(_ context.Context, w []string) (int, error) { return 0, e.gc(w, gc) }},
		{name: "login", args: "[flags] REGISTRY", what: "keep a name and a password for a registry", flags: login.flags, all: true,
			more: `They are tried first, and kept in ` + endpoint.LoginFile + `, which only root reads. docker's config.json in the home
directory and its credential helpers count as well.`,
			run: func(ctx context.Context, w []string) (int, error) { return 0, e.login(ctx, w, login) }},
		{name: "logout", args: "REGISTRY", what: "forget them", all: true,
			run: func(_ context.Context, w []string) (int, error) { return 0, e.logout(w) }},
	}
}

type pushFlags struct {
	tlsVerify bool
	progress  string
}

func (f *pushFlags) flags(s *flagset.Set) {
	f.tlsVerify, f.progress = true, "auto"
	s.Bool(&f.tlsVerify, "tls-verify", "=false: also speak plain HTTP and take any certificate")
	progressFlag(s, &f.progress)
}

func (e *Env) push(ctx context.Context, words []string, f *pushFlags) error {
	if err := exactly(words, "IMAGE"); err != nil {
		return err
	}
	r, err := ref.Parse(words[0])
	if err != nil {
		return err
	}
	s, err := e.open()
	if err != nil {
		return err
	}
	it, err := e.item(ctx, s, r, !f.tlsVerify, f.progress)
	if err != nil {
		return err
	}
	dir, release, err := s.Scratch()
	if err != nil {
		return err
	}
	defer release()
	if err := archive.WriteDir(filepath.Join(dir.Name(), "layout"), []archive.Item{it}, s.OpenBlob); err != nil {
		return err
	}
	layout, err := os.Open(filepath.Join(dir.Name(), "layout"))
	if err != nil {
		return err
	}
	defer layout.Close()
	c, err := e.startFetcher(ctx, r, !f.tlsVerify, layout)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Push(ctx, it.Image.Digest, r.Identifier()); err != nil {
		return fmt.Errorf("push %s: %w", r, err)
	}
	fmt.Fprintln(e.Out, it.Image.Digest)
	return nil
}

// item reads an image and sees to it that its compressed layers are here.
func (e *Env) item(ctx context.Context, s *store.Store, r ref.Ref, insecure bool, progress string) (archive.Item, error) {
	rec, err := s.Image(r)
	if err != nil {
		return archive.Item{}, err
	}
	img, err := s.Load(rec.Top)
	if err != nil {
		return archive.Item{}, err
	}
	it := archive.Item{Image: img, Names: []string{r.String()}}
	if _, ok := r.Digest(); ok {
		it.Names = nil
	}
	missing := false
	for _, l := range img.Layers {
		missing = missing || !s.HasBlob(l)
	}
	if !missing {
		return it, nil
	}
	c, err := e.startFetcher(ctx, r, insecure, nil)
	if err != nil {
		return it, err
	}
	defer c.Close()
	show, end := e.progress(progress)
	defer end()
	if err := s.KeepBlobs(ctx, c, img, show); err != nil {
		return it, fmt.Errorf("%s: its compressed layers are not kept here, and fetching them again does not work: %w", r, err)
	}
	return it, nil
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

func (e *Env) tag(ctx context.Context, words []string) error {
	if err := exactly(words, "IMAGE", "NAME"); err != nil {
		return err
	}
	from, err := ref.Parse(words[0])
	if err != nil {
		return err
	}
	to, err := ref.Parse(words[1])
	if err != nil {
		return err
	}
	s, err := e.open()
	if err != nil {
		return err
	}
	unlock, err := s.Lock()
	if err != nil {
		return err
	}
	defer unlock()
	rec, err := s.Image(from)
	if err != nil {
		return err
	}
	img, err := s.Load(rec.Top)
	if err != nil {
		return err
	}
	// A name that demands a signature is not to be had by renaming.
	p, err := trust.Read(e.Trust...)
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

func (f *loadFlags) flags(s *flagset.Set) {
	f.progress = "auto"
	s.String(&f.input, "i,input", "FILE", "archive or directory (default: an archive on standard input)")
	s.String(&f.name, "name", "NAME", "the image's name, where the archive holds one image")
	progressFlag(s, &f.progress)
}

func (e *Env) load(ctx context.Context, words []string, f *loadFlags) error {
	if err := exactly(words); err != nil {
		return err
	}
	s, err := e.open()
	if err != nil {
		return err
	}
	input := f.input
	if input == "" {
		dir, release, err := s.Scratch()
		if err != nil {
			return err
		}
		defer release()
		input = filepath.Join(dir.Name(), "archive")
		if err := spool(input, e.In); err != nil {
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
		if err := e.loadImage(ctx, s, a, en, f.progress); err != nil {
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

func (f *saveFlags) flags(s *flagset.Set) {
	f.progress, f.tlsVerify = "auto", true
	s.String(&f.output, "o,output", "FILE", "where to (default: standard output)")
	s.Bool(&f.dir, "dir", "as a directory, which must not exist")
	s.Bool(&f.tlsVerify, "tls-verify", "=false: fetch layers without TLS if need be")
	progressFlag(s, &f.progress)
}

func (e *Env) save(ctx context.Context, words []string, f *saveFlags) error {
	if len(words) == 0 {
		return errors.New("want an IMAGE")
	}
	out, _ := e.Out.(*os.File)
	switch {
	case f.dir && f.output == "":
		return errors.New("--dir needs --output")
	case f.output == "" && out != nil && term.IsTerminal(int(out.Fd())):
		return errors.New("an archive to a terminal? Say --output FILE")
	}
	s, err := e.open()
	if err != nil {
		return err
	}
	var items []archive.Item
	for _, w := range words {
		r, err := ref.Parse(w)
		if err != nil {
			return err
		}
		it, err := e.item(ctx, s, r, !f.tlsVerify, f.progress)
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
		return archive.WriteTar(e.Out, items, s.OpenBlob)
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

type gcFlags struct{ blobs bool }

func (f *gcFlags) flags(s *flagset.Set) {
	s.Bool(&f.blobs, "blobs", "also compressed layers that are kept for save and push")
}

func (e *Env) gc(words []string, f *gcFlags) error {
	if err := exactly(words); err != nil {
		return err
	}
	s, err := e.open()
	if err != nil {
		return err
	}
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
	if err == nil && f.blobs {
		err = s.ForgetBlobs()
	}
	if err != nil {
		return err
	}
	after, err := s.Count()
	if err != nil {
		return err
	}
	fmt.Fprintf(e.Err, "removed %d layers, %d blobs, %d interrupted pulls\n", before.Layers-after.Layers, before.Blobs-after.Blobs, before.Partial-after.Partial)
	return nil
}

type loginFlags struct {
	user             string
	stdin, tlsVerify bool
}

func (f *loginFlags) flags(s *flagset.Set) {
	f.tlsVerify = true
	s.String(&f.user, "u,username", "NAME", "who")
	s.Bool(&f.stdin, "password-stdin", "read the password from standard input, without asking")
	s.Bool(&f.tlsVerify, "tls-verify", "=false: also over plain HTTP")
}

func (e *Env) login(ctx context.Context, words []string, f *loginFlags) error {
	if err := exactly(words, "REGISTRY"); err != nil {
		return err
	}
	if f.user == "" {
		return errors.New("want --username")
	}
	host := words[0]
	r, err := ref.Parse(host + "/login")
	if err != nil || !strings.HasPrefix(r.Repository(), host+"/") {
		return fmt.Errorf("registry %q: want host[:port]", host)
	}
	password, err := e.password(f.stdin)
	if err != nil {
		return err
	}
	list, err := e.Endpoints.For(r, !f.tlsVerify)
	if err != nil {
		return err
	}
	list = list[len(list)-1:]
	list[0].Auth = endpoint.Auth{Username: f.user, Password: password}
	c, err := e.startFetcherAt(ctx, list, nil)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Check(ctx); err != nil {
		return fmt.Errorf("%s does not take them: %w", host, err)
	}
	return endpoint.Save(e.Endpoints.Auth[0], host, list[0].Auth)
}

// password asks on the terminal, without echo, or reads the first line of standard input.
func (e *Env) password(stdin bool) (string, error) {
	if !stdin && term.IsTerminal(int(e.In.Fd())) {
		fmt.Fprint(e.Err, "Password: ")
		b, err := term.ReadPassword(int(e.In.Fd()))
		fmt.Fprintln(e.Err)
		return string(b), err
	}
	if !stdin {
		return "", errors.New("no terminal to ask for the password on: use --password-stdin")
	}
	line, err := bufio.NewReader(io.LimitReader(e.In, 64<<10)).ReadString('\n')
	if err != nil && err != io.EOF {
		return "", err
	}
	if line = strings.TrimRight(line, "\r\n"); line == "" {
		return "", errors.New("no password on standard input")
	}
	return line, nil
}

func (e *Env) logout(words []string) error {
	if err := exactly(words, "REGISTRY"); err != nil {
		return err
	}
	return endpoint.Save(e.Endpoints.Auth[0], words[0], endpoint.Auth{})
}
