package apply

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/coreos/ignition/v2/config/util"

	"github.com/proa-os/proa/ignition/plan"
)

// A Tree is looked at, to say what a plan would find; nothing is changed. What operations before would have made is not there.
type Tree struct{ r *run }

// NewTree is the tree below root.
func NewTree(root *os.Root, owners Owners) *Tree {
	r := observer(root, owners)
	r.brief = true
	return &Tree{r}
}

// Effect says what op would find. The error is a *Problem if op would be refused as the tree is now. What the caller may not read is no
// error: a plan needs no root.
func (t *Tree) Effect(op plan.Op) ([]string, error) {
	things := thingsOf(op)
	if len(things) == 0 || things[0].onMachine() {
		return nil, nil
	}
	is, err := t.r.look(things[0])
	if errors.Is(err, fs.ErrPermission) {
		return []string{"not readable: run as root to see"}, nil
	}
	if err != nil {
		return nil, err
	}
	switch op := op.(type) {
	case plan.User:
		return account(is, util.IsFalse(op.ShouldExist), "uid"), nil
	case plan.Group:
		return account(is, util.IsFalse(op.ShouldExist), "gid"), nil
	case plan.Keys:
		return entryEffect(is, "", "", true, false)
	case plan.Directory:
		return entryEffect(is, op.Path, "a directory", op.Overwrite, is["type"] == "a directory")
	case plan.File:
		keeps := op.Contents == nil && op.Text == nil
		lines, err := entryEffect(is, op.Path, "a file", op.Overwrite, keeps && is["type"] == "a file")
		if err == nil && is["type"] == "a file" && !op.Overwrite && !keeps {
			lines = []string{"there is a file: kept if its contents are the same, refused if not"}
		}
		if err == nil && is["type"] == "a file" && len(op.Append) > 0 {
			lines = append(lines, "appended to")
		}
		return lines, err
	case plan.Link:
		return entryEffect(is, op.Path, "a link to "+op.Target, op.Overwrite, is["type"] == "a symbolic link" && is["target"] == op.Target)
	}
	return nil, nil
}

func account(is map[string]string, remove bool, id string) []string {
	switch {
	case len(is) == 0 && remove:
		return []string{"there is none"}
	case len(is) == 0:
		return []string{"new"}
	case remove:
		return []string{"removed; " + id + " " + is[id]}
	}
	return []string{"there already, with " + id + " " + is[id] + ": made as described"}
}

// entryEffect is for what has a path.
func entryEffect(is map[string]string, path, expected string, overwrite, fits bool) ([]string, error) {
	switch {
	case len(is) == 0:
		return []string{"new"}, nil
	case fits:
		return []string{"there already"}, nil
	case overwrite:
		return []string{"replaces " + describe(is)}, nil
	case expected == "a file" && is["type"] == "a file":
		return nil, nil
	}
	return nil, exists(strings.TrimPrefix(path, "/"), expected, describe(is))
}

func describe(is map[string]string) string {
	s := is["type"]
	if t := is["target"]; t != "" {
		s += " to " + t
	}
	if m := is["mode"]; m != "" {
		s += fmt.Sprintf(" %s %s", m, is["owner"])
	}
	return strings.TrimSpace(s)
}
