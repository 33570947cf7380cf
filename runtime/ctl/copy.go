package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"strings"

	"github.com/proa-os/proa/runtime/bundle"
	"github.com/proa-os/proa/runtime/flagset"
	"github.com/proa-os/proa/runtime/store"
	"github.com/proa-os/proa/runtime/transfer"
)

type copyFlags struct{ archive, follow bool }

func copyVerb() verb {
	return verb{name: "cp", args: "FROM TO", what: "copy files between a container and the machine", min: 2, max: 2, lister: "containers",
		more: `One of the two is NAME:PATH. The other is a path of the machine, or - for a tar archive on standard input or output. A directory is
copied with all below it; FROM ending in /. is only what is in it. Files become root's unless --archive is given. Links in the
container never lead out of it. Of a container that does not run, volumes are not seen.`,
		examples: []string{"containerctl cp web:/etc/nginx/nginx.conf .", "containerctl cp site/. web:/srv/www"},
		setup: func(s *flagset.Set) action {
			f := new(copyFlags)
			s.Bool(&f.archive, "a,archive", "keep owners, and modes with setuid")
			s.Bool(&f.follow, "L,follow-link", "copy what FROM links to")
			return f.run
		}}
}

func (f *copyFlags) run(_ context.Context, c *call) error {
	from, fromPath, fromIn := strings.Cut(c.args[0], ":")
	to, toPath, toIn := strings.Cut(c.args[1], ":")
	fromIn, toIn = fromIn && !strings.Contains(from, "/"), toIn && !strings.Contains(to, "/")
	switch {
	case fromIn == toIn:
		return errors.New("want one path of a container, as NAME:PATH, and one of the machine")
	case fromIn:
		k, err := c.container(from)
		if err != nil {
			return err
		}
		return f.out(c, k, fromPath, c.args[1])
	}
	k, err := c.container(to)
	if err != nil {
		return err
	}
	return f.in(c, k, c.args[0], toPath)
}

func (f *copyFlags) out(c *call, k *store.Container, from, to string) error {
	t, err := c.tree(k)
	if err != nil {
		return err
	}
	defer t.Close()
	if to == "-" {
		return t.Pack(c.Out, from, nameOf(from), f.follow)
	}
	machine, to, err := here(to)
	if err != nil {
		return err
	}
	defer machine.Close()
	return f.between(t, from, machine, to, nil)
}

func (f *copyFlags) in(c *call, k *store.Container, from, to string) error {
	t, err := c.tree(k)
	if err != nil {
		return err
	}
	defer t.Close()
	if from == "-" {
		return bundle.AsRoot(k.IDs, func() error { return t.Unpack(c.In, to, true) })
	}
	machine, from, err := here(from)
	if err != nil {
		return err
	}
	defer machine.Close()
	return f.between(machine, from, t, to, k.IDs)
}

// here is the machine's own tree, and a path in it. The thread may be in another mount namespace, in which nothing of the machine's differs.
func here(name string) (*transfer.Tree, string, error) {
	abs, err := filepath.Abs(name)
	if err != nil {
		return nil, "", err
	}
	if strings.HasSuffix(name, "/.") || name == "." {
		abs += "/."
	} else if strings.HasSuffix(name, "/") {
		abs += "/"
	}
	t, err := transfer.Open("/")
	return t, abs, err
}

// nameOf is what a path is called in an archive: "." for the content of a directory.
func nameOf(name string) string {
	if strings.HasSuffix(name, "/.") || name == "." || path.Clean("/"+name) == "/" {
		return "."
	}
	return path.Base(name)
}

// between copies as cp -r does: into a directory that is there, or else under the new name. ids are those of the tree that is written to.
func (f *copyFlags) between(from *transfer.Tree, source string, to *transfer.Tree, target string, ids *store.IDs) error {
	name := nameOf(source)
	mode, there, err := to.Kind(target)
	if err != nil {
		return err
	}
	what, found, err := from.Kind(source)
	if err != nil {
		return err
	}
	switch {
	case there && mode.IsDir():
	case there && found && what.IsDir():
		return fmt.Errorf("%s is no directory", target)
	case !there && strings.HasSuffix(target, "/") && !(found && what.IsDir()):
		return fmt.Errorf("%s: no such directory", target)
	default:
		target, name = path.Dir(path.Clean(target)), path.Base(target)
	}
	r, w := io.Pipe()
	packed := make(chan error, 1)
	go func() {
		err := from.Pack(w, source, name, f.follow)
		w.CloseWithError(err)
		packed <- err
	}()
	err = bundle.AsRoot(ids, func() error { return to.Unpack(r, target, f.archive) })
	r.CloseWithError(io.ErrClosedPipe)
	if perr := <-packed; perr != nil && !errors.Is(perr, io.ErrClosedPipe) {
		return perr
	}
	return err
}

// tree is the files of a container: of one that runs as its first process sees them, else its root file system.
func (c *call) tree(k *store.Container) (*transfer.Tree, error) {
	st, err := c.running(k)
	var t *transfer.Tree
	if err == nil {
		if t, err = transfer.Open(fmt.Sprintf("/proc/%d/root", st.Pid)); err != nil {
			return nil, err
		}
		// The number is still that process's, and was when the directory was opened.
		if _, err := c.running(k); err != nil {
			return nil, errors.Join(err, t.Close())
		}
	} else {
		root, err := bundle.Mount(c.store, k)
		if err != nil {
			return nil, err
		}
		if t, err = transfer.Open(root); err != nil {
			return nil, err
		}
	}
	if k.IDs != nil {
		t.First, t.Count = k.IDs.First, k.IDs.Count
	}
	return t, nil
}
