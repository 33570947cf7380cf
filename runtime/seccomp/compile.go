package seccomp

import (
	"fmt"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

type call struct {
	name string
	nr   uint32
}

// x32Bit marks the calls of the x32 ABI, which share AUDIT_ARCH_X86_64 (arch/x86/include/uapi/asm/unistd.h).
const x32Bit = 0x40000000

// A Program is a compiled filter with the flags to install it.
type Program struct {
	Filter []unix.SockFilter
	Flags  uint // SECCOMP_FILTER_FLAG_*
}

// Compile translates a section of config.json; errors name the field below linux.seccomp.
func Compile(s *specs.LinuxSeccomp) (*Program, error) {
	p := new(Program)
	for i, f := range s.Flags {
		switch f {
		case specs.LinuxSeccompFlagLog:
			p.Flags |= unix.SECCOMP_FILTER_FLAG_LOG
		case specs.LinuxSeccompFlagSpecAllow:
			p.Flags |= unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
		case specs.LinuxSeccompFlagWaitKillableRecv:
			p.Flags |= unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
		case "SECCOMP_FILTER_FLAG_TSYNC": // one thread exists when the filter is installed
		default:
			return nil, fmt.Errorf("linux.seccomp.flags[%d]: %q is not supported", i, f)
		}
	}
	def, err := action(s.DefaultAction, s.DefaultErrnoRet)
	if err != nil {
		return nil, fmt.Errorf("linux.seccomp.defaultAction: %w", err)
	}
	rules, err := parseRules(s.Syscalls)
	if err != nil {
		return nil, err
	}
	notify := def == unix.SECCOMP_RET_USER_NOTIF
	for _, list := range rules {
		for _, r := range list {
			notify = notify || r.ret == unix.SECCOMP_RET_USER_NOTIF
		}
	}
	if notify != (s.ListenerPath != "") {
		return nil, fmt.Errorf("linux.seccomp.listenerPath: wanted with SCMP_ACT_NOTIFY, and only then")
	}
	if notify {
		p.Flags |= unix.SECCOMP_FILTER_FLAG_NEW_LISTENER
	} else {
		p.Flags &^= unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV // it says how a listener is waited for
	}
	i386 := false
	for i, a := range s.Architectures {
		switch a {
		case specs.ArchX86_64, specs.ArchX32:
		case specs.ArchX86:
			i386 = true
		default:
			return nil, fmt.Errorf("linux.seccomp.architectures[%d]: %q is not supported on this machine", i, a)
		}
	}
	p.Filter = append(p.Filter, load(offArch))
	p.Filter = appendArch(p.Filter, unix.AUDIT_ARCH_X86_64, def, rules, callsAMD64[:])
	if i386 {
		p.Filter = appendArch(p.Filter, unix.AUDIT_ARCH_I386, def, rules, calls386[:])
	}
	p.Filter = append(p.Filter, ret(unix.SECCOMP_RET_KILL_PROCESS))
	if len(p.Filter) > unix.BPF_MAXINSNS {
		return nil, fmt.Errorf("linux.seccomp: %d instructions, the kernel takes %d: use fewer conditions", len(p.Filter), unix.BPF_MAXINSNS)
	}
	return p, nil
}

// action returns the SECCOMP_RET_* value of an action.
func action(a specs.LinuxSeccompAction, errnoRet *uint) (uint32, error) {
	data := uint(unix.EPERM)
	if errnoRet != nil {
		data = *errnoRet
	}
	if data > 0xfff { // MAX_ERRNO of the kernel is 4095
		return 0, fmt.Errorf("errnoRet: want at most 4095, found %d", data)
	}
	switch a {
	case specs.ActAllow:
		return unix.SECCOMP_RET_ALLOW, nil
	case specs.ActErrno:
		return unix.SECCOMP_RET_ERRNO | uint32(data), nil
	case specs.ActTrace:
		return unix.SECCOMP_RET_TRACE | uint32(data), nil
	case specs.ActKill, specs.ActKillThread:
		return unix.SECCOMP_RET_KILL_THREAD, nil
	case specs.ActKillProcess:
		return unix.SECCOMP_RET_KILL_PROCESS, nil
	case specs.ActTrap:
		return unix.SECCOMP_RET_TRAP, nil
	case specs.ActLog:
		return unix.SECCOMP_RET_LOG, nil
	case specs.ActNotify:
		return unix.SECCOMP_RET_USER_NOTIF, nil
	}
	return 0, fmt.Errorf("%q is not supported", a)
}

// A rule is one action for one call under conditions that must all hold.
type rule struct {
	ret  uint32
	args []specs.LinuxSeccompArg
}

// parseRules indexes the rules by name, in the order of the file.
func parseRules(list []specs.LinuxSyscall) (map[string][]rule, error) {
	n := 0
	for _, s := range list {
		n += len(s.Names)
	}
	out := make(map[string][]rule, n)
	room := make([]rule, 0, n) // most names have one rule
	for i, s := range list {
		field := fmt.Sprintf("linux.seccomp.syscalls[%d]", i)
		r, err := action(s.Action, s.ErrnoRet)
		if err != nil {
			return nil, fmt.Errorf("%s.action: %w", field, err)
		}
		seen := make(map[uint]bool)
		alternatives := false
		for j, a := range s.Args {
			if a.Index > 5 {
				return nil, fmt.Errorf("%s.args[%d].index: want 0 to 5, found %d", field, j, a.Index)
			}
			if compare(a) == nil {
				return nil, fmt.Errorf("%s.args[%d].op: %q is not supported", field, j, a.Op)
			}
			alternatives = alternatives || seen[a.Index]
			seen[a.Index] = true
		}
		for _, name := range s.Names {
			if before := out[name]; !alternatives && before == nil {
				room = append(room, rule{r, s.Args})
				out[name] = room[len(room)-1 : len(room) : len(room)]
				continue
			} else if !alternatives {
				out[name] = append(before, rule{r, s.Args})
				continue
			}
			for _, a := range s.Args {
				out[name] = append(out[name], rule{r, []specs.LinuxSeccompArg{a}})
			}
		}
	}
	return out, nil
}

// A span is a range of numbers with one answer: rules tried in order, then ret.
type span struct {
	from  uint32 // to the next span's from
	rules []rule
	ret   uint32
}

// appendArch appends the test for one architecture; the accumulator holds the architecture before and after.
func appendArch(p []unix.SockFilter, audit, def uint32, rules map[string][]rule, calls []call) []unix.SockFilter {
	code := append([]unix.SockFilter{load(offNr)}, search(spans(def, rules, calls))...)
	return append(append(p, jump(unix.BPF_JEQ, audit, 1, 0), goTo(uint32(len(code)))), code...)
}

func spans(def uint32, rules map[string][]rule, calls []call) []span {
	type answer struct {
		nr    uint32
		rules []rule
		ret   uint32
	}
	as := make([]answer, 0, len(calls))
	last := uint32(0)
	for _, c := range calls {
		rs := rules[c.name]
		if len(rs) == 0 {
			continue
		}
		last = max(last, c.nr)
		a := answer{c.nr, nil, def}
		for _, r := range rs {
			if len(r.args) == 0 {
				a.ret = r.ret
				break
			}
			a.rules = append(a.rules, r)
		}
		as = append(as, a)
	}
	slices.SortFunc(as, func(a, b answer) int { return int(a.nr) - int(b.nr) })
	enosys := uint32(unix.SECCOMP_RET_ERRNO | unix.ENOSYS)
	newer := def
	if def&unix.SECCOMP_RET_ACTION_FULL == unix.SECCOMP_RET_ERRNO {
		newer = enosys
	}
	out := make([]span, 0, 2*len(as)+3)
	add := func(s span) {
		if n := len(out); n > 0 && out[n-1].from == s.from {
			out = out[:n-1]
		}
		if n := len(out); n > 0 && len(out[n-1].rules)+len(s.rules) == 0 && out[n-1].ret == s.ret {
			return
		}
		out = append(out, s)
	}
	add(span{0, nil, def})
	for _, a := range as {
		add(span{a.nr, a.rules, a.ret})
		add(span{a.nr + 1, nil, def})
	}
	if last > 0 {
		add(span{last + 1, nil, newer})
	}
	add(span{x32Bit, nil, enosys})
	return out
}

// search is a binary search for the accumulator's value; every path through it ends in a return.
func search(s []span) []unix.SockFilter {
	if len(s) == 1 {
		return answerCode(s[0])
	}
	mid := len(s) / 2
	left, right := search(s[:mid]), search(s[mid:])
	var code []unix.SockFilter
	if len(left) <= 255 {
		code = append(code, jump(unix.BPF_JGE, s[mid].from, uint8(len(left)), 0))
	} else {
		code = append(code, jump(unix.BPF_JGE, s[mid].from, 0, 1), goTo(uint32(len(left))))
	}
	return append(append(code, left...), right...)
}

func answerCode(s span) []unix.SockFilter {
	var code []unix.SockFilter
	for _, r := range s.rules {
		var body []unix.SockFilter
		for _, a := range r.args {
			c := compare(a)
			resolve(c, held)
			body = append(body, c...)
		}
		body = append(body, ret(r.ret))
		resolve(body, failed)
		code = append(code, body...)
	}
	return append(code, ret(s.ret))
}

// resolve makes the jumps to target end behind code.
func resolve(code []unix.SockFilter, target uint8) {
	for i := range code {
		end := uint8(len(code) - i - 1)
		if code[i].Jt == target {
			code[i].Jt = end
		}
		if code[i].Jf == target {
			code[i].Jf = end
		}
	}
}
