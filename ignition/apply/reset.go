package apply

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
)

// resetRequest is what the next boot's /init carries out (docs/formats.md, "reset request"): it forgets state but for the paths named
// there, relative to state, and the machine has its first boot again.
const resetRequest = StateDir + "/reset"

// Where state is in the tree, and where in state is what the tree shows as /etc.
const (
	stateMount = "var"
	etcUpper   = "lib/etc/upper"
)

// RequestReset asks, durably, for a machine like before its first boot, but for the paths in keep and what is below them. Links in
// them are followed, but for the last name. It returns the paths as they are kept.
func RequestReset(root *os.Root, keep []string) ([]string, error) {
	d := &disk{root: root, owners: InodeOwners{}, touched: map[string]bool{}}
	text := "reset 1\n"
	var kept []string
	for _, p := range keep {
		name, err := d.keptName(p)
		if err != nil {
			return nil, err
		}
		kept = append(kept, name)
		text += name + "\n"
	}
	j := &journal{d: d}
	if err := j.makeDirs(StateDir); err != nil {
		return nil, err
	}
	if err := d.writeBytes(resetRequest, attributes{mode: 0o600}, []byte(text)); err != nil {
		return nil, fmt.Errorf("write /%s: %w", resetRequest, err)
	}
	return kept, d.sync()
}

func cannotKeep(found, expected, next string) error {
	return NewProblem("cannot keep a path", expected, found, next)
}

// keptName translates an absolute path of the tree to one of state.
func (d *disk) keptName(p string) (string, error) {
	if !path.IsAbs(p) || strings.ContainsAny(p, "\n\x00") {
		return "", cannotKeep(fmt.Sprintf("%q", p), "an absolute path", "begin the path with /; nothing was done")
	}
	name, err := d.resolve(p, false)
	if err != nil {
		return "", err
	}
	if _, err := d.root.Lstat(name); errors.Is(err, fs.ErrNotExist) {
		return "", cannotKeep(p, "something that exists", "correct the path; nothing was done")
	} else if err != nil {
		return "", err
	}
	inState, ok := strings.CutPrefix(name, stateMount+"/")
	if etc, is := strings.CutPrefix(name, "etc/"); is {
		inState, ok = etcUpper+"/"+etc, true
	}
	if !ok {
		return "", cannotKeep(p, "a path below /var or /etc, or in /home, /root, /opt, /srv or /usr/local",
			"leave it out: what is elsewhere comes from the image, and /var and /etc as a whole are what a reset forgets")
	}
	if marker, _ := strings.CutPrefix(StateDir, stateMount+"/"); marker == inState || strings.HasPrefix(marker, inState+"/") || strings.HasPrefix(inState, marker+"/") {
		return "", cannotKeep(p, "a path without /"+StateDir+", which says that the machine is provisioned", "leave it out; nothing was done")
	}
	return inState, nil
}
