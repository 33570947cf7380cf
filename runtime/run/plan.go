package run

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/runtime/script"
	"github.com/proa-os/proa/runtime/seccomp"
	"github.com/proa-os/proa/runtime/spec"
)

// A plan writes the script of a child: the calls that only a process inside the new namespaces can make, and in the end its
// transformation into the workload.
type plan struct {
	*script.Builder
	spec    *specs.Spec
	process *specs.Process
	filter  *seccomp.Program
	fds     fds
	flags   uint64       // CLONE_NEW* of the namespaces that are new
	userNS  bool         // in a user namespace, a new one or one that is joined
	listen  bool         // wait for Start
	follow  bool         // be killed when the caller ends
	labels  *script.Call // a /proc of the container, for the labels of security modules; nil without any
	program string       // to execute instead of the first argument
	warn    func(string) // Options.Warn
}

// begin is common to all children.
func (p *plan) begin(id string, keyring bool) error {
	mask := p.Words(0)
	p.Call("unblock signals", unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, mask, 0, 8)
	// Nobody in the container may look into this process, whose memory and descriptors are the caller's.
	p.Call("hide from the container", unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	p.Call("make session", unix.SYS_SETSID)
	if keyring {
		// The caller's session keyring is not the container's business. A kernel without keys has none to keep.
		p.Call("make keyring", unix.SYS_KEYCTL, unix.KEYCTL_JOIN_SESSION_KEYRING, "_ses."+id).Ignore()
	}
	return p.defaultSignals()
}

// allProcessors undoes what processors the caller is held to, where linux.resources says which the container is to use: a process keeps its
// own mask in a cpuset. Without that a unit's CPUAffinity= holds also here.
func (p *plan) allProcessors() {
	r := p.spec.Linux.Resources
	if r == nil || r.CPU == nil || r.CPU.Cpus == "" {
		return
	}
	all := make([]uint64, 128)
	for i := range all {
		all[i] = ^uint64(0)
	}
	p.Call("linux.resources.cpu.cpus: use them", unix.SYS_SCHED_SETAFFINITY, 0, 8*len(all), p.Words(all...))
}

// enterUserNS waits for the maps and becomes root in the new user namespace.
func (p *plan) enterUserNS() {
	p.await(p.fds.talk)
	p.becomeRoot()
}

func (p *plan) becomeRoot() {
	p.Call("become root of the user namespace", unix.SYS_SETRESGID, 0, 0, 0)
	p.Call("become root of the user namespace", unix.SYS_SETRESUID, 0, 0, 0)
}

// await waits for a byte from the caller, and ends if it is gone.
func (p *plan) await(fd int) {
	p.Call("the caller is gone", unix.SYS_READ, fd, p.Words(0), 1).ZeroFails()
}

func (p *plan) sayReady() {
	p.Call("talk to the caller", unix.SYS_WRITE, p.fds.talk, p.Bytes(kind(script.KindReady)), 4)
}

func kind(k uint32) []byte { return binary.NativeEndian.AppendUint32(nil, k) }

// namespaces sets up what belongs to namespaces and not to files.
func (p *plan) namespaces() {
	if p.flags&unix.CLONE_NEWNET != 0 {
		ifr := p.Bytes(loopbackUp())
		s := p.Call("bring up lo", unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		p.Call("bring up lo", unix.SYS_IOCTL, s, unix.SIOCSIFFLAGS, ifr)
		p.Call("bring up lo", unix.SYS_CLOSE, s)
	}
	if n := p.spec.Hostname; n != "" {
		p.Call(fmt.Sprintf("hostname %q", n), unix.SYS_SETHOSTNAME, n, len(n))
	}
	if n := p.spec.Domainname; n != "" {
		p.Call(fmt.Sprintf("domainname %q", n), unix.SYS_SETDOMAINNAME, n, len(n))
	}
}

// loopbackUp is struct ifreq for SIOCSIFFLAGS (netdevice(7)).
func loopbackUp() []byte {
	b := make([]byte, 40)
	copy(b, "lo")
	binary.NativeEndian.PutUint16(b[16:], unix.IFF_UP|unix.IFF_RUNNING)
	return b
}

// ofNamespace reports whether an instance of the file system shows what belongs to a namespace of the process that makes it.
func ofNamespace(fstype string) bool {
	switch fstype {
	case "proc", "sysfs", "mqueue", "cgroup2":
		return true
	}
	return false
}

// maxMade is how many mounts fit in one message (SCM_MAX_FD of the kernel is 253).
const maxMade = 250

// fileSystems makes the file systems, sends them to the caller, which attaches them, and waits until it has done so and moved this
// process to its new root. Some have to be made inside; the others come along, as /proc/self/mountinfo has mounts in the order of their
// making, which is to be that of config.json. It returns the indices of the mounts, in the order sent.
func (p *plan) fileSystems(mounts []spec.Mount) []int {
	var made []int
	var results []*script.Call
	for i, m := range mounts {
		if m.Type == "bind" || len(made) >= maxMade && !ofNamespace(m.Type) && !p.userNS {
			continue
		}
		made = append(made, i)
		results = append(results, p.fileSystem(fmt.Sprintf("mounts[%d] (%s): ", i, m.Destination), m))
	}
	p.sysctls()
	p.Call("enter /", unix.SYS_CHDIR, "/")
	if len(results) > maxMade {
		p.Fail(fmt.Sprintf("mounts: want at most %d file systems", maxMade), unix.E2BIG)
	}
	p.send(p.fds.talk, kind(script.KindReady), results...)
	for _, r := range results {
		p.Call("close mounts", unix.SYS_CLOSE, r)
	}
	p.await(p.fds.talk)
	return made
}

// fileSystem is newMount as a script.
func (p *plan) fileSystem(label string, m spec.Mount) *script.Call {
	fs := p.Call(label+"open file system "+m.Type, unix.SYS_FSOPEN, m.Type, unix.FSOPEN_CLOEXEC)
	source := m.Source
	if source == "" {
		source = m.Type
	}
	for _, o := range append([]string{"source=" + source}, m.Data...) {
		if key, value, ok := strings.Cut(o, "="); ok {
			p.Call(label+"option "+o, unix.SYS_FSCONFIG, fs, unix.FSCONFIG_SET_STRING, key, value, 0)
		} else {
			p.Call(label+"option "+o, unix.SYS_FSCONFIG, fs, unix.FSCONFIG_SET_FLAG, o, 0, 0)
		}
	}
	p.Call(label+"make "+m.Type, unix.SYS_FSCONFIG, fs, unix.FSCONFIG_CMD_CREATE, 0, 0, 0)
	mount := p.Call(label+"mount "+m.Type, unix.SYS_FSMOUNT, fs, unix.FSMOUNT_CLOEXEC, m.Set)
	p.Call(label+"close", unix.SYS_CLOSE, fs)
	return mount
}

// send sends a message with descriptors.
func (p *plan) send(fd int, text []byte, results ...*script.Call) {
	iov := p.Words(0, uint64(len(text)))
	p.Point(iov, 0, p.Bytes(text))
	hdr := p.Words(0, 0, 0, 1, 0, 0, 0) // struct msghdr of 64-bit machines
	p.Point(hdr, 16, iov)
	if n := len(results); n > 0 {
		control := p.Bytes(unix.UnixRights(make([]int, n)...))
		p.Point(hdr, 32, control)
		p.Word(hdr, 40, uint64(unix.CmsgSpace(4*n)))
		for i, r := range results {
			p.Store(r, control, unix.CmsgLen(0)+4*i)
		}
	}
	p.Call("talk to the caller", unix.SYS_SENDMSG, fd, hdr, 0)
}

// sysctls writes through a /proc of its own, which nothing in the root file system can replace.
func (p *plan) sysctls() {
	if len(p.spec.Linux.Sysctl) == 0 {
		return
	}
	proc := p.fileSystem("linux.sysctl: ", spec.Mount{Type: "proc"})
	how := p.openHow(unix.O_WRONLY|unix.O_CLOEXEC, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS)
	for key, value := range p.spec.Linux.Sysctl {
		label := "linux.sysctl." + key
		f := p.Call(label, unix.SYS_OPENAT2, proc, "sys/"+strings.ReplaceAll(key, ".", "/"), how, unix.SizeofOpenHow)
		p.Call(label, unix.SYS_WRITE, f, value, len(value))
		p.Call(label, unix.SYS_CLOSE, f)
	}
	p.Call("linux.sysctl", unix.SYS_CLOSE, proc)
}

// openHow is struct open_how of openat2(2).
func (p *plan) openHow(flags, resolve uint64) script.Blob { return p.Words(flags, 0, resolve) }

// schedule applies what the scheduler is told. It comes while the process may still do anything.
func (p *plan) schedule() error {
	a, err := spec.Schedule(p.process.Scheduler)
	if err != nil {
		return err
	}
	if a != nil {
		attr := binary.NativeEndian.AppendUint32(nil, a.Size)
		attr = binary.NativeEndian.AppendUint32(attr, a.Policy)
		attr = binary.NativeEndian.AppendUint64(attr, a.Flags)
		attr = binary.NativeEndian.AppendUint32(attr, uint32(a.Nice))
		attr = binary.NativeEndian.AppendUint32(attr, a.Priority)
		for _, v := range []uint64{a.Runtime, a.Deadline, a.Period, 0} {
			attr = binary.NativeEndian.AppendUint64(attr, v)
		}
		p.Call("process.scheduler", unix.SYS_SCHED_SETATTR, 0, p.Bytes(attr), 0)
	}
	prio, ok, err := spec.IOPriority(p.process.IOPriority)
	if err != nil {
		return err
	}
	if ok {
		p.Call("process.ioPriority", unix.SYS_IOPRIO_SET, 1, 0, prio)
	}
	domain, ok, err := spec.Personality(p.spec.Linux.Personality)
	if err != nil {
		return err
	}
	if ok {
		p.Call("linux.personality", unix.SYS_PERSONALITY, domain)
	}
	m, err := spec.Memory(p.spec.Linux.MemoryPolicy)
	if err != nil {
		return err
	}
	if m != nil {
		// The kernel looks at one bit less than it is told.
		p.Call("linux.memoryPolicy", unix.SYS_SET_MEMPOLICY, m.Mode, p.Words(m.Nodes...), 64*len(m.Nodes)+1)
	}
	return nil
}
