package ctl

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/proa-os/proa/runtime/flagset"
	"github.com/proa-os/proa/runtime/store"
)

// securityFlags are about what the workload may do.
func (r *runFlags) securityFlags(s *flagset.Set) {
	c := &r.c
	s.List(&c.CapAdd, "cap-add", "CAP", "add a capability (ALL: all)")
	s.List(&c.CapDrop, "cap-drop", "CAP", "drop a capability (ALL: all)")
	s.Bool(&c.Privileged, "privileged", "all capabilities and devices, no filter: the workload can do what root can")
	s.Func("security-opt", "OPTION", "no-new-privileges, seccomp=unconfined|FILE, apparmor=PROFILE, mask=PATHS, unmask=PATHS|ALL", r.setSecurity)
	s.Func("userns", "MODE", "host (default); auto[:size=N]: numbers of its own on the machine; keep: a user namespace with the machine's numbers", func(v string) error {
		mode, rest, _ := strings.Cut(v, ":")
		if mode != "host" && mode != "auto" && mode != "keep" || rest != "" && mode != "auto" {
			return errors.New("want host, auto or keep")
		}
		r.userns = v
		_, err := sizeOfIDs(v)
		return err
	})
}

func (r *runFlags) setSecurity(v string) error {
	if r.c.Security == nil {
		r.c.Security = new(store.Security)
	}
	o := r.c.Security
	key, value, _ := strings.Cut(v, "=")
	if i := strings.IndexAny(v, ":="); i > 0 { // docker once wrote a colon
		key, value = v[:i], v[i+1:]
	}
	switch key {
	case "no-new-privileges":
		on := true
		if value != "" {
			var err error
			if on, err = strconv.ParseBool(value); err != nil {
				return errors.New("want true or false")
			}
		}
		r.c.NoNewPrivileges = on
	case "seccomp":
		return setSeccomp(o, value)
	case "apparmor":
		o.AppArmor = value
	case "label":
		if value != "disable" {
			return errors.New("want label=disable: there are no labels here")
		}
	case "mask", "unmask", "systempaths":
		if key == "systempaths" && value != "unconfined" {
			return errors.New("want systempaths=unconfined")
		}
		paths := strings.Split(value, ":")
		for _, p := range paths {
			if !path.IsAbs(p) && !(key == "unmask" && p == "ALL") && key != "systempaths" {
				return fmt.Errorf("path %q: want an absolute one", p)
			}
		}
		switch key {
		case "mask":
			o.Mask = append(o.Mask, paths...)
		case "unmask":
			o.Unmask = append(o.Unmask, paths...)
		default:
			o.Unmask = []string{"ALL"}
		}
	default:
		return errors.New("want no-new-privileges, seccomp=, apparmor=, mask= or unmask=")
	}
	return nil
}

// setSeccomp keeps a profile's text: the file may be gone at the next start.
func setSeccomp(o *store.Security, value string) error {
	if value == "unconfined" {
		o.Seccomp = value
		return nil
	}
	b, err := os.ReadFile(value)
	if err != nil {
		return err
	}
	if !json.Valid(b) || len(b) > 1<<20 {
		return fmt.Errorf("%s is no profile: want JSON of at most 1 MB", value)
	}
	o.Seccomp = string(b)
	return nil
}

// Numbers for containers, those systemd leaves to them and dynamic users do not reach: a range of 65536 each.
const (
	firstID  = 0x2000_0000
	lastID   = 0x6fff_ffff
	idsInOne = 0x1_0000
)

// sizeOfIDs is how many numbers --userns asks for.
func sizeOfIDs(mode string) (uint32, error) {
	text, ok := strings.CutPrefix(mode, "auto:size=")
	if !ok {
		if mode == "auto" || !strings.HasPrefix(mode, "auto") {
			return idsInOne, nil
		}
		return 0, errors.New("want auto:size=N")
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || n < 1 || n > idsInOne {
		return 0, fmt.Errorf("size %q: want 1 to %d", text, idsInOne)
	}
	return uint32(n), nil
}

// allotIDs gives a new container its numbers. The caller holds the store's lock until the container is in it.
func allotIDs(all []*store.Container, mode string) (*store.IDs, error) {
	switch {
	case mode == "host":
		return nil, nil
	case mode == "keep":
		return &store.IDs{First: 0, Count: 1<<32 - 1}, nil
	}
	size, err := sizeOfIDs(mode)
	if err != nil {
		return nil, err
	}
	taken := make(map[uint32]bool)
	for _, k := range all {
		if k.IDs != nil {
			taken[k.IDs.First] = true
		}
	}
	for first := uint32(firstID); first <= lastID-idsInOne+1; first += idsInOne {
		if !taken[first] {
			return &store.IDs{First: first, Count: size}, nil
		}
	}
	return nil, errors.New("--userns auto: no numbers are left")
}
