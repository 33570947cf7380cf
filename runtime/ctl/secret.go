package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/proa-os/proa/internal/nearest"
	"github.com/proa-os/proa/runtime/flagset"
	"github.com/proa-os/proa/runtime/secret"
	"github.com/proa-os/proa/runtime/store"
)

// secretVerb is containerctl secret.
func secretVerb() verb {
	return verb{name: "secret", what: "keep passwords and keys for containers", verbs: []verb{
		{name: "create", args: "NAME FILE|-", min: 2, max: 2, what: "store a secret", setup: secretCreate,
			more: `FILE is read as it is; - is standard input. run --secret NAME gives it to a container, as the file /run/secrets/NAME or as a
variable. It is kept in a file that only root can read, sealed by the machine's TPM if there is one: that disk in another machine does not
give it away.`,
			examples: []string{"containerctl secret create db-password ./password", "head -c 32 /dev/urandom | containerctl secret create key -"}},
		{name: "ls", what: "list secrets", json: true, setup: func(s *flagset.Set) action {
			var quiet bool
			s.Bool(&quiet, "q,quiet", "only names")
			return func(_ context.Context, c *call) error { return c.secretList(quiet) }
		}},
		{name: "inspect", args: "NAME...", min: 1, max: -1, lister: "secrets", what: "print all about secrets but their content as JSON", json: true, setup: func(s *flagset.Set) action {
			var show bool
			s.Bool(&show, "showsecret", "also the content")
			return func(ctx context.Context, c *call) error { return c.secretInspect(ctx, show) }
		}},
		{name: "rm", args: "NAME...", min: 1, max: -1, lister: "secrets", what: "remove secrets", setup: func(s *flagset.Set) action {
			var ignore bool
			s.Bool(&ignore, "i,ignore", "a missing one is no error")
			return func(_ context.Context, c *call) error { return c.secretRemove(ignore) }
		}},
	}}
}

func (c *call) secrets() (*secret.Store, error) { return secret.Open(c.store.SecretsDir()) }

func (c *call) secretNames() ([]string, error) {
	s, err := c.secrets()
	if err != nil {
		return nil, err
	}
	list, err := s.List()
	return namesOf(list, err, func(v *secret.Secret) string { return v.Name })
}

func secretCreate(s *flagset.Set) action {
	v := new(secret.Secret)
	var replace bool
	s.Bool(&replace, "replace", "in the place of one with this name")
	labelFlag(s, "secret", &v.Labels)
	driverFlag(s, "file")
	seal := "auto"
	s.Func("seal", "HOW", "auto: with the TPM if there is one (default); tpm: an error without; no: readable wherever the disk is", func(v string) error {
		if v != "auto" && v != "tpm" && v != "no" {
			return errors.New("want auto, tpm or no")
		}
		seal = v
		return nil
	})
	return func(ctx context.Context, c *call) error {
		in := c.In
		if c.args[1] != "-" {
			f, err := os.Open(c.args[1])
			if err != nil {
				return err
			}
			defer f.Close()
			in = f
		}
		var err error
		if v.Data, err = io.ReadAll(io.LimitReader(in, secret.MaxSize+1)); err != nil {
			return fmt.Errorf("read %s: %w", c.args[1], err)
		}
		v.Name, v.Created = c.args[0], time.Now().UTC().Truncate(time.Second)
		s, err := c.secrets()
		if err != nil {
			return err
		}
		if seal == "tpm" || seal == "auto" && s.HasTPM(ctx) {
			if err := s.Seal(ctx, v); err != nil {
				return err
			}
		}
		if err := s.Put(v, replace); err != nil {
			return err
		}
		fmt.Fprintln(c.Out, v.Name)
		return nil
	}
}

func (c *call) secretList(quiet bool) error {
	s, err := c.secrets()
	if err != nil {
		return err
	}
	list, err := s.List()
	if err != nil {
		return err
	}
	switch {
	case c.asJSON:
		return c.json(list)
	case quiet:
		names, err := namesOf(list, nil, func(v *secret.Secret) string { return v.Name })
		return errors.Join(err, c.printNames(names))
	}
	return c.table("NAME\tCREATED", func(w io.Writer) {
		for _, v := range list {
			fmt.Fprintf(w, "%s\t%s\n", v.Name, v.Created.Local().Format(time.DateTime))
		}
	})
}

func (c *call) secretInspect(ctx context.Context, show bool) error {
	s, err := c.secrets()
	if err != nil {
		return err
	}
	type inspected struct {
		*secret.Secret
		ByTPM bool `json:"sealed_by_tpm"`
	}
	var out []inspected
	for _, name := range c.args {
		v, err := s.Get(name)
		if errors.Is(err, secret.ErrNone) {
			return c.suggest(err, name, "secrets")
		}
		if err != nil {
			return err
		}
		sealed := v.Sealed != ""
		if !show {
			v.Data = nil
		} else if v.Data, err = s.Open(ctx, v); err != nil {
			return err
		}
		v.Sealed = ""
		out = append(out, inspected{v, sealed})
	}
	return c.json(out)
}

func (c *call) secretRemove(ignore bool) error {
	s, err := c.secrets()
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range c.args {
		err := s.Remove(name)
		switch {
		case err == nil:
			fmt.Fprintln(c.Out, name)
		case errors.Is(err, secret.ErrNone) && ignore:
		case errors.Is(err, secret.ErrNone):
			errs = append(errs, c.suggest(err, name, "secrets"))
		default:
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// secretFlag is run --secret.
func secretFlag(s *flagset.Set, k *store.Container) {
	s.Func("secret", "NAME[,OPTION...]", "a secret as the file /run/secrets/NAME; OPTIONS: type=env, target=, uid=, gid=, mode=", func(v string) error { return addSecret(k, v) })
}

// addSecret reads podman's NAME[,type=mount|env][,target=...][,uid=...][,gid=...][,mode=...].
func addSecret(k *store.Container, text string) error {
	v := store.Secret{Mode: 0o444}
	for i, f := range strings.Split(text, ",") {
		key, value, ok := strings.Cut(f, "=")
		var err error
		var n int64
		switch {
		case !ok && i == 0:
			v.Name = f
		case key == "source" || key == "src" || key == "id":
			v.Name = value
		case key == "type" && (value == "env" || value == "mount"):
			v.Env = value == "env"
		case key == "target" || key == "dst" || key == "destination":
			v.Target = value
		case key == "uid":
			n, err = strconv.ParseInt(value, 10, 32)
			v.UID = int(n)
		case key == "gid":
			n, err = strconv.ParseInt(value, 10, 32)
			v.GID = int(n)
		case key == "mode":
			n, err = strconv.ParseInt(value, 8, 32)
			v.Mode = uint32(n)
		default:
			if near := nearest.Word(key, []string{"source", "type", "target", "uid", "gid", "mode"}); near != "" && near != key {
				return fmt.Errorf("option %q: did you mean %s=?", f, near)
			}
			return fmt.Errorf("option %q: want source=, type=mount, type=env, target=, uid=, gid= or mode=", f)
		}
		if err != nil || n < 0 || key == "mode" && n > 0o777 {
			return fmt.Errorf("option %q: want a number", f)
		}
	}
	if err := secret.CheckName(v.Name); err != nil {
		return err
	}
	switch {
	case v.Target == "" && v.Env:
		v.Target = v.Name
	case v.Target == "":
		v.Target = "/run/secrets/" + v.Name
	case v.Env && strings.ContainsAny(v.Target, "=\x00"):
		return fmt.Errorf("target %q: want the name of a variable", v.Target)
	case !v.Env && !path.IsAbs(v.Target):
		v.Target = filepath.Join("/run/secrets", v.Target)
	}
	if !v.Env && (path.Clean(v.Target) == "/" || path.Clean(v.Target) == "/run/secrets") {
		return fmt.Errorf("target %q: want a file", v.Target)
	}
	k.Secrets = append(k.Secrets, v)
	return nil
}
