package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"strconv"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/runtime/endpoint"
	"github.com/proa-os/proa/runtime/fetch"
	"github.com/proa-os/proa/runtime/flagset"
	"github.com/proa-os/proa/runtime/image"
	"github.com/proa-os/proa/runtime/ref"
	"github.com/proa-os/proa/runtime/store"
	"github.com/proa-os/proa/runtime/trust"
)

// pullFlags are those of pull.
type pullFlags struct {
	tlsVerify bool
	progress  string
	policy    string
	keep      bool
}

func pullVerb() verb {
	return verb{name: "pull", args: "IMAGE", what: "fetch an image from a registry", min: 1, max: 1, lister: "images",
		more: `IMAGE is [REGISTRY/]NAME[:TAG] or [REGISTRY/]NAME@sha256:DIGEST. Of an image for many platforms the one for this
machine is fetched. Fetching runs as the user proa-fetch without privileges; what it brings is verified before it
is unpacked. The digest of the image is printed. A pull that was interrupted goes on where it was.

Mirrors, insecure and blocked registries: /etc/containers/registries.conf. Credentials: containerctl login, or
~/.docker/config.json. Authorities: /etc/containers/certs.d/HOST/*.crt. Proxies: HTTPS_PROXY and NO_PROXY.`,
		elsewhere: map[string]string{"--platform": "images for this machine are fetched; for others use skopeo copy", "-a": "name the tags", "--all-tags": "name the tags"},
		setup: func(s *flagset.Set) action {
			f := &pullFlags{tlsVerify: true, progress: "auto", policy: "always"}
			s.Bool(&f.tlsVerify, "tls-verify", "=false: also speak plain HTTP and take any certificate")
			progressFlag(s, &f.progress)
			s.Func("policy", "WHEN", "always (default); missing: only if it is not here; newer: always, but without the registry what is here; never: fail if it is not here", pullPolicy(&f.policy))
			s.Bool(&f.keep, "keep-blobs", "keep the compressed layers, for save and push without the registry")
			return f.run
		}}
}

func (f *pullFlags) run(ctx context.Context, c *call) error {
	_, rec, err := c.obtain(ctx, c.args[0], f)
	if err != nil {
		return err
	}
	fmt.Fprintln(c.Out, rec.Top)
	return nil
}

// pullPolicy reads a word that says when an image is fetched.
func pullPolicy(p *string) func(string) error {
	return func(v string) error {
		if v != "missing" && v != "always" && v != "never" && v != "newer" {
			return errors.New("want missing, always, newer or never")
		}
		*p = v
		return nil
	}
}

// obtain finds an image here, or has it fetched, as the policy says.
func (c *call) obtain(ctx context.Context, image string, f *pullFlags) (ref.Ref, *store.Record, error) {
	name, here, err := c.image(image)
	missing := errors.Is(err, store.ErrNoImage)
	if f.policy == "never" || f.policy == "missing" && !missing || err != nil && !missing {
		return name, here, err
	}
	rec, err := c.pullImage(ctx, c.store, name, !f.tlsVerify, f.progress, f.keep)
	if err != nil && f.policy == "newer" && !missing {
		fmt.Fprintf(c.Err, "containerctl: %s: going on with the image that is here\n", printable(err.Error()))
		return name, here, nil
	}
	return name, rec, err
}

// pullImage has the image fetched by a process without privileges, and imports what that brings.
func (e *Env) pullImage(ctx context.Context, s *store.Store, r ref.Ref, insecure bool, progress string, keep bool) (*store.Record, error) {
	policy, err := trust.Read(e.Trust...)
	if err == nil {
		err = policy.CheckName(r)
	}
	if err != nil {
		return nil, err
	}
	c, err := e.startFetcher(ctx, r, insecure, nil)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	img, err := resolve(ctx, s, c, r)
	if err != nil {
		return nil, fmt.Errorf("pull %s: %w", r, err)
	}
	v, err := policy.Check(ctx, r, img, c, func(err error) bool { return errors.Is(err, fetch.ErrNotFound) })
	if err != nil {
		return nil, err
	}
	show, end := e.progress(progress)
	defer end()
	return s.Import(ctx, c, img, r, v, keep, show)
}

// startFetcher starts the process that talks to the image's registry. layout is what it is to push, or nil.
func (e *Env) startFetcher(ctx context.Context, r ref.Ref, insecure bool, layout *os.File) (*fetch.Client, error) {
	list, err := e.Endpoints.For(r, insecure)
	if err != nil {
		return nil, err
	}
	return e.startFetcherAt(ctx, list, layout)
}

func (e *Env) startFetcherAt(ctx context.Context, list []endpoint.Endpoint, layout *os.File) (*fetch.Client, error) {
	uid, gid, err := e.fetchUser()
	if err != nil {
		return nil, err
	}
	args := []string{"/proc/self/exe", "fetch"}
	if layout != nil {
		args = append(args, "--push")
	}
	return fetch.Start(ctx, fetch.Process{Args: args, UID: uid, GID: gid, Layout: layout}, list)
}

// resolve finds out what the name stands for at this moment, and reads the documents; those that the store has are not fetched.
func resolve(ctx context.Context, s *store.Store, c *fetch.Client, r ref.Ref) (*image.Image, error) {
	top, ok := r.Digest()
	var first []byte
	if !ok {
		var err error
		if first, err = c.Manifest(ctx, r.Identifier()); err != nil {
			return nil, err
		}
		top = image.Digest(digest.Of(first))
	}
	return image.Resolve(top, func(d image.Descriptor) ([]byte, error) {
		if d.Digest == top && first != nil {
			return first, nil
		}
		if b, ok := s.Document(d.Digest); ok {
			return b, nil
		}
		return c.Document(ctx, d)
	})
}

// fetchUser returns who fetches: a user of its own when root asks, else whoever asks.
func (e *Env) fetchUser() (uid, gid int, err error) {
	if os.Geteuid() != 0 {
		return os.Geteuid(), os.Getegid(), nil
	}
	u, err := user.Lookup(e.FetchUser)
	if err != nil {
		return 0, 0, fmt.Errorf("find the user that fetches: %w", err)
	}
	if uid, err = strconv.Atoi(u.Uid); err == nil {
		gid, err = strconv.Atoi(u.Gid)
	}
	return uid, gid, err
}

// fetch is the unprivileged side of pull and push.
func (e *Env) fetch(ctx context.Context, push bool) error {
	var layout *os.Root
	if push { // before Confine, after which /proc/self is root's
		var err error
		if layout, err = os.OpenRoot("/proc/self/fd/3"); err != nil {
			return fmt.Errorf("open what is to be pushed: %w", err)
		}
		defer layout.Close()
	}
	if err := fetch.Confine(); err != nil {
		return err
	}
	return fetch.Serve(ctx, e.In, e.Out, layout)
}

// limitWriter keeps the first bytes of what a stranger says.
type limitWriter struct {
	w    io.Writer
	left int
}

func (l *limitWriter) Write(p []byte) (int, error) {
	n := min(len(p), l.left)
	l.left -= n
	l.w.Write(p[:n])
	return len(p), nil
}
