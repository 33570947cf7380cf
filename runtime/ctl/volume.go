package ctl

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os/user"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/proa-os/proa/internal/nearest"
	"github.com/proa-os/proa/runtime/flagset"
	"github.com/proa-os/proa/runtime/store"
	"github.com/proa-os/proa/runtime/volume"
)

// volumeVerb is containerctl volume.
func volumeVerb() verb {
	return verb{name: "volume", what: "make, list and remove named volumes", verbs: []verb{
		{name: "create", args: "[NAME]", max: 1, what: "make a volume", setup: volumeCreate,
			more: `A volume is a directory of the machine that outlives the containers that use it, or a device that is mounted while one does.
Naming one in run -v makes it as well. Its first user fills it with what the image has at that place.

--opt type=, device= and o= are mount's file system, device and options; o=bind makes the volume another directory.`,
			examples: []string{"containerctl volume create data", "containerctl volume create --opt type=ext4 --opt device=/dev/vdb --opt o=noatime big"}},
		{name: "ls", what: "list volumes", json: true, setup: volumeList},
		{name: "inspect", args: "NAME...", min: 1, max: -1, lister: "volumes", what: "print all about volumes as JSON", json: true, setup: plain(volumeInspect)},
		{name: "rm", args: "NAME...", min: 1, max: -1, lister: "volumes", what: "remove volumes with all that is in them", setup: func(s *flagset.Set) action {
			var force bool
			s.Bool(&force, "f,force", "a missing one is no error")
			return func(_ context.Context, c *call) error { return c.volumeRemove(force) }
		}},
		{name: "prune", what: "remove volumes that no container uses", setup: func(s *flagset.Set) action {
			var all, force bool
			filters := volumeFilter(s)
			s.Bool(&all, "a,all", "also those that have a name")
			s.Bool(&force, "f,force", "accepted: nothing is asked")
			return func(_ context.Context, c *call) error { return c.volumePrune(all, filters) }
		}},
	}}
}

// volumes opens the volumes of the store.
func volumes(s *store.Store) (*volume.Store, error) {
	vs, err := volume.Open(s.VolumesDir())
	if err == nil {
		vs.Warn = s.Warn
	}
	return vs, err
}

// lockVolumes opens them for a change. Call the returned function to release them.
func lockVolumes(s *store.Store) (*volume.Store, func(), error) {
	vs, err := volumes(s)
	if err != nil {
		return nil, nil, err
	}
	unlock, err := vs.Lock()
	return vs, unlock, err
}

// volumeNames are all, for completion.
func (c *call) volumeNames() ([]string, error) {
	vs, err := volumes(c.store)
	if err != nil {
		return nil, err
	}
	list, err := vs.List()
	return namesOf(list, err, func(v *volume.Volume) string { return v.Name })
}

func volumeCreate(s *flagset.Set) action {
	v := new(volume.Volume)
	var ignore bool
	s.Bool(&ignore, "ignore", "one that exists is no error, and stays as it is")
	driverFlag(s, "local")
	labelFlag(s, "volume", &v.Labels)
	s.Func("uid", "USER", "owner of the directory (default: the image's)", func(name string) (err error) { v.UID, err = identity(name, false); return err })
	s.Func("gid", "GROUP", "group of the directory (default: the image's)", func(name string) (err error) { v.GID, err = identity(name, true); return err })
	s.Func("o,opt", "NAME[=VALUE]", "type, device and o as of mount; nocopy", func(o string) error { return volumeOption(v, o) })
	return func(_ context.Context, c *call) error {
		v.Name = anonymousName()
		if len(c.args) > 0 {
			v.Name = c.args[0]
		}
		v.Created, v.Anonymous = time.Now().UTC().Truncate(time.Second), len(c.args) == 0
		vs, unlock, err := lockVolumes(c.store)
		if err != nil {
			return err
		}
		defer unlock()
		if err := vs.Create(v); err != nil && !(ignore && errors.Is(err, volume.ErrExists)) {
			return err
		}
		fmt.Fprintln(c.Out, v.Name)
		return nil
	}
}

// volumeOption is one of docker's options of the local driver.
func volumeOption(v *volume.Volume, o string) error {
	k, value, _ := strings.Cut(o, "=")
	switch k {
	case "device":
		v.Device = value
	case "type":
		v.Type = value
	case "copy":
		v.NoCopy = false
	case "nocopy":
		v.NoCopy = true
	case "o":
		var rest []string
		for f := range strings.SplitSeq(value, ",") {
			name, id, _ := strings.Cut(f, "=")
			var err error
			switch name {
			case "uid":
				v.UID, err = identity(id, false)
			case "gid":
				v.GID, err = identity(id, true)
			case "":
			default:
				rest = append(rest, f)
			}
			if err != nil {
				return err
			}
		}
		v.Options = strings.Join(rest, ",")
	default:
		return errors.New("want type=, device=, o=, copy or nocopy")
	}
	return nil
}

// identity is a number, or a user or group of the machine.
func identity(name string, group bool) (*int, error) {
	text := name
	if _, err := strconv.Atoi(name); err != nil && group {
		g, err := user.LookupGroup(name)
		if err != nil {
			return nil, err
		}
		text = g.Gid
	} else if err != nil {
		u, err := user.Lookup(name)
		if err != nil {
			return nil, err
		}
		text = u.Uid
	}
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		return nil, fmt.Errorf("%q: want a number or a name", name)
	}
	id := int(n)
	return &id, nil
}

// A volumeView is one volume for people and programs.
type volumeView struct {
	*volume.Volume
	Mountpoint string   `json:"mountpoint"`
	Users      []string `json:"users"` // containers
}

// volumeViews joins volumes with the containers that name them.
func (c *call) volumeViews() ([]volumeView, error) {
	vs, err := volumes(c.store)
	if err != nil {
		return nil, err
	}
	list, err := vs.List()
	if err != nil {
		return nil, err
	}
	ks, err := c.store.Containers()
	if err != nil {
		return nil, err
	}
	out := []volumeView{}
	for _, v := range list {
		view := volumeView{Volume: v, Mountpoint: vs.Data(v.Name), Users: []string{}}
		if v.Bind() {
			view.Mountpoint = v.Device
		}
		for _, k := range ks {
			if slices.ContainsFunc(k.Volumes, func(m store.Volume) bool { return m.Name == v.Name }) {
				view.Users = append(view.Users, k.Name)
			}
		}
		out = append(out, view)
	}
	return out, nil
}

// volumeFilter is the flag --filter, and what it lets through.
func volumeFilter(s *flagset.Set) func(volumeView) bool {
	var tests []func(volumeView) bool
	s.Func("filter", "KEY=VALUE", "only those with name=PART, label=KEY[=VALUE] or dangling=true (used by nobody)", func(f string) error {
		k, value, _ := strings.Cut(f, "=")
		switch k {
		case "name":
			tests = append(tests, func(v volumeView) bool { return strings.Contains(v.Name, value) })
		case "label":
			key, want, valued := strings.Cut(value, "=")
			tests = append(tests, func(v volumeView) bool {
				got, ok := v.Labels[key]
				return ok && (!valued || got == want)
			})
		case "dangling":
			yes, err := strconv.ParseBool(value)
			if err != nil {
				return errors.New("want dangling=true or dangling=false")
			}
			tests = append(tests, func(v volumeView) bool { return (len(v.Users) == 0) == yes })
		default:
			return errors.New("want name=, label= or dangling=")
		}
		return nil
	})
	return func(v volumeView) bool {
		return !slices.ContainsFunc(tests, func(t func(volumeView) bool) bool { return !t(v) })
	}
}

func volumeList(s *flagset.Set) action {
	var quiet bool
	s.Bool(&quiet, "q,quiet", "only names")
	filter := volumeFilter(s)
	return func(_ context.Context, c *call) error {
		list, err := c.volumeViews()
		if err != nil {
			return err
		}
		list = slices.DeleteFunc(list, func(v volumeView) bool { return !filter(v) })
		switch {
		case c.asJSON:
			return c.json(list)
		case quiet:
			names, err := namesOf(list, nil, func(v volumeView) string { return v.Name })
			return errors.Join(err, c.printNames(names))
		}
		return c.table("NAME\tUSED BY\tCREATED", func(w io.Writer) {
			for _, v := range list {
				fmt.Fprintf(w, "%s\t%s\t%s\n", v.Name, strings.Join(v.Users, ","), v.Created.Local().Format(time.DateTime))
			}
		})
	}
}

func volumeInspect(_ context.Context, c *call) error {
	list, err := c.volumeViews()
	if err != nil {
		return err
	}
	out := []volumeView{}
	for _, name := range c.args {
		i := slices.IndexFunc(list, func(v volumeView) bool { return v.Name == name })
		if i < 0 {
			return c.suggest(fmt.Errorf("%s: %w", name, volume.ErrNone), name, "volumes")
		}
		out = append(out, list[i])
	}
	return c.json(out)
}

// changeVolumes calls f, which removes some of the volumes, while no container can be added.
func (c *call) changeVolumes(f func(*volume.Store, []volumeView) error) error {
	unlockStore, err := c.store.Lock()
	if err != nil {
		return err
	}
	defer unlockStore()
	vs, unlock, err := lockVolumes(c.store)
	if err != nil {
		return err
	}
	defer unlock()
	list, err := c.volumeViews()
	if err != nil {
		return err
	}
	return f(vs, list)
}

func (c *call) volumeRemove(force bool) error {
	return c.changeVolumes(func(vs *volume.Store, list []volumeView) error {
		var errs []error
		for _, name := range c.args {
			i := slices.IndexFunc(list, func(v volumeView) bool { return v.Name == name })
			var err error
			switch {
			case i < 0 && force:
				continue
			case i < 0:
				err = c.suggest(fmt.Errorf("%s: %w", name, volume.ErrNone), name, "volumes")
			case len(list[i].Users) > 0:
				err = fmt.Errorf("%s is used by %s: remove that first", name, strings.Join(list[i].Users, ", "))
			default:
				err = vs.Remove(name)
			}
			if err != nil {
				errs = append(errs, err)
				continue
			}
			fmt.Fprintln(c.Out, name)
		}
		return errors.Join(errs...)
	})
}

func (c *call) volumePrune(all bool, filter func(volumeView) bool) error {
	return c.changeVolumes(func(vs *volume.Store, list []volumeView) error {
		for _, v := range list {
			if len(v.Users) > 0 || !all && !v.Anonymous || !filter(v) {
				continue
			}
			if err := vs.Remove(v.Name); err != nil {
				return err
			}
			fmt.Fprintln(c.Out, v.Name)
		}
		return nil
	})
}

// removeAnonymous removes the volumes without a name that were a removed container's. The caller holds the store's lock.
func removeAnonymous(s *store.Store, k *store.Container) error {
	if !slices.ContainsFunc(k.Volumes, func(v store.Volume) bool { return v.Name != "" }) {
		return nil
	}
	vs, unlock, err := lockVolumes(s)
	if err != nil {
		return err
	}
	defer unlock()
	others, err := s.Containers()
	if err != nil {
		return err
	}
	for _, v := range k.Volumes {
		if v.Name == "" {
			continue
		}
		used := slices.ContainsFunc(others, func(o *store.Container) bool {
			return slices.ContainsFunc(o.Volumes, func(m store.Volume) bool { return m.Name == v.Name })
		})
		if info, err := vs.Get(v.Name); err == nil && info.Anonymous && !used {
			if err := vs.Remove(v.Name); err != nil {
				return err
			}
		}
	}
	return nil
}

func anonymousName() string {
	b := make([]byte, 32)
	rand.Read(b)
	return hex.EncodeToString(b)
}

// addVolume reads docker's [SOURCE:]TARGET[:OPTIONS].
func addVolume(k *store.Container, text string) error {
	f := strings.Split(text, ":")
	var v store.Volume
	switch {
	case len(f) > 3 || text == "":
		return errors.New("want [SOURCE:]TARGET[:OPTIONS]")
	case len(f) == 1:
		v.Name, v.Target = anonymousName(), f[0]
	case path.IsAbs(f[0]):
		v.Source, v.Target = path.Clean(f[0]), f[1]
	case strings.HasPrefix(f[0], "."):
		abs, err := filepath.Abs(f[0])
		if err != nil {
			return err
		}
		v.Source, v.Target = abs, f[1]
	default:
		v.Name, v.Target = f[0], f[1]
		if err := volume.CheckName(v.Name); err != nil {
			return fmt.Errorf("%w; a directory is written /PATH or ./PATH", err)
		}
	}
	if !path.IsAbs(v.Target) || path.Clean(v.Target) == "/" {
		return fmt.Errorf("%q: want an absolute path in the container, and not /", v.Target)
	}
	v.Target = path.Clean(v.Target)
	if len(f) == 3 {
		for o := range strings.SplitSeq(f[2], ",") {
			if err := volumeFlag(&v, o); err != nil {
				return err
			}
		}
	}
	k.Volumes = append(k.Volumes, v)
	return nil
}

// volumeFlag is one option of -v.
func volumeFlag(v *store.Volume, o string) error {
	effects := map[string]func(){
		"rw": func() { v.ReadOnly = false }, "ro": func() { v.ReadOnly = true }, "nocopy": func() { v.NoCopy = true }, "copy": func() { v.NoCopy = false }, "U": func() { v.Chown = true },
		// There are no SELinux labels to give, all mounts are recursive, and nothing is cached in between.
		"z": nil, "Z": nil, "bind": nil, "rbind": nil, "nodev": nil, "exec": nil, "suid": nil, "cached": nil, "delegated": nil, "consistent": nil, "default": nil, "": nil,
	}
	switch o {
	case "private", "rprivate", "shared", "rshared", "slave", "rslave", "noexec", "nosuid":
		v.Options = append(v.Options, o)
		return nil
	}
	effect, ok := effects[o]
	if !ok {
		known := append(slices.Sorted(maps.Keys(effects)), "rshared", "rslave", "rprivate", "noexec", "nosuid")
		if near := nearest.Word(o, known); near != "" {
			return fmt.Errorf("option %q: did you mean %s?", o, near)
		}
		return fmt.Errorf("option %q: want ro, nocopy, U, noexec, nosuid, rshared, rslave or rprivate", o)
	}
	if effect != nil {
		effect()
	}
	return nil
}
