package seccomp

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// run executes the filter on struct seccomp_data as the kernel does.
func run(t *testing.T, p []unix.SockFilter, arch, nr uint32, args [6]uint64) uint32 {
	t.Helper()
	data := binary.LittleEndian.AppendUint32(nil, nr)
	data = binary.LittleEndian.AppendUint32(data, arch)
	data = binary.LittleEndian.AppendUint64(data, 0)
	for _, a := range args {
		data = binary.LittleEndian.AppendUint64(data, a)
	}
	var acc uint32
	for pc := 0; pc < len(p); pc++ {
		in := p[pc]
		branch := func(yes bool) {
			if yes {
				pc += int(in.Jt)
			} else {
				pc += int(in.Jf)
			}
		}
		switch in.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			acc = binary.LittleEndian.Uint32(data[in.K:])
		case unix.BPF_RET | unix.BPF_K:
			return in.K
		case unix.BPF_JMP | unix.BPF_JA:
			pc += int(in.K)
		case unix.BPF_ALU | unix.BPF_AND | unix.BPF_K:
			acc &= in.K
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			branch(acc == in.K)
		case unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K:
			branch(acc > in.K)
		case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
			branch(acc >= in.K)
		default:
			t.Fatalf("instruction %d: code %#x", pc, in.Code)
		}
	}
	t.Fatal("the filter ends without a return")
	return 0
}

const (
	allow  = unix.SECCOMP_RET_ALLOW
	eperm  = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	enosys = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
)

func number(t *testing.T, calls []call, name string) uint32 {
	t.Helper()
	for _, c := range calls {
		if c.name == name {
			return c.nr
		}
	}
	t.Fatalf("no call %s", name)
	return 0
}

func TestDefault(t *testing.T) {
	docker := []string{"CAP_CHOWN", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT"}
	for _, c := range []struct {
		caps []string
		call string
		args [6]uint64
		want uint32
	}{
		{docker, "read", [6]uint64{}, allow},
		{docker, "execve", [6]uint64{}, allow},
		{docker, "mount", [6]uint64{}, eperm},
		{docker, "bpf", [6]uint64{}, eperm},
		{docker, "keyctl", [6]uint64{}, eperm},
		{docker, "io_uring_setup", [6]uint64{}, eperm},
		{docker, "unshare", [6]uint64{}, eperm},
		{docker, "chroot", [6]uint64{}, allow},
		{nil, "chroot", [6]uint64{}, eperm},
		{[]string{"CAP_SYS_ADMIN"}, "mount", [6]uint64{}, allow},
		{[]string{"CAP_SYS_ADMIN"}, "clone3", [6]uint64{}, allow},
		{docker, "clone3", [6]uint64{}, enosys},
		{docker, "clone", [6]uint64{uint64(unix.SIGCHLD)}, allow},
		{docker, "clone", [6]uint64{unix.CLONE_VM | unix.CLONE_THREAD}, allow},
		{docker, "clone", [6]uint64{unix.CLONE_NEWUSER}, eperm},
		{docker, "socket", [6]uint64{unix.AF_INET}, allow},
		{docker, "socket", [6]uint64{unix.AF_VSOCK}, eperm},
		{docker, "socket", [6]uint64{7<<32 | unix.AF_VSOCK}, eperm}, // the kernel ignores the high word
		{docker, "personality", [6]uint64{8}, allow},
		{docker, "personality", [6]uint64{0x40000}, eperm}, // ADDR_NO_RANDOMIZE
	} {
		p, err := Compile(Default(c.caps))
		if err != nil {
			t.Fatal(err)
		}
		if got := run(t, p.Filter, unix.AUDIT_ARCH_X86_64, number(t, callsAMD64[:], c.call), c.args); got != c.want {
			t.Errorf("%s%x with %v: got %#x, want %#x", c.call, c.args, c.caps, got, c.want)
		}
	}
}

// TestEveryNumber compares the tree with a plain reading of the section for every number of both architectures.
func TestEveryNumber(t *testing.T) {
	s := Default(nil)
	p, err := Compile(s)
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Filter) > 700 {
		t.Errorf("%d instructions", len(p.Filter))
	}
	for _, a := range []struct {
		audit uint32
		calls []call
	}{{unix.AUDIT_ARCH_X86_64, callsAMD64[:]}, {unix.AUDIT_ARCH_I386, calls386[:]}} {
		names := make(map[uint32]string)
		last := uint32(0)
		for _, c := range a.calls {
			names[c.nr] = c.name
		}
		for _, r := range s.Syscalls {
			for _, n := range r.Names {
				for _, c := range a.calls {
					if c.name == n {
						last = max(last, c.nr)
					}
				}
			}
		}
		for nr := range uint32(1200) {
			want := eperm
			if nr > last {
				want = enosys
			}
			for _, r := range s.Syscalls {
				for _, n := range r.Names {
					if n == names[nr] && n != "socket" && n != "clone" && n != "personality" {
						want = allow
						if r.Action == specs.ActErrno {
							want = enosys
						}
					}
				}
			}
			switch names[nr] {
			case "socket", "clone", "personality": // with arguments of zero
				want = allow
			}
			if got := run(t, p.Filter, a.audit, nr, [6]uint64{}); got != want {
				t.Errorf("arch %#x call %d (%s): got %#x, want %#x", a.audit, nr, names[nr], got, want)
			}
		}
	}
	if got := run(t, p.Filter, unix.AUDIT_ARCH_X86_64, x32Bit|1, [6]uint64{}); got != enosys {
		t.Errorf("x32: got %#x", got)
	}
	if got := run(t, p.Filter, unix.AUDIT_ARCH_AARCH64, 1, [6]uint64{}); got != unix.SECCOMP_RET_KILL_PROCESS {
		t.Errorf("foreign architecture: got %#x", got)
	}
}

func TestOperators(t *testing.T) {
	values := []uint64{0, 1, 5, 0xffffffff, 1 << 32, 1<<32 | 5, 7<<32 | 1, ^uint64(0)}
	ops := map[specs.LinuxSeccompOperator]func(x, v, w uint64) bool{
		specs.OpEqualTo:      func(x, v, _ uint64) bool { return x == v },
		specs.OpNotEqual:     func(x, v, _ uint64) bool { return x != v },
		specs.OpLessThan:     func(x, v, _ uint64) bool { return x < v },
		specs.OpLessEqual:    func(x, v, _ uint64) bool { return x <= v },
		specs.OpGreaterThan:  func(x, v, _ uint64) bool { return x > v },
		specs.OpGreaterEqual: func(x, v, _ uint64) bool { return x >= v },
		specs.OpMaskedEqual:  func(x, v, w uint64) bool { return x&v == w },
	}
	r := rand.New(rand.NewPCG(1, 2))
	pick := func() uint64 { return values[r.IntN(len(values))] }
	for op, holds := range ops {
		for range 200 {
			a := specs.LinuxSeccompArg{Index: uint(r.IntN(6)), Value: pick(), ValueTwo: pick(), Op: op}
			b := specs.LinuxSeccompArg{Index: (a.Index + 1) % 6, Value: 5, Op: specs.OpNotEqual}
			p, err := Compile(&specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{
				{Names: []string{"write"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{a, b}}}})
			if err != nil {
				t.Fatal(err)
			}
			var args [6]uint64
			args[a.Index], args[b.Index] = pick(), pick()
			want := eperm
			if holds(args[a.Index], a.Value, a.ValueTwo) && args[b.Index] != 5 {
				want = allow
			}
			if got := run(t, p.Filter, unix.AUDIT_ARCH_X86_64, 1, args); got != want {
				t.Fatalf("%+v and %+v of %x: got %#x, want %#x", a, b, args, got, want)
			}
		}
	}
}

func TestCompileRefuses(t *testing.T) {
	big := uint(5000)
	rule := func(r specs.LinuxSyscall) *specs.LinuxSeccomp {
		r.Names = []string{"read"}
		return &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{r}}
	}
	for _, c := range []struct {
		s    *specs.LinuxSeccomp
		want string
	}{
		{&specs.LinuxSeccomp{DefaultAction: "SCMP_ACT_SHRUG"}, "linux.seccomp.defaultAction"},
		{&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Flags: []specs.LinuxSeccompFlag{"X"}}, "linux.seccomp.flags[0]"},
		{&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchS390}}, "linux.seccomp.architectures[0]"},
		{rule(specs.LinuxSyscall{Action: "SCMP_ACT_SHRUG"}), "linux.seccomp.syscalls[0].action"},
		{rule(specs.LinuxSyscall{Action: specs.ActNotify}), "linux.seccomp.listenerPath"},
		{&specs.LinuxSeccomp{DefaultAction: specs.ActNotify, ListenerPath: "/x"}, "linux.seccomp.defaultAction: SCMP_ACT_NOTIFY cannot be used for write"},
		{&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, ListenerPath: "/x", Syscalls: []specs.LinuxSyscall{
			{Names: []string{"mkdir"}, Action: specs.ActNotify}, {Names: []string{"read", "write"}, Action: specs.ActNotify}}}, "linux.seccomp.syscalls[1]: SCMP_ACT_NOTIFY cannot be used for write"},
		{rule(specs.LinuxSyscall{Action: specs.ActErrno, ErrnoRet: &big}), "errnoRet"},
		{rule(specs.LinuxSyscall{Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Index: 6, Op: specs.OpEqualTo}}}), "args[0].index"},
		{rule(specs.LinuxSyscall{Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Op: "SCMP_CMP_CUTE"}}}), "args[0].op"},
	} {
		if _, err := Compile(c.s); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error %v, want %q in it", err, c.want)
		}
	}
}

// TestIdleListener: a path for a listener that no call needs is nothing to connect to.
func TestIdleListener(t *testing.T) {
	p, err := Compile(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, ListenerPath: "/not/there"})
	if err != nil || p.Flags&unix.SECCOMP_FILTER_FLAG_NEW_LISTENER != 0 {
		t.Errorf("%+v %v", p, err)
	}
}

// TestKernel installs the default filter in a child, which then sees keyctl refused and getpid allowed.
func TestKernel(t *testing.T) {
	if os.Getenv("SECCOMP_CHILD") != "" {
		child(t)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestKernel$", "-test.v")
	cmd.Env = append(os.Environ(), "SECCOMP_CHILD=1")
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("filter works")) {
		t.Fatalf("child: %v\n%s", err, out)
	}
}

func child(t *testing.T) {
	runtime.LockOSThread()
	p, err := Compile(Default(nil))
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	prog := unix.SockFprog{Len: uint16(len(p.Filter)), Filter: &p.Filter[0]}
	if _, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&prog))); errno != 0 {
		t.Fatalf("the kernel refuses the program: %v", errno)
	}
	if _, err := unix.KeyctlInt(unix.KEYCTL_GET_KEYRING_ID, 0, 0, 0, 0); err != unix.EPERM {
		t.Errorf("keyctl: %v, want EPERM", err)
	}
	if unix.Getpid() <= 0 {
		t.Error("getpid")
	}
	t.Log("filter works")
}
