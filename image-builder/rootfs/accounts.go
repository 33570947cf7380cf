package rootfs

import (
	"fmt"
	"strings"

	"github.com/proa-os/proa/image-builder/sysusers"
	"github.com/proa-os/proa/image-builder/tree"
)

// The accounts of people are in a file of the same kind that does not get into the image: what a machine's owner does to them
// systemd-sysusers must not undo.
const (
	sysusersFiles = "usr/lib/sysusers.d/*.conf"
	peopleFile    = "usr/lib/proa/people.conf"
)

// accounts derives etc/passwd, etc/group and their shadows from the sysusers.d files that come from the overlays and from the people's
// file. The sysusers.d files of packages leave the numbers open, so they are taken out; but an account they ask for must be pinned.
func accounts(t *tree.Tree, in Input) error {
	files, err := t.Match(sysusersFiles)
	if err != nil {
		return err
	}
	a := sysusers.New()
	foreign := map[string]string{}
	for _, f := range files {
		b, err := t.ReadFile(f.Path)
		if err != nil {
			return err
		}
		if fromPackage(f, in) {
			foreign[f.Path] = string(b)
			if _, err := t.Remove(f.Path); err != nil {
				return err
			}
		} else if err := a.Add(f.Path, string(b)); err != nil {
			return err
		}
	}
	if err := people(t, a); err != nil {
		return err
	}
	for name, text := range foreign {
		if missing := a.Undeclared(text); len(missing) > 0 {
			return fmt.Errorf("%s of a package declares %s: pin a number in manifests/files/usr/lib/sysusers.d, or remove the file in tree.remove",
				name, strings.Join(missing, ", "))
		}
	}
	tables, err := a.Tables()
	if err != nil {
		return err
	}
	shadow, ok := a.GID("shadow")
	if !ok {
		return fmt.Errorf("no group shadow in %s", sysusersFiles)
	}
	for _, e := range []tree.Entry{
		file("etc/passwd", []byte(tables.Passwd), 0o644),
		file("etc/group", []byte(tables.Group), 0o644),
		file("etc/shadow", []byte(tables.Shadow), 0o640),
		file("etc/gshadow", []byte(tables.Gshadow), 0o640),
	} {
		if e.Mode == 0o640 {
			e.GID = shadow
		}
		if err := t.Add(e); err != nil {
			return fmt.Errorf("%w: it is derived from %s", err, sysusersFiles)
		}
	}
	return nil
}

// people moves the accounts of people from the tree to a. There need not be any.
func people(t *tree.Tree, a *sysusers.Accounts) error {
	if _, ok := t.Lookup(peopleFile); !ok {
		return nil
	}
	b, err := t.ReadFile(peopleFile)
	if err == nil {
		_, err = t.Remove(peopleFile)
	}
	if err != nil {
		return err
	}
	return a.Add(peopleFile, string(b))
}

func fromPackage(e tree.Entry, in Input) bool {
	for _, p := range in.Lock.Packages {
		if p.Name == e.Package {
			return true
		}
	}
	return false
}
