package apply

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
)

// StateDir is where provisioning remembers what it did, relative to the tree.
const StateDir = "var/lib/ignition"

const (
	journalFile  = StateDir + "/journal"
	originalsDir = StateDir + "/original"
)

// A record says what was at a path before provisioning, and what provisioning puts there. It is on disk before
// the change is. Identities are those of disk.identity; the content of a file that was there before is kept in
// StateDir/original/<sha256>.
type record struct {
	Path   string `json:"path"`
	Before string `json:"before"`
	After  string `json:"after"`
}

// journal is the records of all runs, one JSON object a line, synced line by line. A last line without its
// end is a write that a power cut has torn: what it announces has not happened.
type journal struct {
	d      *disk
	byPath map[string][]record
}

func openJournal(d *disk) (*journal, error) {
	j := &journal{d: d, byPath: map[string][]record{}}
	b, err := d.root.ReadFile(journalFile)
	if errors.Is(err, fs.ErrNotExist) {
		return j, nil
	}
	if err != nil {
		return nil, err
	}
	whole := b[:bytes.LastIndexByte(b, '\n')+1]
	for n, line := range strings.Split(strings.TrimSuffix(string(whole), "\n"), "\n") {
		var r record
		if line == "" {
			continue
		}
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			return nil, fmt.Errorf("/%s line %d: %w; remove the file to forget what was provisioned", journalFile, n+1, err)
		}
		j.byPath[r.Path] = append(j.byPath[r.Path], r)
	}
	if len(whole) < len(b) {
		return j, d.writeBytes(journalFile, attributes{mode: 0o600}, whole)
	}
	return j, j.cleanUp()
}

// cleanUp removes what an interrupted run has left beside the paths it worked on.
func (j *journal) cleanUp() error {
	for p := range j.byPath {
		if err := j.d.remove(temporary(p)); err != nil {
			return err
		}
	}
	return nil
}

// before returns what was at name before provisioning, given what is there now: the same, unless it is our own work.
func (j *journal) before(name, now string) string {
	for _, r := range j.byPath[name] {
		if r.After == now {
			return r.Before
		}
	}
	return now
}

// announce makes it durable that name, which is now and was before, becomes after. A file that has not been touched yet is
// kept; links and directories that give way are not.
func (j *journal) announce(name, now, before, after string) error {
	switch {
	case !strings.HasPrefix(before, "sha256:"):
		before = absent
	case now == before && after != before:
		if err := j.keep(name, before); err != nil {
			return fmt.Errorf("keep the original of /%s: %w", name, err)
		}
	}
	if err := j.add(record{Path: name, Before: before, After: after}); err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	return nil
}

// add makes a record durable.
func (j *journal) add(r record) error {
	for _, known := range j.byPath[r.Path] {
		if known == r {
			return nil
		}
	}
	if err := j.makeDirs(StateDir); err != nil {
		return err
	}
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := j.d.step("append", journalFile); err != nil {
		return err
	}
	f, err := j.d.root.OpenFile(journalFile, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if len(j.byPath) == 0 { // it may be a new file: then its name must last too
		if err := errors.Join(j.d.dress(journalFile, attributes{mode: 0o600}), j.syncDir(StateDir)); err != nil {
			return err
		}
	}
	if _, err := f.Write(append(line, '\n')); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	j.byPath[r.Path] = append(j.byPath[r.Path], r)
	return nil
}

// keep saves the content of the file name, whose identity is id.
func (j *journal) keep(name, id string) error {
	sum, ok := strings.CutPrefix(id, "sha256:")
	if !ok {
		return nil
	}
	saved := originalsDir + "/" + sum
	if _, err := j.d.root.Lstat(saved); err == nil {
		return nil
	}
	if err := j.makeDirs(originalsDir); err != nil {
		return err
	}
	err := j.d.writeFile(saved, attributes{mode: 0o600}, func(s *sink) error {
		from, err := j.d.root.Open(name)
		if err != nil {
			return err
		}
		defer from.Close()
		_, err = io.Copy(s, from)
		return err
	}, nil)
	if err != nil {
		return err
	}
	return j.syncDir(originalsDir)
}

// open returns the content with identity id, which is that of name now or was kept.
func (j *journal) open(name, now, id string) (*os.File, error) {
	if now == id {
		return j.d.root.Open(name)
	}
	return j.d.root.Open(originalsDir + "/" + strings.TrimPrefix(id, "sha256:"))
}

func (j *journal) makeDirs(name string) error {
	if _, err := j.d.root.Lstat(name); err == nil {
		return nil
	}
	mode := 0o755
	if name == originalsDir {
		mode = 0o700
	}
	if parent := path.Dir(name); parent != "." {
		if err := j.makeDirs(parent); err != nil {
			return err
		}
	}
	return j.d.makeDirectory(name, attributes{mode: mode})
}

func (j *journal) syncDir(name string) error {
	f, err := j.d.root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
