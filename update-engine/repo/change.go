package repo

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/proa-os/proa/internal/digest"
)

// A change collects what a command will write and then writes it, so that a reader, a power cut or a full disk at any moment finds
// the old repository or the new one:
//
//	every file under a temporary name, synced    a full disk shows here, when nothing is visible yet
//	each renamed to its place, in order          new names only, but for timestamp.json and the request for signatures
//	  timestamp.json, N.root.json                what makes the rest visible, last
//	what is done with removed
//
// An error before the first file that makes something visible takes back all that was written; after it, the same command goes on
// where it stopped. What a power cut leaves is removed by the next command (see clean).
type change struct {
	desk    *Desk
	writes  []write
	removes []string
}

// A write is a file with its bytes, or one that exists under a temporary name.
type write struct {
	name, temp string
	b          []byte
	size       int64
	replaces   bool // a file was there before
}

// Written is a file that a command has written, or would write.
type Written struct {
	Name string `json:"name"`
	Size int64  `json:"size"`
}

func (d *Desk) change() *change { return &change{desk: d} }

// put adds a file; one with the same bytes in the same place need not be written.
func (c *change) put(name string, b []byte) {
	if old, err := os.ReadFile(c.desk.path(name)); err == nil && bytes.Equal(old, b) {
		return
	}
	c.writes = append(c.writes, write{name: name, temp: tempName(name), b: b, size: int64(len(b))})
}

// adopt adds a file that was written under a temporary name beside its place, and synced.
func (c *change) adopt(temp, name string, size int64) {
	c.writes = append(c.writes, write{name: name, temp: temp, size: size})
}

func (c *change) remove(name string) { c.removes = append(c.removes, name) }

func (c *change) written() []Written {
	var list []Written
	for _, w := range c.writes {
		list = append(list, Written{w.name, w.size})
	}
	return list
}

func tempName(name string) string {
	dir, base := path.Split(name)
	return dir + "." + base + ".new"
}

// visible reports whether readers look for a file without having been told of it by another.
func visible(name string) bool {
	return name == timestampFile || strings.HasPrefix(name, "metadata/") && strings.HasSuffix(name, ".root.json")
}

// commit writes the change, unless this is a dry run.
func (c *change) commit() error {
	if c.desk.DryRun {
		return nil
	}
	on := c.desk.disk()
	for _, w := range c.writes {
		err := c.desk.makeDirs(path.Dir(w.name))
		if err == nil && w.b != nil {
			err = on.Write(w.temp, w.b)
		}
		if err != nil {
			return c.takeBack(0, fmt.Errorf("write %s: %w: nothing was changed", c.desk.path(w.name), err))
		}
	}
	shown := false
	for i, w := range c.writes {
		_, err := os.Lstat(c.desk.path(w.name))
		c.writes[i].replaces = err == nil
		err = on.Rename(w.temp, w.name)
		switch {
		case err == nil:
			shown = shown || visible(w.name)
		case shown || visible(w.name):
			return fmt.Errorf("write %s: %w: what was written before it is whole: give the same command again", c.desk.path(w.name), err)
		default:
			return c.takeBack(i+1, fmt.Errorf("write %s: %w: nothing was changed", c.desk.path(w.name), err))
		}
	}
	for _, name := range c.removes {
		if err := on.Remove(name); err != nil {
			return fmt.Errorf("remove %s, which is done with: %w", c.desk.path(name), err)
		}
	}
	return nil
}

// takeBack removes the temporary files and the first n files at their places, if they were not there before.
func (c *change) takeBack(n int, cause error) error {
	on := c.desk.disk()
	for i, w := range c.writes {
		if i < n && !w.replaces {
			cause = errors.Join(cause, on.Remove(w.name))
		}
		cause = errors.Join(cause, on.Remove(w.temp))
	}
	return cause
}

// clean removes what a power cut has left: temporary files that nobody works on, and metadata that no timestamp has ever made visible.
func (d *Desk) clean(pub *published) error {
	if d.DryRun || d.Careless {
		return nil
	}
	var leftovers []string
	for _, top := range []string{"metadata", "targets", "staged"} {
		err := fs.WalkDir(os.DirFS(d.Dir), top, func(name string, e fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err == nil && !e.IsDir() && (abandoned(e.Name()) && !held(d.path(name)) || pub.unseen(name)) {
				leftovers = append(leftovers, name)
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("look for what a power cut left: %w", err)
		}
	}
	for _, name := range leftovers {
		if err := d.disk().Remove(name); err != nil {
			return fmt.Errorf("remove %s, which a power cut left: %w", d.path(name), err)
		}
	}
	return nil
}

func abandoned(base string) bool {
	return strings.HasPrefix(base, ".") && (strings.HasSuffix(base, ".new") || strings.HasPrefix(base, payloadTemp))
}

// unseen reports whether a file is metadata of a version above the published one.
func (p *published) unseen(name string) bool {
	dir, base := path.Split(name)
	number, role, ok := strings.Cut(strings.TrimSuffix(base, ".json"), ".")
	n, err := strconv.ParseInt(number, 10, 64)
	if dir != "metadata/" || !ok || err != nil {
		return false
	}
	newest, ok := map[string]int64{"targets": version(p.targets), rolePlan: version(p.plan), "snapshot": version(p.snapshot)}[role]
	return ok && n > newest
}

// addTarget notes a small target in role and adds its file to the change.
func (c *change) addTarget(role *targetsMeta, name string, b []byte) {
	role.Signed.Targets[name] = targetInfo(name, int64(len(b)), digest.Of(b))
	c.put(targetFile(name, digest.Of(b)), b)
}

// targetFile is the place of a target's bytes, which the hash in its name makes unchangeable.
func targetFile(name string, sum digest.SHA256) string {
	dir, base := path.Split(name)
	return "targets/" + dir + sum.String() + "." + base
}
