// Package plan turns a merged config into the list of operations that provision a machine, in the order they are done.
//
// It stands between package config and package apply, decides only, and touches nothing: the same list is what
// `ignition plan` shows. The order is upstream's, on which configs rely: kernel arguments; disks, arrays, encrypted volumes, file systems, mounts; groups, users, ssh keys; then directories,
// files and links by depth, so that a directory comes before what is in it; then hard links, which may point deeper;
// then units: contents and drop-ins, masks, enablement, and the preset file that says the same to systemd.
//
// What the spec allows and would harm is refused here: names with a slash or a colon that would end up in another
// file or field, ids that the kernel would take for others, "overwrite" of a directory at the top of the tree.
package plan

import (
	"fmt"
	"path"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/coreos/ignition/v2/config/util"
	"github.com/coreos/ignition/v2/config/v3_6/types"

	"github.com/proa-os/proa/ignition/config"
	"github.com/proa-os/proa/ignition/secret"
)

// An Op is one operation. String says what it does to whom and holds no secret.
type Op interface {
	At() config.Place // where the config asks for it
	String() string
}

// base is the place every operation has.
type base struct{ place config.Place }

func (b base) At() config.Place { return b.place }

// Owner says to whom something belongs; all fields unset means the default.
type Owner struct {
	UID, GID    *int
	User, Group string // names, "" if unset
}

// Group makes a group be as described.
type Group struct {
	base
	types.PasswdGroup
}

// User makes a user be as described; ssh keys are a Keys operation.
type User struct {
	base
	types.PasswdUser
}

// Keys writes ~/.ssh/authorized_keys.d/ignition.
type Keys struct {
	base
	User string
	Keys []string
}

// Directory makes a directory.
type Directory struct {
	base
	Path      string
	Mode      *int // nil: 0755 for a new one
	Owner     Owner
	Overwrite bool
}

// File writes a file.
type File struct {
	base
	Path      string
	Mode      *int // nil: 0644 for a new one
	Owner     Owner
	Overwrite bool
	Contents  *types.Resource  // nil: keep what is there, or make an empty file
	Append    []types.Resource // in this order behind Contents
	Text      *string          // contents instead of Contents: unit files and the preset file
}

// Link makes a symbolic or hard link.
type Link struct {
	base
	Path, Target string
	Hard         bool
	Owner        Owner
	Overwrite    bool
}

// Unmask removes the link to /dev/null that masks a unit, if there is one.
type Unmask struct {
	base
	Unit string
}

// Enable makes the links that a unit's [Install] section asks for, and Disable removes them.
type Enable struct {
	base
	Unit string
}

// Disable is the opposite of Enable.
type Disable struct {
	base
	Unit string
}

func (o Group) String() string { return ensure("group", o.Name, o.ShouldExist) }
func (o User) String() string  { return ensure("user", o.Name, o.ShouldExist) }
func (o Keys) String() string {
	return fmt.Sprintf("write %d ssh keys of user %s", len(o.Keys), o.User)
}
func (o Directory) String() string { return "make directory " + o.Path }
func (o File) String() string      { return "write file " + o.Path }
func (o Link) String() string      { return "make link " + o.Path + " -> " + o.Target }
func (o Unmask) String() string    { return "unmask unit " + o.Unit }
func (o Enable) String() string    { return "enable unit " + o.Unit }
func (o Disable) String() string   { return "disable unit " + o.Unit }

func ensure(kind, name string, shouldExist *bool) string {
	if util.IsFalse(shouldExist) {
		return "remove " + kind + " " + name
	}
	return "ensure " + kind + " " + name
}

// Paths of what systemd reads.
const (
	UnitDir    = "/etc/systemd/system"
	PresetFile = "/etc/systemd/system-preset/20-ignition.preset"
)

// Build makes the plan. The error is config.Issues.
func Build(m *config.Merged) ([]Op, error) {
	b := &builder{m: m}
	b.arguments()
	b.devices()
	b.passwd()
	b.storage()
	b.systemd()
	if len(b.issues) > 0 {
		return nil, b.issues
	}
	return b.ops, nil
}

// hostnameFile is read by systemd, and set by the files stage too.
const hostnameFile = "/etc/hostname"

// Rereads reports whether systemd, or a generator of units, may read what ops make. It names what they do not: everything else counts.
func Rereads(ops []Op) bool {
	return slices.ContainsFunc(ops, func(op Op) bool {
		switch op := op.(type) {
		case Group, User, Keys:
			return false
		case File:
			return op.Path != hostnameFile
		}
		return true
	})
}

type builder struct {
	m      *config.Merged
	ops    []Op
	issues config.Issues
}

func (b *builder) at(format string, args ...any) base {
	return base{b.m.Place(fmt.Sprintf(format, args...))}
}

func (b *builder) add(op Op) { b.ops = append(b.ops, op) }

func (b *builder) refuse(at base, problem, expected, found string) {
	b.issues = append(b.issues, config.Issue{Place: at.place, Problem: problem, Expected: expected, Found: found, Next: "write what is expected, or remove it from the config"})
}

func (b *builder) passwd() {
	for n, g := range b.m.Config.Passwd.Groups {
		at := b.at("passwd.groups[%d].name", n)
		b.checkName(at, g.Name)
		b.checkSecret(b.at("passwd.groups[%d].passwordHash", n), str(g.PasswordHash))
		b.checkID(b.at("passwd.groups[%d].gid", n), g.Gid)
		b.add(Group{at, g})
	}
	var keys []Op
	for n, u := range b.m.Config.Passwd.Users {
		at := b.at("passwd.users[%d].name", n)
		b.checkName(at, u.Name)
		b.checkSecret(b.at("passwd.users[%d].passwordHash", n), str(u.PasswordHash))
		b.checkFields(b.at("passwd.users[%d]", n), str(u.Gecos), str(u.HomeDir), str(u.Shell), str(u.PrimaryGroup))
		b.checkID(b.at("passwd.users[%d].uid", n), u.UID)
		for k, g := range u.Groups {
			b.checkName(b.at("passwd.users[%d].groups[%d]", n, k), string(g))
		}
		b.add(User{at, u})
		if len(u.SSHAuthorizedKeys) == 0 || util.IsFalse(u.ShouldExist) {
			continue
		}
		op := Keys{base: b.at("passwd.users[%d].sshAuthorizedKeys", n), User: u.Name}
		for k, key := range u.SSHAuthorizedKeys {
			if secret.Armored(string(key)) {
				b.checkSecret(b.at("passwd.users[%d].sshAuthorizedKeys[%d]", n, k), string(key))
			} else if strings.ContainsAny(strings.TrimRight(string(key), "\r\n"), "\r\n\x00") {
				b.refuse(b.at("passwd.users[%d].sshAuthorizedKeys[%d]", n, k), "invalid ssh key", "one line", "several lines")
			}
			op.Keys = append(op.Keys, strings.TrimRight(string(key), "\r\n"))
		}
		keys = append(keys, op)
	}
	b.ops = append(b.ops, keys...)
}

// checkName holds a user's or group's name against what shadow's tools accept (useradd(8), CAVEATS).
func (b *builder) checkName(at base, name string) {
	ok := len(name) > 0 && len(name) <= 32
	for i, c := range []byte(strings.TrimSuffix(name, "$")) {
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '_'
		ok = ok && (letter || i > 0 && ('0' <= c && c <= '9' || c == '-' || c == '.'))
	}
	if !ok {
		b.refuse(at, "invalid user or group name", "1 to 32 letters, digits, _, - and ., beginning with a letter or _", fmt.Sprintf("%q", name))
	}
}

// checkID leaves out what chown(2) takes for "as it is" or cuts to 32 bits, where 4294967296 is root.
func (b *builder) checkID(at base, id *int) {
	if id != nil && (*id < 0 || *id >= 1<<32-1) {
		b.refuse(at, "invalid id", "0 to 4294967294", strconv.Itoa(*id))
	}
}

// checkFields keeps values from becoming further fields or lines of passwd(5) files.
func (b *builder) checkFields(at base, values ...string) {
	for _, v := range values {
		if strings.ContainsAny(v, badField) {
			b.refuse(at, "invalid value", "no colon and no line break in any field of passwd", "one")
			return
		}
	}
}

func str(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func (b *builder) storage() {
	type entry struct {
		path string
		op   Op
	}
	var entries, hard []entry
	st := b.m.Config.Storage
	for n, d := range st.Directories {
		at := b.at("storage.directories[%d].path", n)
		b.checkNode(fmt.Sprintf("storage.directories[%d]", n), d.Node)
		entries = append(entries, entry{d.Path, Directory{at, d.Path, d.Mode, ownerOf(d.Node), util.IsTrue(d.Overwrite)}})
	}
	for n, f := range st.Files {
		b.checkNode(fmt.Sprintf("storage.files[%d]", n), f.Node)
		op := File{base: b.at("storage.files[%d].path", n), Path: f.Path, Mode: f.Mode, Owner: ownerOf(f.Node), Overwrite: util.IsTrue(f.Overwrite), Append: f.Append}
		if f.Contents.Source != nil {
			op.Contents = &f.Contents
		}
		entries = append(entries, entry{f.Path, op})
	}
	for n, l := range st.Links {
		b.checkNode(fmt.Sprintf("storage.links[%d]", n), l.Node)
		op := Link{base: b.at("storage.links[%d].path", n), Path: l.Path, Target: str(l.Target), Hard: util.IsTrue(l.Hard), Owner: ownerOf(l.Node), Overwrite: util.IsTrue(l.Overwrite)}
		if op.Hard {
			hard = append(hard, entry{l.Path, op})
			continue
		}
		entries = append(entries, entry{l.Path, op})
	}
	for _, e := range append(append([]entry{}, entries...), hard...) {
		if e.path == "/" {
			if _, ok := e.op.(Directory); !ok {
				b.refuse(base{e.op.At()}, "not a directory", "a path below /", "/")
			}
		}
	}
	sort.SliceStable(entries, func(i, j int) bool { return depth(entries[i].path) < depth(entries[j].path) })
	for _, e := range append(entries, hard...) {
		b.add(e.op)
	}
}

// checkNode keeps /var and the like from being removed for a file, a link or a directory of the same name.
func (b *builder) checkNode(place string, n types.Node) {
	if util.IsTrue(n.Overwrite) && strings.Count(n.Path, "/") < 2 {
		b.refuse(b.at("%s.path", place), "refuse to overwrite a top directory", "a path with at least two names", n.Path)
	}
	b.checkID(b.at("%s.user.id", place), n.User.ID)
	b.checkID(b.at("%s.group.id", place), n.Group.ID)
}

func depth(p string) int { return strings.Count(strings.TrimSuffix(p, "/"), "/") }

func ownerOf(n types.Node) Owner {
	return Owner{UID: n.User.ID, GID: n.Group.ID, User: str(n.User.Name), Group: str(n.Group.Name)}
}

func (b *builder) systemd() {
	presets := preset{}
	var enable []Op
	for n, u := range b.m.Config.Systemd.Units {
		at := b.at("systemd.units[%d].name", n)
		if u.Name != path.Base(u.Name) || strings.ContainsAny(u.Name, " \n\x00") {
			found := fmt.Sprintf("%q", u.Name)
			if strings.ContainsAny(u.Name, " \n") { // a name that goes on, with what is secret perhaps
				found = "one with spaces"
			}
			b.refuse(at, "invalid unit name", "a name without slashes and spaces", found)
		}
		masked := util.IsTrue(u.Mask)
		if util.NotEmpty(u.Contents) && !masked {
			b.add(File{base: at, Path: UnitDir + "/" + u.Name, Text: u.Contents, Overwrite: true})
		}
		for k, d := range u.Dropins {
			at := b.at("systemd.units[%d].dropins[%d].name", n, k)
			if d.Name != path.Base(d.Name) {
				b.refuse(at, "invalid drop-in name", "a name without slashes", fmt.Sprintf("%q", d.Name))
			}
			if d.Contents != nil {
				b.add(File{base: at, Path: UnitDir + "/" + u.Name + ".d/" + d.Name, Text: d.Contents, Overwrite: true})
			}
		}
		switch {
		case masked:
			b.add(Link{base: b.at("systemd.units[%d].mask", n), Path: UnitDir + "/" + u.Name, Target: "/dev/null", Overwrite: true})
		case u.Mask != nil:
			b.add(Unmask{b.at("systemd.units[%d].mask", n), u.Name})
		}
		if u.Enabled == nil || masked {
			continue
		}
		presets.add(u.Name, *u.Enabled)
		if at := b.at("systemd.units[%d].enabled", n); *u.Enabled {
			enable = append(enable, Enable{at, u.Name})
		} else {
			enable = append(enable, Disable{at, u.Name})
		}
	}
	b.ops = append(b.ops, enable...)
	if text := presets.text(); text != "" {
		b.add(File{base: b.at("systemd.units"), Path: PresetFile, Text: &text, Overwrite: true})
	}
}

// preset collects lines of systemd.preset(5): instances of a template share one.
type preset map[string][]string

func (p preset) add(unit string, enabled bool) {
	word := "disable "
	if enabled {
		word = "enable "
	}
	if prefix, rest, ok := strings.Cut(unit, "@"); ok {
		ext := path.Ext(rest)
		if instance := strings.TrimSuffix(rest, ext); instance != "" {
			line := word + prefix + "@" + ext
			p[line] = append(p[line], instance)
			return
		}
	}
	p[word+unit] = p[word+unit] // the line of a template may have instances already
}

func (p preset) text() string {
	lines := make([]string, 0, len(p))
	for line, instances := range p {
		lines = append(lines, strings.Join(append([]string{line}, instances...), " ")+"\n")
	}
	sort.Strings(lines)
	return strings.Join(lines, "")
}
