package bundle

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/proa-os/proa/internal/inroot"
)

// LookupUser finds "user", "uid", "user:group" or "uid:gid" in the container's root as docker does: names need an entry,
// numbers do not; without a group the user's own and the ones that list the user.
func LookupUser(root *os.Root, text string) (User, error) {
	name, group, hasGroup := strings.Cut(text, ":")
	if name == "" {
		name = "0"
	}
	var u User
	known := false
	err := eachLine(root, "etc/passwd", 7, func(f []string) error {
		if known || (f[0] != name && f[2] != name) {
			return nil
		}
		uid, err1 := strconv.ParseUint(f[2], 10, 32)
		gid, err2 := strconv.ParseUint(f[3], 10, 32)
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		u.UID, u.GID, u.Home, known = uint32(uid), uint32(gid), f[5], true
		name = f[0]
		return nil
	})
	if err != nil {
		return u, err
	}
	if !known {
		uid, err := strconv.ParseUint(name, 10, 32)
		if err != nil {
			return u, fmt.Errorf("user %q: not in the container's /etc/passwd", name)
		}
		u.UID = uint32(uid)
	}
	found := false
	err = eachLine(root, "etc/group", 4, func(f []string) error {
		gid, err := strconv.ParseUint(f[2], 10, 32)
		if err != nil {
			return nil // somebody else's line
		}
		if hasGroup && (f[0] == group || f[2] == group) {
			u.GID, found = uint32(gid), true
		}
		if !hasGroup && known && slices.Contains(strings.Split(f[3], ","), name) {
			u.Groups = append(u.Groups, uint32(gid))
		}
		return nil
	})
	if err != nil {
		return u, err
	}
	if hasGroup && !found {
		gid, err := strconv.ParseUint(group, 10, 32)
		if err != nil {
			return u, fmt.Errorf("group %q: not in the container's /etc/group", group)
		}
		u.GID = uint32(gid)
	}
	return u, nil
}

// Join adds groups by name or number to those of the user.
func (u *User) Join(root *os.Root, groups []string) error {
	for _, g := range groups {
		in, err := LookupUser(root, "0:"+g)
		if err != nil {
			return err
		}
		u.Groups = append(u.Groups, in.GID)
	}
	return nil
}

// eachLine calls f with the fields of each line of a file that the image's author wrote. A missing file is an empty one.
func eachLine(root *os.Root, file string, fields int, f func([]string) error) error {
	dir, err := root.Open(".")
	if err != nil {
		return err
	}
	defer dir.Close()
	// Not by root itself, which refuses absolute links: those of Nix's images lead into the store.
	in, err := inroot.Regular(int(dir.Fd()), file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("the container's /%s: %w", file, err)
	}
	defer in.Close()
	sc := bufio.NewScanner(io.LimitReader(in, 4<<20))
	for sc.Scan() {
		if l := strings.Split(sc.Text(), ":"); len(l) == fields {
			if err := f(l); err != nil {
				return fmt.Errorf("the container's /%s: %w", file, err)
			}
		}
	}
	return sc.Err()
}
