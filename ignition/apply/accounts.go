package apply

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/coreos/ignition/v2/config/util"
	"github.com/coreos/ignition/v2/config/v3_6/types"

	"github.com/proa-os/proa/ignition/plan"
)

// Ids for what the config gives none. Users start where login.defs(5) starts; system users go down from 899, so
// that 900 to 999 stay free for users of later releases' root images.
const (
	firstID, lastID             = 1000, 59999
	firstSystemID, lastSystemID = 100, 899
	usersGroup                  = 100 // of a user without a group of its own, as useradd(8)
	defaultShell                = "/bin/sh"
	locked                      = "*" // no password matches
)

// accounts is passwd(5), shadow(5), group(5) and gshadow(5) in memory. It decides and edits; run reads and writes.
type accounts struct{ passwd, shadow, groups, gshadow table }

// A table is a colon-separated file. Lines that are not changed stay as they are.
type table struct {
	file    string
	rows    [][]string
	mode    int // for a file that does not exist yet
	exists  bool
	changed bool
	old     attributes
}

func (t *table) find(name string) []string {
	for _, row := range t.rows {
		if row[0] == name && len(row) > 1 {
			return row
		}
	}
	return nil
}

func (t *table) add(row ...string) []string {
	t.rows = append(t.rows, row)
	t.changed = true
	return row
}

func (t *table) set(row []string, field int, value string) error {
	if field >= len(row) {
		return damaged("/"+t.file, field+1, row)
	}
	if row[field] != value {
		row[field], t.changed = value, true
	}
	return nil
}

func (t *table) drop(name string) {
	n := len(t.rows)
	t.rows = slices.DeleteFunc(t.rows, func(row []string) bool { return row[0] == name && len(row) > 1 })
	t.changed = t.changed || len(t.rows) != n
}

func (t *table) bytes() []byte {
	var b strings.Builder
	for _, row := range t.rows {
		b.WriteString(strings.Join(row, ":") + "\n")
	}
	return []byte(b.String())
}

func (d *disk) loadTable(t *table) error {
	name, err := d.resolve(t.file, true)
	if err != nil {
		return err
	}
	t.file = name
	b, err := d.root.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	info, err := d.root.Lstat(name)
	if err != nil {
		return err
	}
	t.exists, t.old = true, d.attributesOf(info)
	for line := range strings.Lines(string(b)) {
		t.rows = append(t.rows, strings.Split(strings.TrimSuffix(line, "\n"), ":"))
	}
	return nil
}

func (r *run) accounts() (*accounts, error) {
	a := &accounts{
		passwd:  table{file: "etc/passwd", mode: 0o644},
		shadow:  table{file: "etc/shadow", mode: 0o600},
		groups:  table{file: "etc/group", mode: 0o644},
		gshadow: table{file: "etc/gshadow", mode: 0o600},
	}
	for _, t := range []*table{&a.passwd, &a.shadow, &a.groups, &a.gshadow} {
		if r.brief && (t == &a.shadow || t == &a.gshadow) {
			continue
		}
		if err := r.loadTable(t); err != nil {
			return nil, fmt.Errorf("read /%s: %w", t.file, err)
		}
	}
	return a, nil
}

// editAccounts writes the tables that edit changes, groups first: a user never has a group that does not exist.
func (r *run) editAccounts(edit func(*accounts) error) error {
	a, err := r.accounts()
	if err != nil {
		return err
	}
	if err := edit(a); err != nil {
		return err
	}
	for _, t := range []*table{&a.groups, &a.gshadow, &a.shadow, &a.passwd} {
		if !t.changed {
			continue
		}
		attr := attributes{mode: t.mode}
		if t.exists {
			attr = t.old
		}
		if err := r.parents(t.file); err != nil {
			return err
		}
		if err := r.writeBytes(t.file, attr, t.bytes()); err != nil {
			return fmt.Errorf("write /%s: %w", t.file, err)
		}
		r.homes = nil
	}
	return nil
}

// entry is a user as others need it.
type entry struct {
	uid, gid int
	home     string
}

func (a *accounts) lookupUser(name string) (entry, bool) {
	row := a.passwd.find(name)
	if len(row) < 6 {
		return entry{}, false
	}
	uid, err1 := strconv.Atoi(row[2])
	gid, err2 := strconv.Atoi(row[3])
	return entry{uid, gid, row[5]}, err1 == nil && err2 == nil
}

func (a *accounts) lookupGroup(name string) (int, bool) {
	row := a.groups.find(name)
	if len(row) < 3 {
		return 0, false
	}
	gid, err := strconv.Atoi(row[2])
	return gid, err == nil
}

// ids returns which of field 2 are taken.
func (t *table) ids() map[int]bool {
	m := map[int]bool{}
	for _, row := range t.rows {
		if len(row) > 2 {
			if id, err := strconv.Atoi(row[2]); err == nil {
				m[id] = true
			}
		}
	}
	return m
}

func noID(what string, first, last int) error {
	return NewProblem("no free "+what, fmt.Sprintf("one of %d to %d", first, last), "none", "give the user or group a free id in the config")
}

func otherID(kind, id, has string, want int) error {
	return NewProblem("cannot change the id of a "+kind, id+" "+has+", which it has", strconv.Itoa(want), "leave "+id+" out, or describe a new "+kind)
}

func idInUse(kind, id string, want int) error {
	return NewProblem(kind+" id in use", "a free "+id, strconv.Itoa(want), "choose another "+id+", or leave it out to get a free one")
}

func damaged(file string, fields int, row []string) error {
	return NewProblem("damaged line of "+file, fmt.Sprintf("%d fields or more", fields), fmt.Sprintf("%s with %d", row[0], len(row)), "correct the line of "+row[0]+" in "+file)
}

// free picks an id as useradd(8) does: behind the highest one, or, for system accounts, below the lowest.
func free(taken map[int]bool, system bool) (int, error) {
	if system {
		for id := lastSystemID; id >= firstSystemID; id-- {
			if !taken[id] {
				return id, nil
			}
		}
		return 0, noID("system id", firstSystemID, lastSystemID)
	}
	next := firstID
	for id := range taken {
		if firstID <= id && id < lastID {
			next = max(next, id+1)
		}
	}
	if taken[next] {
		return 0, noID("id above the highest one", firstID, lastID)
	}
	return next, nil
}

func (a *accounts) group(op plan.Group) error {
	if util.IsFalse(op.ShouldExist) {
		return a.removeGroup(op.Name)
	}
	row := a.groups.find(op.Name)
	if row == nil {
		gid, err := a.newGID(op.Gid, op.System)
		if err != nil {
			return err
		}
		row = a.addGroup(op.Name, gid)
	} else if op.Gid != nil && row[2] != strconv.Itoa(*op.Gid) {
		return otherID("group", "gid", row[2], *op.Gid)
	}
	a.addGshadow(op.Name)
	if util.NilOrEmpty(op.PasswordHash) {
		return nil
	}
	if g := a.gshadow.find(op.Name); g != nil {
		return a.gshadow.set(g, 1, *op.PasswordHash)
	}
	return a.groups.set(row, 1, *op.PasswordHash)
}

func (a *accounts) newGID(want *int, system *bool) (int, error) {
	taken := a.groups.ids()
	if want == nil {
		return free(taken, util.IsTrue(system))
	}
	if taken[*want] {
		return 0, idInUse("group", "gid", *want)
	}
	return *want, nil
}

func (a *accounts) addGroup(name string, gid int) []string {
	a.addGshadow(name)
	return a.groups.add(name, "x", strconv.Itoa(gid), "")
}

// addGshadow completes what a power cut between the two files has left.
func (a *accounts) addGshadow(name string) {
	if a.gshadow.exists && a.gshadow.find(name) == nil {
		a.gshadow.add(name, "!", "", "")
	}
}

func (a *accounts) removeGroup(name string) error {
	gid, ok := a.lookupGroup(name)
	for _, row := range a.passwd.rows {
		if ok && len(row) > 3 && row[3] == strconv.Itoa(gid) {
			return NewProblem("cannot remove a primary group", "a group that is nobody's primary group", "that of user "+row[0], "remove that user too, or give it another primaryGroup")
		}
	}
	a.groups.drop(name)
	a.gshadow.drop(name)
	return nil
}

// user makes the rows of a user be as op says; what op does not mention stays (usermod(8)) or is new (useradd(8)).
func (a *accounts) user(op plan.User) error {
	row := a.passwd.find(op.Name)
	fresh := row == nil
	if fresh {
		var err error
		if row, err = a.newUser(op); err != nil {
			return err
		}
	}
	if len(row) < 7 {
		return damaged("/etc/passwd", 7, row)
	}
	if op.UID != nil && row[2] != strconv.Itoa(*op.UID) {
		return otherID("user", "uid", row[2], *op.UID)
	}
	if util.NotEmpty(op.HomeDir) && path.Clean(row[5]) != path.Clean(*op.HomeDir) {
		return NewProblem("cannot move a home directory", row[5]+", which it has", *op.HomeDir, "remove homeDir, or describe a new user")
	}
	for field, value := range map[int]*string{4: op.Gecos, 6: op.Shell} {
		if value != nil {
			if err := a.passwd.set(row, field, *value); err != nil {
				return err
			}
		}
	}
	if util.NotEmpty(op.PrimaryGroup) {
		gid, err := a.groupID(*op.PrimaryGroup)
		if err != nil {
			return err
		}
		if err := a.passwd.set(row, 3, strconv.Itoa(gid)); err != nil {
			return err
		}
	}
	if len(op.Groups) > 0 {
		if err := a.memberships(op); err != nil {
			return err
		}
	}
	return a.password(op)
}

func (a *accounts) newUser(op plan.User) ([]string, error) {
	taken := a.passwd.ids()
	var uid int
	var err error
	switch {
	case op.UID == nil:
		uid, err = free(taken, util.IsTrue(op.System))
	case taken[*op.UID]:
		err = idInUse("user", "uid", *op.UID)
	default:
		uid = *op.UID
	}
	if err != nil {
		return nil, err
	}
	gid := usersGroup
	switch own, ok := a.lookupGroup(op.Name); {
	case util.NotEmpty(op.PrimaryGroup) || util.IsTrue(op.NoUserGroup):
	case ok:
		gid = own
		a.addGshadow(op.Name)
	default:
		if gid = uid; a.groups.ids()[gid] {
			if gid, err = free(a.groups.ids(), util.IsTrue(op.System)); err != nil {
				return nil, err
			}
		}
		a.addGroup(op.Name, gid)
	}
	home := "/home/" + op.Name
	if util.NotEmpty(op.HomeDir) {
		home = *op.HomeDir
	}
	return a.passwd.add(op.Name, "x", strconv.Itoa(uid), strconv.Itoa(gid), "", home, defaultShell), nil
}

// groupID takes a name or a number, as useradd -g.
func (a *accounts) groupID(group string) (int, error) {
	if gid, ok := a.lookupGroup(group); ok {
		return gid, nil
	}
	if gid, err := strconv.Atoi(group); err == nil && a.groups.ids()[gid] {
		return gid, nil
	}
	return 0, unknown("group", "group", group)
}

// memberships makes op's groups the user's supplementary groups, and no others (usermod -G).
func (a *accounts) memberships(op plan.User) error {
	for _, g := range op.Groups {
		if a.groups.find(string(g)) == nil {
			return unknown("group", "group", string(g))
		}
	}
	for _, t := range []*table{&a.groups, &a.gshadow} {
		for _, row := range t.rows {
			if len(row) < 4 {
				continue
			}
			wanted := slices.ContainsFunc(op.Groups, func(g types.Group) bool { return string(g) == row[0] })
			if err := t.set(row, 3, member(row[3], op.Name, wanted)); err != nil {
				return err
			}
		}
	}
	return nil
}

// member adds a name to, or removes it from, a comma-separated list.
func member(list, name string, wanted bool) string {
	var names []string
	if list != "" {
		names = strings.Split(list, ",")
	}
	switch is := slices.Contains(names, name); {
	case wanted && !is:
		names = append(names, name)
	case !wanted && is:
		names = slices.DeleteFunc(names, func(n string) bool { return n == name })
	}
	return strings.Join(names, ",")
}

// password sets the hash. The day of the last change stays empty, which turns ageing off: the clock of a first
// boot would lock users out.
func (a *accounts) password(op plan.User) error {
	hash := locked
	if util.NotEmpty(op.PasswordHash) {
		hash = *op.PasswordHash
	}
	row := a.shadow.find(op.Name)
	if row == nil {
		a.shadow.add(op.Name, hash, "", "0", "99999", "7", "", "", "")
		return nil
	}
	if op.PasswordHash == nil {
		return nil
	}
	return a.shadow.set(row, 1, hash)
}
