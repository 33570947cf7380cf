package lock

import (
	"fmt"
	"io"
	"time"

	"github.com/proa-os/proa/image-builder/archive"
	"github.com/proa-os/proa/image-builder/deb"
)

// Changes is what a new lock changes against the old one. Its JSON is the output of `image-builder lock --json`, one object a
// manifest; lists without elements are empty, never absent.
type Changes struct {
	Manifest string `json:"manifest"`
	LockFile string `json:"lock"`
	// Changed says that a build would use other packages, or fetch them from elsewhere. Newer dates of suites alone do not count.
	Changed bool            `json:"changed"`
	Updated []Change        `json:"updated"`
	Added   []Change        `json:"added"`
	Removed []Change        `json:"removed"`
	Moved   []Change        `json:"moved"` // the same file, but in another suite or at another path
	Suites  []SuiteMovement `json:"suites"`
}

// Change is about one package.
type Change struct {
	Name     string `json:"name"`
	Old      string `json:"old,omitempty"` // version
	New      string `json:"new,omitempty"` // version
	Suite    string `json:"suite"`         // of the new version, or of the removed one
	Security bool   `json:"security"`      // comes from the security archive
	// Replaced says that the version is the same and the content is not, which an archive never does on purpose.
	Replaced bool `json:"replaced,omitempty"`
	// Downgrade says that the new version is older than the old one.
	Downgrade bool `json:"downgrade,omitempty"`
}

// SuiteMovement is the state that a suite is locked at.
type SuiteMovement struct {
	Name string     `json:"name"`
	Old  *time.Time `json:"old"` // null if the old lock does not say
	New  time.Time  `json:"new"`
}

// Diff compares two locks; old may be nil.
func Diff(old, l *Lock) Changes {
	if old == nil {
		old = &Lock{}
	}
	c := Changes{Updated: []Change{}, Added: []Change{}, Removed: []Change{}, Moved: []Change{}, Suites: []SuiteMovement{}}
	for _, p := range l.Packages {
		change := Change{Name: p.Name, New: p.Version, Suite: p.Suite, Security: p.Archive == archive.Security}
		was, ok := old.Find(p.Name)
		change.Old = was.Version
		switch {
		case !ok:
			c.Added = append(c.Added, change)
		case was.SHA256 != p.SHA256:
			change.Replaced = was.Version == p.Version && was.Arch == p.Arch
			change.Downgrade = older(p.Version, was.Version)
			c.Updated = append(c.Updated, change)
		case was != p:
			c.Moved = append(c.Moved, change)
		}
	}
	for _, p := range old.Packages {
		if _, ok := l.Find(p.Name); !ok {
			c.Removed = append(c.Removed, Change{Name: p.Name, Old: p.Version, Suite: p.Suite, Security: p.Archive == archive.Security})
		}
	}
	for _, s := range l.Suites {
		m := SuiteMovement{Name: s.Name, New: s.Date}
		for _, o := range old.Suites {
			if o.Name == s.Name {
				m.Old = &o.Date
			}
		}
		c.Suites = append(c.Suites, m)
	}
	c.Changed = len(c.Updated)+len(c.Added)+len(c.Removed)+len(c.Moved) > 0
	return c
}

// older compares versions that Parse has accepted, or that come from an index.
func older(a, b string) bool {
	v, errA := deb.ParseVersion(a)
	w, errB := deb.ParseVersion(b)
	return errA == nil && errB == nil && v.Compare(w) < 0
}

// WriteText writes a line per package and one with the counts.
func (c Changes) WriteText(w io.Writer) error {
	var err error
	line := func(format string, args ...any) {
		if err == nil {
			_, err = fmt.Fprintf(w, format+"\n", args...)
		}
	}
	for _, p := range c.Updated {
		note := ""
		switch {
		case p.Replaced:
			note = ", OTHER CONTENT UNDER THE SAME VERSION"
		case p.Downgrade:
			note = ", OLDER THAN BEFORE"
		}
		line("  %s %s -> %s (%s%s)", p.Name, p.Old, p.New, p.Suite, note)
	}
	for _, p := range c.Added {
		line("+ %s %s (%s)", p.Name, p.New, p.Suite)
	}
	for _, p := range c.Removed {
		line("- %s %s", p.Name, p.Old)
	}
	for _, p := range c.Moved {
		line("  %s %s is now in %s", p.Name, p.New, p.Suite)
	}
	line("%s: %d updated, %d added, %d removed, %d moved", c.LockFile, len(c.Updated), len(c.Added), len(c.Removed), len(c.Moved))
	return err
}
