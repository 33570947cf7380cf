package seccomp

import (
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// restricted are the calls a container does not get, by reason. A capability behind a line gives them back to a
// container that holds it: the capability is then the guard. All other calls of the table are allowed.
const restricted = `
# kernel code and the machine itself
create_module delete_module finit_module init_module get_kernel_syms query_module : CAP_SYS_MODULE
kexec_file_load kexec_load reboot : CAP_SYS_BOOT
ioperm iopl : CAP_SYS_RAWIO
acct : CAP_SYS_PACCT
syslog : CAP_SYSLOG
vhangup : CAP_SYS_TTY_CONFIG
clock_settime clock_settime64 settimeofday stime : CAP_SYS_TIME
swapoff swapon quotactl quotactl_fd nfsservctl lookup_dcookie : CAP_SYS_ADMIN
# mounts, roots and namespaces
mount umount umount2 move_mount open_tree open_tree_attr fsopen fsconfig fsmount fspick mount_setattr pivot_root : CAP_SYS_ADMIN
statmount listmount listns setns unshare sethostname setdomainname : CAP_SYS_ADMIN
chroot : CAP_SYS_CHROOT
open_by_handle_at : CAP_DAC_READ_SEARCH
# other processes
kcmp pidfd_getfd process_madvise : CAP_SYS_PTRACE
get_mempolicy mbind migrate_pages move_pages set_mempolicy set_mempolicy_home_node : CAP_SYS_NICE
# large parts of the kernel with a record of holes
bpf : CAP_BPF
perf_event_open : CAP_PERFMON
fanotify_init : CAP_SYS_ADMIN
io_uring_enter io_uring_register io_uring_setup :
userfaultfd :
add_key keyctl request_key :
# obsolete, or hiding another call behind an argument
_sysctl sysfs ustat uselib afs_syscall tuxcall security getpmsg putpmsg vserver idle bdflush break ftime gtty lock mpx prof profil stty ulimit vm86 vm86old :
socketcall :
# allowed below, under conditions
clone clone3 personality socket :
`

// namespaceFlags are the CLONE_NEW* flags that clone(2) takes.
const namespaceFlags = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC |
	unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET

// Default returns the section for a container with the given bounding set: an allow-list with EPERM as the default.
// It has the effect of docker's for programs: no namespaces, mounts, modules, clock, keyring, bpf, perf or io_uring.
func Default(bounding []string) *specs.LinuxSeccomp {
	denied := make(map[string]bool)
	for line := range strings.Lines(restricted) {
		names, capability, ok := strings.Cut(line, ":")
		if !ok || strings.HasPrefix(line, "#") {
			continue
		}
		if c := strings.TrimSpace(capability); c != "" && slices.Contains(bounding, c) {
			continue
		}
		for _, n := range strings.Fields(names) {
			denied[n] = true
		}
	}
	var allowed []string
	for _, table := range [][]call{callsAMD64[:], calls386[:]} {
		for _, c := range table {
			if !denied[c.name] {
				allowed = append(allowed, c.name)
			}
		}
	}
	slices.Sort(allowed)
	allow := func(name string, args ...specs.LinuxSeccompArg) specs.LinuxSyscall {
		return specs.LinuxSyscall{Names: []string{name}, Action: specs.ActAllow, Args: args}
	}
	eperm := uint(unix.EPERM)
	rules := []specs.LinuxSyscall{
		{Names: slices.Compact(allowed), Action: specs.ActAllow},
		// A vsock reaches the hypervisor past every network namespace. The kernel looks at the low word only, so a
		// comparison of the whole argument could be got around.
		{Names: []string{"socket"}, Action: specs.ActErrno, ErrnoRet: &eperm, Args: []specs.LinuxSeccompArg{
			{Index: 0, Value: 0xffffffff, ValueTwo: unix.AF_VSOCK, Op: specs.OpMaskedEqual}}},
		allow("socket"),
	}
	// PER_LINUX, PER_LINUX32, each also with UNAME26, and the query.
	for _, v := range []uint64{0, 8, 0x20000, 0x20008, 0xffffffff} {
		rules = append(rules, allow("personality", specs.LinuxSeccompArg{Index: 0, Value: v, Op: specs.OpEqualTo}))
	}
	if slices.Contains(bounding, "CAP_SYS_ADMIN") {
		rules = append(rules, allow("clone"), allow("clone3"))
	} else {
		enosys := uint(unix.ENOSYS)
		rules = append(rules,
			allow("clone", specs.LinuxSeccompArg{Index: 0, Value: namespaceFlags, ValueTwo: 0, Op: specs.OpMaskedEqual}),
			// clone3 hides its flags in memory, where a filter cannot look; libraries fall back to clone on ENOSYS.
			specs.LinuxSyscall{Names: []string{"clone3"}, Action: specs.ActErrno, ErrnoRet: &enosys})
	}
	return &specs.LinuxSeccomp{
		DefaultAction:   specs.ActErrno,
		DefaultErrnoRet: &eperm,
		Architectures:   []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32},
		Syscalls:        rules,
	}
}
