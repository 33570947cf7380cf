package run

import (
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/internal/inroot"
)

// openInRoot opens p, an absolute path of the container, as O_PATH below the directory root. Symbolic links are
// followed as the container would (".." and absolute links stay inside); magic links of /proc are not.
func openInRoot(root int, p string, extra uint64) (int, error) {
	return inroot.Open(root, p, unix.O_PATH, extra)
}

// ensure is openInRoot that makes what is missing: directories on the way, and at the end a directory or an empty file. A link that leads
// nowhere, as images have it at /etc/resolv.conf, is followed inside the root, and what is missing is made where it leads to. ids are those
// of the container's user namespace, or nil.
func ensure(root int, ids *idMaps, p string, dir bool, extra uint64) (int, error) {
	return ensureAt(root, ids, path.Clean("/"+p), dir, extra, maxLinks)
}

// maxLinks is the kernel's MAXSYMLINKS.
const maxLinks = 40

func ensureAt(root int, ids *idMaps, p string, dir bool, extra uint64, links int) (int, error) {
	fd, err := ids.openInRoot(root, p, extra)
	if err == nil || err != unix.ENOENT {
		return fd, inside("open", p, hint(err, extra))
	}
	parent, err := ensureAt(root, ids, path.Dir(p), true, extra, links)
	if err != nil {
		return -1, err
	}
	defer unix.Close(parent)
	name := path.Base(p)
	create := func() error {
		if dir {
			return unix.Mkdirat(parent, name, 0o755)
		}
		return unix.Mknodat(parent, name, unix.S_IFREG|0o644, 0)
	}
	if err = create(); err == unix.EACCES && ids.own(parent) {
		err = ids.override(create)
	}
	if err == unix.EEXIST && extra&unix.RESOLVE_NO_SYMLINKS == 0 {
		to, err := leadsTo(root, parent, name)
		if err == nil && links == 0 {
			err = unix.ELOOP
		}
		if err != nil {
			return -1, inside("follow the link", p, err)
		}
		return ensureAt(root, ids, to, dir, extra, links-1)
	}
	if err != nil {
		return -1, inside("make", p, err)
	}
	fd, err = ids.openInRoot(parent, name, unix.RESOLVE_NO_SYMLINKS)
	return fd, inside("open", p, err)
}

func inside(verb, p string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %s in the container: %w", verb, p, err)
}

// leadsTo returns where the link name in a directory below root leads to, as a path from root. That it is found by names, which others may
// change meanwhile, does no harm: the path is walked anew, and no walk leaves root.
func leadsTo(root, parent int, name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(parent, name, buf)
	if err != nil {
		return "", err
	}
	to := string(buf[:n])
	if path.IsAbs(to) {
		return path.Clean(to), nil
	}
	var names [2]string
	for i, fd := range []int{root, parent} {
		if names[i], err = os.Readlink(fmt.Sprintf("/proc/thread-self/fd/%d", fd)); err != nil {
			return "", err
		}
	}
	below, ok := strings.CutPrefix(names[1], strings.TrimSuffix(names[0], "/"))
	if !ok || below != "" && below[0] != '/' {
		return "", fmt.Errorf("%s is not below %s", names[1], names[0])
	}
	return path.Join("/", below, to), nil
}

func hint(err error, extra uint64) error {
	if err == unix.ELOOP && extra&unix.RESOLVE_NO_SYMLINKS != 0 {
		return fmt.Errorf("%w: the image has a symbolic link where a kernel file system goes", err)
	}
	return err
}

// mountOn attaches the detached mount at target.
func mountOn(mount, target int) error {
	return unix.MoveMount(mount, "", target, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}

// setAttr changes properties of a mount.
func setAttr(mount int, set, clear uint64, recursive bool) error {
	if set|clear == 0 {
		return nil
	}
	flags := uint(unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	return unix.MountSetattr(mount, "", flags, &unix.MountAttr{Attr_set: set, Attr_clr: clear})
}

// newMount makes a file system instance, still detached (fsopen(2)).
func newMount(fstype, source string, data []string, attr uint64) (int, error) {
	fs, err := unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("open file system %s: %w", fstype, err)
	}
	defer unix.Close(fs)
	if source == "" {
		source = fstype
	}
	for _, o := range append([]string{"source=" + source}, data...) {
		key, value, ok := strings.Cut(o, "=")
		if ok {
			err = unix.FsconfigSetString(fs, key, value)
		} else {
			err = unix.FsconfigSetFlag(fs, key)
		}
		if err != nil {
			return -1, fmt.Errorf("option %s of %s: %w%s", o, fstype, err, fsLog(fs))
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fmt.Errorf("make %s: %w%s", fstype, err, fsLog(fs))
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, int(attr))
	if err != nil {
		return -1, fmt.Errorf("mount %s: %w%s", fstype, err, fsLog(fs))
	}
	return fd, nil
}

// fsLog returns what the kernel has to say about the last error of a file system context.
func fsLog(fs int) string {
	buf := make([]byte, 1024)
	n, err := unix.Read(fs, buf)
	if err != nil || n <= 0 {
		return ""
	}
	return " (" + strings.TrimSpace(string(buf[:n])) + ")"
}
