package apply

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/proa-os/proa/ignition/config"
	"github.com/proa-os/proa/ignition/plan"
)

// appliedFile is what Record writes and Drift reads: a JSON array of Facts, for root only.
const appliedFile = StateDir + "/applied.json"

// A Fact is what one operation has made of its subject. State holds digests of contents and of password hashes, never themselves.
type Fact struct {
	Subject string            `json:"subject"` // "file /etc/motd", "user core"
	Place   config.Place      `json:"place"`
	State   map[string]string `json:"state"` // nothing: the subject does not exist
	Op      Thing             `json:"op"`
}

// A Difference is a subject that is no longer as it was provisioned.
type Difference struct {
	Subject string       `json:"subject"`
	Place   config.Place `json:"place"`
	Changes []string     `json:"changes"` // "mode: was 0644, is 0600"
}

// Record remembers durably what ops, which have been carried out, made of the tree, and of the machine by what look says of it; without look
// of the tree only.
func Record(root *os.Root, ops []plan.Op, owners Owners, look Look) error {
	r := observer(root, owners)
	r.machine = look
	facts := make([]Fact, 0, len(ops))
	for _, op := range ops {
		for _, t := range thingsOf(op) {
			if t.onMachine() && look == nil {
				continue
			}
			state, err := r.look(t)
			if err != nil {
				return fmt.Errorf("remember %q: %w", op, err)
			}
			facts = append(facts, Fact{Subject: t.subject(), Place: op.At(), State: state, Op: t})
		}
	}
	b, err := json.MarshalIndent(facts, "", " ")
	if err != nil {
		return err
	}
	j := &journal{d: r.disk}
	if err := j.makeDirs(StateDir); err != nil {
		return err
	}
	if err := r.writeBytes(appliedFile, attributes{mode: 0o600}, append(b, '\n')); err != nil {
		return fmt.Errorf("write /%s: %w", appliedFile, err)
	}
	return r.sync()
}

// Drift looks at everything that Record remembers and returns what differs now; without look, at what is in the tree. It changes nothing.
func Drift(root *os.Root, owners Owners, look Look) ([]Difference, error) {
	b, err := root.ReadFile(appliedFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, NewProblem("nothing is known of a provisioning", "the file /"+appliedFile, "none", "provision the machine, or apply a config to this tree")
	}
	if err != nil {
		return nil, err
	}
	var facts []Fact
	if err := json.Unmarshal(b, &facts); err != nil {
		return nil, fmt.Errorf("read /%s: %w", appliedFile, err)
	}
	r := observer(root, owners)
	r.machine = look
	var all []Difference
	for _, f := range facts {
		if f.Op.onMachine() && look == nil {
			continue
		}
		now, err := r.look(f.Op)
		if err != nil {
			return nil, fmt.Errorf("look at %s: %w", f.Subject, err)
		}
		if changes := compare(f.State, now); len(changes) > 0 {
			all = append(all, Difference{f.Subject, f.Place, changes})
		}
	}
	return all, nil
}

func observer(root *os.Root, owners Owners) *run {
	if owners == nil {
		owners = InodeOwners{}
	}
	return &run{disk: &disk{root: root, owners: owners, touched: map[string]bool{}}}
}

// compare lists what differs, by name.
func compare(was, is map[string]string) []string {
	switch {
	case len(was) > 0 && len(is) == 0:
		return []string{"is gone"}
	case len(was) == 0 && len(is) > 0:
		return []string{"exists again"}
	}
	names := maps.Clone(was)
	maps.Copy(names, is)
	var changes []string
	for _, name := range slices.Sorted(maps.Keys(names)) {
		switch {
		case was[name] == is[name]:
		case name == "contents" || name == "password":
			changes = append(changes, name+": changed")
		default:
			changes = append(changes, fmt.Sprintf("%s: was %s, is %s", name, orNone(was[name]), orNone(is[name])))
		}
	}
	return changes
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func (r *run) look(k Thing) (map[string]string, error) {
	if k.onMachine() {
		return r.machine(k)
	}
	switch k.Kind {
	case "group":
		return r.lookGroup(k.Name)
	case "user":
		return r.lookUser(k.Name)
	case "ssh keys":
		a, err := r.accounts()
		if err != nil {
			return nil, err
		}
		u, ok := a.lookupUser(k.Name)
		if !ok {
			return nil, nil
		}
		if is, err := r.lookPath(u.home + "/" + keysFragment); err != nil || len(is) > 0 || r.brief {
			return is, err
		}
		return r.lookPath(u.home + "/" + keysPlain)
	case "mask":
		return r.lookPath(plan.UnitDir + "/" + k.Name)
	case "unit":
		return r.lookUnit(k.Name)
	case "directory", "file", "link":
		return r.lookPath(k.Name)
	}
	return nil, fmt.Errorf("unknown kind %q", k.Kind)
}

// lookPath describes a name of the tree as an operation would find it: the last name is not followed.
func (r *run) lookPath(p string) (map[string]string, error) {
	name, err := r.resolve(p, false)
	if err != nil {
		var problem *Problem
		if errors.As(err, &problem) { // a directory above it is no directory any more
			return nil, nil
		}
		return nil, err
	}
	info, err := r.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	a := r.attributesOf(info)
	state := map[string]string{"type": kind(info), "owner": fmt.Sprintf("%d:%d", a.uid, a.gid)}
	state["mode"] = fmt.Sprintf("%04o", a.mode)
	if r.brief && info.Mode().IsRegular() {
		return state, nil
	}
	id, err := r.identity(name)
	if err != nil {
		return nil, err
	}
	switch {
	case strings.HasPrefix(id, "link:"):
		delete(state, "mode") // links have none
		state["target"] = id[len("link:"):]
		return state, nil
	case strings.HasPrefix(id, "sha256:"):
		state["contents"] = id
	}
	return state, nil
}

func (r *run) lookGroup(name string) (map[string]string, error) {
	a, err := r.accounts()
	if err != nil {
		return nil, err
	}
	row := a.groups.find(name)
	if len(row) < 4 {
		return nil, nil
	}
	state := map[string]string{"gid": row[2], "members": row[3], "password": digestOf(row[1])}
	if g := a.gshadow.find(name); len(g) > 1 {
		state["password"] = digestOf(g[1])
	}
	return state, nil
}

func (r *run) lookUser(name string) (map[string]string, error) {
	a, err := r.accounts()
	if err != nil {
		return nil, err
	}
	row := a.passwd.find(name)
	if len(row) < 7 {
		return nil, nil
	}
	var groups []string
	for _, g := range a.groups.rows {
		if len(g) > 3 && slices.Contains(strings.Split(g[3], ","), name) {
			groups = append(groups, g[0])
		}
	}
	state := map[string]string{"uid": row[2], "gid": row[3], "gecos": row[4], "home": row[5], "shell": row[6], "groups": strings.Join(groups, ",")}
	if s := a.shadow.find(name); len(s) > 1 {
		state["password"] = digestOf(s[1])
	}
	return state, nil
}

// lookUnit lists the links of the machine's own configuration that pull a unit in, or mask that.
func (r *run) lookUnit(name string) (map[string]string, error) {
	dir, err := r.resolve(plan.UnitDir, true)
	if err != nil {
		return nil, err
	}
	links, err := r.links(dir, name)
	if err != nil {
		return nil, err
	}
	state := map[string]string{"links": ""}
	for n, link := range links {
		target, err := r.root.Readlink(link)
		if err != nil {
			return nil, err
		}
		if links[n] = "/" + link; target == "/dev/null" {
			links[n] += " (masked)"
		}
	}
	state["links"] = strings.Join(links, ", ")
	return state, nil
}

// digestOf keeps a password's hash out of the record; the hash has its own salt.
func digestOf(hash string) string {
	sum := sha256.Sum256([]byte(hash))
	return hex.EncodeToString(sum[:])
}
