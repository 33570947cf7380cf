package apply

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/coreos/ignition/v2/config/util"

	"github.com/proa-os/proa/ignition/plan"
)

func (r *run) user(op plan.User) error {
	if util.IsFalse(op.ShouldExist) {
		return r.removeUser(op)
	}
	if shell := op.Shell; util.NotEmpty(shell) {
		name, err := r.resolve(*shell, true)
		if err != nil {
			return err
		}
		if _, err := r.root.Lstat(name); err != nil {
			return NewProblem("no such shell", "a program of the root image, such as "+defaultShell, *shell, "correct shell, or leave it out")
		}
	}
	if err := r.editAccounts(func(a *accounts) error { return a.user(op) }); err != nil {
		return err
	}
	if util.IsTrue(op.NoCreateHome) {
		return nil
	}
	_, _, err := r.home(op.Name)
	return err
}

func (r *run) removeUser(op plan.User) error {
	a, err := r.accounts()
	if err != nil {
		return err
	}
	u, ok := a.lookupUser(op.Name)
	if !ok {
		return nil
	}
	if u.uid == 0 {
		return NewProblem("refuse to remove a user with uid 0", "another user", op.Name, "remove this entry from the config")
	}
	home, err := r.resolve(u.home, true)
	if err != nil {
		return err
	}
	// As userdel -r: only what belongs to the user. Before the rows go, so that a power cut does not leave it.
	if info, err := r.root.Lstat(home); err == nil && strings.Contains(home, "/") && r.attributesOf(info).uid == u.uid {
		if err := r.remove(home); err != nil {
			return err
		}
	}
	return r.editAccounts(func(a *accounts) error {
		a.passwd.drop(op.Name)
		a.shadow.drop(op.Name)
		for _, t := range []*table{&a.groups, &a.gshadow} {
			for _, row := range t.rows {
				if len(row) > 3 {
					if err := t.set(row, 3, member(row[3], op.Name, false)); err != nil {
						return err
					}
				}
			}
		}
		if gid, ok := a.lookupGroup(op.Name); ok && gid == u.gid {
			return a.removeGroup(op.Name)
		}
		return nil
	})
}

// homeDirs maps the resolved home directories of people and root to their owners.
func (r *run) homeDirs() (map[string]entry, error) {
	if r.homes != nil {
		return r.homes, nil
	}
	a, err := r.accounts()
	if err != nil {
		return nil, err
	}
	homes := map[string]entry{}
	for _, row := range a.passwd.rows {
		u, ok := a.lookupUser(row[0])
		if !ok || u.uid != 0 && (u.uid < firstID || u.uid > lastID) {
			continue
		}
		name, err := r.resolve(u.home, true)
		if err != nil {
			return nil, err
		}
		if _, taken := homes[name]; !taken && name != "." {
			homes[name] = u
		}
	}
	r.homes = homes
	return homes, nil
}

const homeMode = 0o700

// home makes a user's home directory if there is none and returns its resolved name.
func (r *run) home(user string) (string, entry, error) {
	a, err := r.accounts()
	if err != nil {
		return "", entry{}, err
	}
	u, ok := a.lookupUser(user)
	if !ok {
		return "", u, unknown("user", "passwd", user)
	}
	name, err := r.resolve(u.home, true)
	if err != nil {
		return "", u, err
	}
	switch info, err := r.root.Lstat(name); {
	case err == nil && !info.IsDir():
		return "", u, notDirectory(name, info)
	case err == nil:
		return name, u, nil
	case !errors.Is(err, fs.ErrNotExist):
		return "", u, err
	}
	if err := r.parents(name); err != nil {
		return "", u, err
	}
	return name, u, r.makeDirectory(name, attributes{uid: u.uid, gid: u.gid, mode: homeMode})
}

// Where ssh keys are, below a home directory: in the fragment, where sshd looks besides authorized_keys, or with Options.PlainKeys.
const (
	keysFragment = ".ssh/authorized_keys.d/ignition"
	keysPlain    = ".ssh/authorized_keys"
)

func keysFile(plain bool) string {
	if plain {
		return keysPlain
	}
	return keysFragment
}

// keys writes a user's ssh keys. Below the home directory,
// where the user can put what he likes, links are not followed.
func (r *run) keys(op plan.Keys) error {
	dir, u, err := r.home(op.User)
	if err != nil {
		return err
	}
	file := keysFile(r.plainKeys)
	for word := range strings.SplitSeq(path.Dir(file), "/") {
		dir = path.Join(dir, word)
		info, err := r.root.Lstat(dir)
		switch {
		case errors.Is(err, os.ErrNotExist):
			err = r.makeDirectory(dir, attributes{uid: u.uid, gid: u.gid, mode: homeMode})
		case err == nil && !info.IsDir():
			err = notDirectory(dir, info)
		}
		if err != nil {
			return err
		}
	}
	text := strings.Join(op.Keys, "\n") + "\n"
	return r.writeBytes(path.Join(dir, path.Base(file)), attributes{uid: u.uid, gid: u.gid, mode: 0o600}, []byte(text))
}
