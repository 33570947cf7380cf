package run

import (
	"encoding/binary"
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/runtime/script"
	"github.com/proa-os/proa/runtime/spec"
)

// workload writes the end of every script: the process takes on what process says, waits for the word to go and executes.
func (p *plan) workload() error {
	if err := p.schedule(); err != nil {
		return err
	}
	if !p.process.NoNewPrivileges {
		p.setLabels()
	}
	if err := p.becomeUser(); err != nil {
		return err
	}
	if p.follow {
		// After the change of ids, which clears it. If the caller has ended already, await notices.
		p.Call("follow the caller", unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, int(unix.SIGKILL), 0, 0, 0)
	}
	exec := p.Later()
	p.lookPath(exec)
	p.sayReady()
	p.await(p.fds.talk)
	if p.listen {
		p.awaitStart()
	}
	p.Call("close descriptors on exec", unix.SYS_CLOSE_RANGE, p.fds.talk, int(^uint32(0)), unix.CLOSE_RANGE_CLOEXEC)
	if p.process.NoNewPrivileges {
		p.setLabels()
		p.Call("process.noNewPrivileges", unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	}
	// Last, as it may forbid anything but the execve.
	p.installFilter()
	p.Append(exec, "process.args[0]: execute "+p.process.Args[0], unix.SYS_EXECVE, p.String(p.process.Args[0]), p.Vector(p.process.Args), p.Vector(p.process.Env)).Command()
	return nil
}

// limits is setLimits for this process.
func (p *plan) limits() error {
	limits, err := spec.Rlimits(p.process.Rlimits)
	if err != nil {
		return err
	}
	for i, l := range limits {
		p.Call(fmt.Sprintf("process.rlimits[%d] (%s %d %d)", i, p.process.Rlimits[i].Type, l.Soft, l.Hard), unix.SYS_PRLIMIT64, 0, l.Resource, p.Words(l.Soft, l.Hard), 0)
	}
	return nil
}

// awaitStart takes the connection of Start in place of the caller's. One that closes without a word is forgotten.
func (p *plan) awaitStart() {
	const label = "wait for start"
	again := p.Nop()
	conn := p.Call(label, unix.SYS_ACCEPT4, p.fds.extra, 0, 0, unix.SOCK_CLOEXEC).OnErrorOnly(again, unix.EINTR)
	gone, on := p.Later(), p.Later()
	p.Call(label, unix.SYS_READ, conn, p.Words(0), 1).ZeroFails().OnError(gone)
	p.Call(label, unix.SYS_DUP3, conn, p.fds.talk, unix.O_CLOEXEC)
	p.Call(label, unix.SYS_CLOSE, p.fds.extra)
	p.Call(label, unix.SYS_CLOSE, conn).Then(on)
	p.Append(gone, label, unix.SYS_CLOSE, conn).Then(again)
	p.Append(on, "", script.NoCall, 0)
}

// becomeUser applies ids, capabilities and the working directory.
func (p *plan) becomeUser() error {
	sets, err := p.capabilities()
	if err != nil {
		return err
	}
	for c := 0; c <= unix.CAP_LAST_CAP; c++ {
		if sets.Bounding&(1<<c) == 0 {
			// EINVAL: the kernel is older than the capability.
			p.Call("process.capabilities.bounding", unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, c, 0, 0, 0).IgnoreOnly(unix.EINVAL)
		}
	}
	// As root first, for a directory that only root can reach; then as the user, for one that only the user can. No descriptor
	// leads out of the container any more, and magic links, which could lead along one of another process, are not followed.
	label, cwd := "process.cwd: enter "+p.process.Cwd, p.String(p.process.Cwd)
	how := p.openHow(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, unix.RESOLVE_NO_MAGICLINKS)
	first := p.Call(label, unix.SYS_OPENAT2, unix.AT_FDCWD, cwd, how, unix.SizeofOpenHow).IgnoreOnly(unix.EACCES)
	p.Call(label, unix.SYS_FCHDIR, first).IgnoreOnly(unix.EBADF)
	p.giveOutput()
	p.setIDs()
	p.setCapabilities(sets)
	inside := p.Later()
	p.Call(label, unix.SYS_FCNTL, first, unix.F_GETFD, 0).Then(inside).Ignore()
	second := p.Call(label, unix.SYS_OPENAT2, unix.AT_FDCWD, cwd, how, unix.SizeofOpenHow)
	p.Call(label, unix.SYS_FCHDIR, second)
	mask := 0o022
	if m := p.process.User.Umask; m != nil {
		mask = int(*m)
	}
	p.Call(label, unix.SYS_CLOSE, second)
	p.Append(inside, "process.user.umask", unix.SYS_UMASK, mask)
	p.Call(label, unix.SYS_CLOSE, first).IgnoreOnly(unix.EBADF)
	return nil
}

// capabilities are those that process may have: in a user namespace all, else no more than this process.
func (p *plan) capabilities() (spec.CapSets, error) {
	have := ^uint64(0)
	if !p.userNS {
		var data [2]unix.CapUserData
		if err := unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &data[0]); err != nil {
			return spec.CapSets{}, fmt.Errorf("process.capabilities: %w", err)
		}
		have = uint64(data[1].Permitted)<<32 | uint64(data[0].Permitted)
	}
	sets, warnings, err := spec.Capabilities(p.process.Capabilities, have)
	for _, w := range warnings {
		if p.warn != nil {
			p.warn(w)
		}
	}
	return sets, err
}

// giveOutput gives pipes that are the workload's standard input, output and error to its user, who could else not open /dev/stdout.
// Files, terminals and devices stay whose they are.
func (p *plan) giveOutput() {
	uid := p.process.User.UID
	if uid == 0 || p.process.Terminal {
		return
	}
	for fd := range 3 {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) != nil {
			continue
		}
		if st.Mode&unix.S_IFMT == unix.S_IFIFO {
			p.Call("process.user.uid: give it standard output", unix.SYS_FCHOWN, fd, int(uid), int(^uint32(0))).Ignore()
		}
	}
}

func (p *plan) setIDs() {
	u := p.process.User
	p.Call("keep capabilities", unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 1, 0, 0, 0)
	var list []byte
	for _, g := range u.AdditionalGids {
		list = binary.NativeEndian.AppendUint32(list, g)
	}
	p.Call("process.user.additionalGids", unix.SYS_SETGROUPS, len(u.AdditionalGids), p.Bytes(list))
	gid, uid := int(u.GID), int(u.UID)
	p.Call(fmt.Sprintf("process.user.gid %d", gid), unix.SYS_SETRESGID, gid, gid, gid)
	p.Call(fmt.Sprintf("process.user.uid %d", uid), unix.SYS_SETRESUID, uid, uid, uid)
}

func (p *plan) setCapabilities(s spec.CapSets) {
	hdr := p.Words(unix.LINUX_CAPABILITY_VERSION_3)
	more := uint64(0)
	if p.filter != nil && !p.process.NoNewPrivileges {
		// For the filter, and only until execve: that makes the permitted set anew from the others (capabilities(7)).
		more = 1 << unix.CAP_SYS_ADMIN
	}
	var data []byte
	for shift := 0; shift < 64; shift += 32 {
		for _, set := range []uint64{s.Effective | more, s.Permitted | more, s.Inheritable} {
			data = binary.NativeEndian.AppendUint32(data, uint32(set>>shift))
		}
	}
	p.Call("process.capabilities", unix.SYS_CAPSET, hdr, p.Bytes(data))
	const label = "process.capabilities.ambient"
	p.Call(label, unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
	for c := 0; c <= unix.CAP_LAST_CAP; c++ {
		if s.Ambient&(1<<c) != 0 {
			p.Call(label, unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, c, 0, 0)
		}
	}
}

// installFilter puts the seccomp program on this process.
func (p *plan) installFilter() {
	if p.filter == nil {
		return
	}
	code := make([]byte, 0, 8*len(p.filter.Filter))
	for _, i := range p.filter.Filter {
		code = binary.NativeEndian.AppendUint16(code, i.Code)
		code = append(code, i.Jt, i.Jf)
		code = binary.NativeEndian.AppendUint32(code, i.K)
	}
	prog := p.Words(uint64(len(p.filter.Filter)), 0) // struct sock_fprog
	p.Point(prog, 8, p.Bytes(code))
	listener := p.Call("linux.seccomp", unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, int(p.filter.Flags), prog)
	if p.filter.Flags&unix.SECCOMP_FILTER_FLAG_NEW_LISTENER != 0 {
		text := p.Bytes(append(kind(script.KindNotify), 0, 0, 0, 0))
		p.Store(listener, text, 4)
		p.Call("talk to the caller", unix.SYS_WRITE, p.fds.talk, text, 8)
		p.await(p.fds.talk)
		p.Call("close listener", unix.SYS_CLOSE, listener)
	}
}

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// lookPath finds the program as execvp(3) would, with the PATH of the container's environment and the ids of the workload,
// and makes it the first argument of exec.
func (p *plan) lookPath(exec *script.Call) {
	name := p.process.Args[0]
	if p.program != "" {
		name = p.program
	}
	found := p.Later()
	if strings.ContainsRune(name, '/') {
		file := p.String(name)
		p.Call("process.args[0]: stat "+name, unix.SYS_FACCESSAT2, unix.AT_FDCWD, file, unix.F_OK, unix.AT_EACCESS)
		p.notDirectory(name, file)
		p.Call("process.args[0]: execute "+name, unix.SYS_FACCESSAT2, unix.AT_FDCWD, file, unix.X_OK, unix.AT_EACCESS)
		p.Choose(file, exec, 0)
		p.Append(found, "", script.NoCall, 0)
		return
	}
	search := defaultPath
	for _, e := range p.process.Env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			search = v
		}
	}
	for _, dir := range filepath.SplitList(search) {
		if dir == "" {
			dir = "."
		}
		file := p.String(filepath.Join(dir, name))
		next := p.Later()
		p.Call("", unix.SYS_FACCESSAT2, unix.AT_FDCWD, file, unix.X_OK, unix.AT_EACCESS).OnError(next)
		p.openDirectory(file).Then(next).Ignore()
		p.Choose(file, exec, 0).Then(found)
		p.Append(next, "", script.NoCall, 0)
	}
	p.Fail(fmt.Sprintf("process.args[0]: no executable %q in PATH=%s of the container: executable file not found in $PATH", name, search), unix.ENOENT)
	p.Append(found, "", script.NoCall, 0)
}

func (p *plan) openDirectory(file script.Blob) *script.Call {
	return p.Call("", unix.SYS_OPENAT, unix.AT_FDCWD, file, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}

func (p *plan) notDirectory(name string, file script.Blob) {
	on := p.Later()
	p.openDirectory(file).OnError(on)
	p.Fail("process.args[0]: execute "+name, unix.EISDIR)
	p.Append(on, "", script.NoCall, 0)
}
