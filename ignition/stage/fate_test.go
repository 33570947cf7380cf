package stage

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/proa-os/proa/ignition/apply"
)

// A tree is what a disk holds: path -> what is there.
type tree map[string]node

type node struct {
	mode fs.FileMode
	text string // contents, or where a link leads
}

func readTree(t *testing.T, dir string) tree {
	t.Helper()
	all := tree{}
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		var text []byte
		switch {
		case info.Mode().IsRegular():
			text, err = os.ReadFile(name)
		case info.Mode()&fs.ModeSymlink != 0:
			var to string
			to, err = os.Readlink(name)
			text = []byte(to)
		}
		rel, _ := filepath.Rel(dir, name)
		all[rel] = node{info.Mode(), string(text)}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func (all tree) write(t *testing.T, dir string) {
	t.Helper()
	var err error
	for _, name := range slices.Sorted(maps.Keys(all)) { // directories come before what is in them
		n, at := all[name], filepath.Join(dir, name)
		if !all.reaches(name) { // its directory was lost, and it with that
			continue
		}
		switch {
		case n.mode.IsDir():
			err = errors.Join(err, os.MkdirAll(at, 0o755), os.Chmod(at, n.mode))
		case n.mode&fs.ModeSymlink != 0:
			err = errors.Join(err, os.Symlink(n.text, at))
		default:
			err = errors.Join(err, os.WriteFile(at, []byte(n.text), 0o600), os.Chmod(at, n.mode))
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (all tree) reaches(name string) bool {
	for dir := filepath.Dir(name); dir != "."; dir = filepath.Dir(dir) {
		if !all[dir].mode.IsDir() {
			return false
		}
	}
	return true
}

// changes are the names at which two trees differ.
func changes(before, after tree) (names []string) {
	for name := range after {
		if was, ok := before[name]; !ok || was != after[name] {
			names = append(names, name)
		}
	}
	for name := range before {
		if _, ok := after[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// with is a tree in which names are as in another one.
func (all tree) with(other tree, names ...string) tree {
	out := maps.Clone(all)
	for _, name := range names {
		delete(out, name)
		if n, ok := other[name]; ok {
			out[name] = n
		}
	}
	return out
}

// disks is what outlives a loss of power: the machine's root, the file system that becomes /var, and what its hypervisor keeps.
type disks struct {
	root, home tree
	info       map[string]string
}

// A fate is what became of everything that was under way when the power went.
type fate struct {
	name string
	disks
}

// fates lists what can be there after a loss of power between one step and the next: what was not synced is lost, one by one and as a whole, and
// of what the step does there is nothing, each part alone, all but one part, or a file that is torn under the name that it has until it is whole.
func fates(step string, synced, before, after disks) (all []fate) {
	add := func(name string, root, home tree, info map[string]string) {
		all = append(all, fate{name, disks{root, home, info}})
	}
	add("nothing of it", before.root, before.home, before.info)
	if !maps.Equal(before.info, after.info) {
		add("the hypervisor has done it", before.root, before.home, after.info)
	}
	pending := slices.DeleteFunc(changes(synced.root, before.root), func(name string) bool {
		return strings.HasPrefix(name, apply.StateDir) // of which each line is synced
	})
	for _, name := range pending {
		add("lost "+name, before.root.with(synced.root, name), before.home, before.info)
	}
	add("lost all that was not synced", before.root.with(synced.root, pending...), before.home, before.info)
	made := changes(before.root, after.root)
	if strings.HasPrefix(step, "rename ") { // which is done or not
		made = nil
	}
	for _, name := range made {
		add("only "+name, before.root.with(after.root, name), before.home, before.info)
		add("all but "+name, after.root.with(before.root, name), before.home, before.info)
		if n, made := after.root[name]; made && n.mode.IsRegular() {
			for _, part := range []int{0, len(n.text) / 2} {
				add(fmt.Sprintf("%s torn after %d bytes", name, part), before.root.with(tree{torn(name): tornNode(name, before.root[name], n, part)}, torn(name)), before.home, before.info)
			}
		}
	}
	moved := changes(before.home, after.home)
	for _, name := range moved {
		add("in the new state only "+name, before.root, before.home.with(after.home, name), before.info)
		add("in the new state all but "+name, before.root, after.home.with(before.home, name), before.info)
		if n, made := after.home[name]; made && n.mode.IsRegular() {
			half := node{n.mode, n.text[:len(n.text)/2]}
			add("in the new state half of "+name, before.root, after.home.with(tree{name: half}, name), before.info)
		}
	}
	return all
}

// torn is the name that has what is not whole: the journal's own, as it grows; those of files that are only there until they are whole; else
// the one that package durable uses.
func torn(name string) string {
	base := filepath.Base(name)
	switch {
	case base == "journal" || strings.HasPrefix(base, ".ignition-"):
		return name
	case base == "applied.json": // package apply's
		sum := sha256.Sum256([]byte(base))
		return filepath.Join(filepath.Dir(name), ".ignition-"+hex.EncodeToString(sum[:8]))
	}
	return filepath.Join(filepath.Dir(name), "."+base+".new")
}

func tornNode(name string, was, is node, bytes int) node {
	text := is.text[:min(bytes, len(is.text))]
	if filepath.Base(name) == "journal" && strings.HasPrefix(is.text, was.text) {
		text = was.text + is.text[len(was.text):][:min(bytes, len(is.text)-len(was.text))]
	}
	return node{is.mode, text}
}
