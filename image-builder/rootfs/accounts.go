package rootfs

import (
	"fmt"
	"strings"

	"github.com/proa-os/proa/image-builder/sysusers"
	"github.com/proa-os/proa/image-builder/tree"
)

const sysusersFiles = "usr/lib/sysusers.d/*.conf"

// accounts derives etc/passwd, etc/group and their shadows from the sysusers.d files that come from the overlays. Those of packages
// leave the numbers open, so they are taken out; but an account they ask for must be pinned.
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

func fromPackage(e tree.Entry, in Input) bool {
	for _, p := range in.Lock.Packages {
		if p.Name == e.Package {
			return true
		}
	}
	return false
}
