package run

import (
	"fmt"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// idMaps are the maps of a new user namespace.
type idMaps struct {
	uids, gids []specs.LinuxIDMapping
}

// newIDMaps returns the maps, or nil without a new user namespace.
func newIDMaps(s *specs.Spec, flags uint64) *idMaps {
	if flags&syscall.CLONE_NEWUSER == 0 {
		return nil
	}
	return &idMaps{s.Linux.UIDMappings, s.Linux.GIDMappings}
}

// write gives the maps to the namespace of process pid.
func (m *idMaps) write(pid int) error {
	for _, l := range []struct {
		file, field string
		maps        []specs.LinuxIDMapping
	}{{"uid_map", "linux.uidMappings", m.uids}, {"gid_map", "linux.gidMappings", m.gids}} {
		text := ""
		for _, e := range l.maps {
			text += fmt.Sprintf("%d %d %d\n", e.ContainerID, e.HostID, e.Size)
		}
		if err := setFile(fmt.Sprintf("/proc/%d/%s", pid, l.file), text); err != nil {
			return fmt.Errorf("%s: %w", l.field, err)
		}
	}
	return nil
}

// apply has os.StartProcess write the maps, and execute as the namespace's root.
func (m *idMaps) apply(sys *syscall.SysProcAttr) {
	convert := func(maps []specs.LinuxIDMapping) (out []syscall.SysProcIDMap) {
		for _, e := range maps {
			out = append(out, syscall.SysProcIDMap{ContainerID: int(e.ContainerID), HostID: int(e.HostID), Size: int(e.Size)})
		}
		return out
	}
	sys.UidMappings, sys.GidMappings = convert(m.uids), convert(m.gids)
	sys.GidMappingsEnableSetgroups = true
	sys.Credential = &syscall.Credential{Uid: 0, Gid: 0}
}

// root returns the ids outside of the namespace that are its root's.
func (m *idMaps) root() (uid, gid int) {
	find := func(maps []specs.LinuxIDMapping) int {
		for _, e := range maps {
			if e.ContainerID == 0 {
				return int(e.HostID)
			}
		}
		return 0
	}
	return find(m.uids), find(m.gids)
}
