// Package sysusers derives an image's passwd, group, shadow and gshadow from its sysusers.d files, which are the only source of
// its accounts.
//
// It reads the part of sysusers.d(5) in which everything is said: u, u! and g lines with a number, and m lines. A user or group without
// a pinned number, or with one taken from a file, is refused: numbers must never differ between two releases that share a
// state partition. The tables are those systemd-sysusers(8) makes in an empty root (a test holds the two together), with two
// differences: lines are in the order of the numbers, and the day of the last password change is Day.
//
// On a machine the same files are read by systemd-sysusers itself, when /etc/passwd of the state partition hides the image's.
package sysusers

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Day is written as the day of the last password change, counted from 1970. It is fixed, so that it never makes a delta.
const Day = 20000

// Accounts are what some sysusers.d files declare.
type Accounts struct {
	users   map[string]*user
	groups  map[string]*group
	members []member
}

type user struct {
	name, comment, home, shell string
	uid                        int
	group                      string // of an own line; "" for one of the user's own name and number
	locked                     bool
}

type group struct {
	name string
	gid  int
}

type member struct{ user, group string }

// New returns no accounts.
func New() *Accounts { return &Accounts{users: map[string]*user{}, groups: map[string]*group{}} }

// Add reads the file called name, which only errors tell.
func (a *Accounts) Add(name, text string) error {
	s := bufio.NewScanner(strings.NewReader(text))
	for n := 1; s.Scan(); n++ {
		line := strings.TrimSpace(s.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		if err := a.addLine(line); err != nil {
			return fmt.Errorf("%s: line %d: %w", name, n, err)
		}
	}
	return s.Err()
}

func (a *Accounts) addLine(line string) error {
	f, err := fields(line)
	if err != nil {
		return err
	}
	if len(f) < 3 {
		return fmt.Errorf("%q: want a type, a name and a number or group", line)
	}
	for len(f) < 6 {
		f = append(f, "-")
	}
	if len(f) > 6 {
		return fmt.Errorf("%q: %d fields are too many", line, len(f))
	}
	if !validName(f[1]) {
		return fmt.Errorf("%q is no name of a user or group", f[1])
	}
	switch f[0] {
	case "u", "u!":
		return a.addUser(f)
	case "g":
		gid, err := number(f[1], f[2])
		if err != nil {
			return err
		}
		return a.addGroup(f[1], gid)
	case "m":
		if !validName(f[2]) {
			return fmt.Errorf("%q is no name of a group", f[2])
		}
		a.members = append(a.members, member{f[1], f[2]})
		return nil
	}
	return fmt.Errorf("type %q: want u, u!, g or m", f[0])
}

func (a *Accounts) addUser(f []string) error {
	id, own, hasGroup := strings.Cut(f[2], ":")
	uid, err := number(f[1], id)
	if err != nil {
		return err
	}
	u := &user{name: f[1], uid: uid, comment: unset(f[3], ""), home: unset(f[4], "/"), shell: unset(f[5], "/usr/sbin/nologin"), locked: f[0] == "u!"}
	if strings.ContainsAny(u.comment+u.home+u.shell, ":\n") || u.home[0] != '/' || u.shell[0] != '/' {
		return fmt.Errorf("user %s: %q, %q, %q: want a text, a home and a shell without a colon", u.name, u.comment, u.home, u.shell)
	}
	if hasGroup {
		u.group = own
	} else if err := a.addGroup(u.name, uid); err != nil {
		return err
	}
	if _, twice := a.users[u.name]; twice {
		return fmt.Errorf("user %s is declared twice", u.name)
	}
	for _, o := range a.users {
		if o.uid == u.uid {
			return fmt.Errorf("user %s has the number of %s, %d", u.name, o.name, u.uid)
		}
	}
	a.users[u.name] = u
	return nil
}

func (a *Accounts) addGroup(name string, gid int) error {
	if _, twice := a.groups[name]; twice {
		return fmt.Errorf("group %s is declared twice", name)
	}
	for _, o := range a.groups {
		if o.gid == gid {
			return fmt.Errorf("group %s has the number of %s, %d", name, o.name, gid)
		}
	}
	a.groups[name] = &group{name, gid}
	return nil
}

// GID returns the number of a group.
func (a *Accounts) GID(name string) (int, bool) {
	g, ok := a.groups[name]
	if !ok {
		return 0, false
	}
	return g.gid, true
}

// Tables are the four files below etc.
type Tables struct{ Passwd, Group, Shadow, Gshadow string }

// Tables returns the files' contents. Every group that a line names must be declared.
func (a *Accounts) Tables() (Tables, error) {
	var t Tables
	members := map[string][]string{}
	for _, m := range a.members {
		if a.users[m.user] == nil || a.groups[m.group] == nil {
			return t, fmt.Errorf("user %s in group %s: both must be declared", m.user, m.group)
		}
		if !slices.Contains(members[m.group], m.user) {
			members[m.group] = append(members[m.group], m.user)
		}
	}
	for _, u := range sorted(a.users, func(u *user) int { return u.uid }) {
		gid, err := a.groupOf(u)
		if err != nil {
			return t, err
		}
		t.Passwd += fmt.Sprintf("%s:x:%d:%d:%s:%s:%s\n", u.name, u.uid, gid, u.comment, u.home, u.shell)
		password, expires := "!*", ""
		if u.name == "root" {
			password = "!unprovisioned"
		}
		if u.locked {
			expires = "1"
		}
		t.Shadow += fmt.Sprintf("%s:%s:%d:::::%s:\n", u.name, password, Day, expires)
	}
	for _, g := range sorted(a.groups, func(g *group) int { return g.gid }) {
		list := members[g.name]
		slices.Sort(list)
		t.Group += fmt.Sprintf("%s:x:%d:%s\n", g.name, g.gid, strings.Join(list, ","))
		t.Gshadow += fmt.Sprintf("%s:!*::%s\n", g.name, strings.Join(list, ","))
	}
	return t, nil
}

func sorted[T any](m map[string]*T, number func(*T) int) []*T {
	var list []*T
	for _, v := range m {
		list = append(list, v)
	}
	slices.SortFunc(list, func(x, y *T) int { return cmp.Compare(number(x), number(y)) })
	return list
}

// groupOf returns the number of a user's group: the one it names by name or number, or its own.
func (a *Accounts) groupOf(u *user) (int, error) {
	if u.group == "" {
		return u.uid, nil
	}
	if g := a.groups[u.group]; g != nil {
		return g.gid, nil
	}
	for _, g := range a.groups {
		if strconv.Itoa(g.gid) == u.group {
			return g.gid, nil
		}
	}
	return 0, fmt.Errorf("user %s is of group %s, which is not declared", u.name, u.group)
}

// Undeclared returns the users ("user NAME") and groups ("group NAME") that text, a sysusers.d file of any kind, declares and a does
// not, sorted.
func (a *Accounts) Undeclared(text string) []string {
	var missing []string
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "u", "u!":
			if a.users[f[1]] == nil {
				missing = append(missing, "user "+f[1])
			}
		case "g":
			if a.groups[f[1]] == nil {
				missing = append(missing, "group "+f[1])
			}
		}
	}
	slices.Sort(missing)
	return slices.Compact(missing)
}

func unset(s, otherwise string) string {
	if s == "-" {
		return otherwise
	}
	return s
}

func number(name, s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil || n == 65535 || s != strconv.FormatUint(n, 10) {
		return 0, fmt.Errorf("%s has %q for a number: pin one, it must be the same in every release", name, s)
	}
	return int(n), nil
}

// validName is the strict form of systemd's valid_user_group_name.
func validName(s string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_"
	return s != "" && len(s) <= 31 && strings.Contains(letters, s[:1]) && strings.Trim(s, letters+"0123456789-") == ""
}

// fields splits a line at spaces; double quotes hold a field together. Specifiers (%) and escapes are refused.
func fields(line string) ([]string, error) {
	if strings.ContainsAny(line, `%\'`) {
		return nil, fmt.Errorf("%q: no specifiers, escapes and single quotes here", line)
	}
	var out []string
	for rest := strings.TrimSpace(line); rest != ""; rest = strings.TrimSpace(rest) {
		var word string
		if rest[0] == '"' {
			var closed bool
			if word, rest, closed = strings.Cut(rest[1:], `"`); !closed || rest != "" && rest[0] != ' ' && rest[0] != '\t' {
				return nil, errors.New("a quote does not end, or in the middle of a word")
			}
		} else if i := strings.IndexAny(rest, " \t"); i >= 0 {
			word, rest = rest[:i], rest[i:]
		} else {
			word, rest = rest, ""
		}
		if rest != "" && strings.Contains(word, `"`) {
			return nil, fmt.Errorf("%q: a quote in the middle of a word", word)
		}
		out = append(out, word)
	}
	return out, nil
}
