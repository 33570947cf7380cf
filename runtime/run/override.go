package run

import (
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// own reports whether a file's owner and group have numbers in the user namespace: then its root may do what permissions forbid, as
// capable_wrt_inode_uidgid of the kernel has it. Directories of others stay closed even where this process, which is the machine's root, could.
func (m *idMaps) own(file int) bool {
	var st unix.Stat_t
	if m == nil || unix.Fstatat(file, "", &st, unix.AT_EMPTY_PATH) != nil {
		return false
	}
	has := func(maps []specs.LinuxIDMapping, id uint32) bool {
		return slices.ContainsFunc(maps, func(e specs.LinuxIDMapping) bool { return id >= e.HostID && id-e.HostID < e.Size })
	}
	return has(m.uids, st.Uid) && has(m.gids, st.Gid)
}

// openInRoot is the function of that name for the container's root, who passes directories that are closed to others.
func (m *idMaps) openInRoot(root int, p string, extra uint64) (int, error) {
	fd, err := openInRoot(root, p, extra)
	if err == unix.EACCES {
		err = m.override(func() (err error) { fd, err = openInRoot(root, p, extra); return err })
	}
	return fd, err
}

// override runs f once more after EACCES, with CAP_DAC_OVERRIDE: the thread has lost it from its effective set with the file system user
// of the container's root (setfsuid, capabilities(7)), who has it in the namespace. Without a user namespace it stays EACCES.
func (m *idMaps) override(f func() error) error {
	if m == nil {
		return unix.EACCES
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var set [2]unix.CapUserData
	if err := unix.Capget(&header, &set[0]); err != nil {
		return err
	}
	raised := set
	raised[0].Effective |= raised[0].Permitted & (1 << unix.CAP_DAC_OVERRIDE)
	if err := unix.Capset(&header, &raised[0]); err != nil {
		return err
	}
	err := f()
	if lower := unix.Capset(&header, &set[0]); err == nil {
		err = lower
	}
	return err
}
