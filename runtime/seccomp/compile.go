package seccomp

import (
	"fmt"
	"slices"
	"strings"

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
	groups, err := parseRules(s.Syscalls)
	if err != nil {
		return nil, err
	}
	notify, err := notifies(def, groups)
	if err != nil {
		return nil, err
	}
	if notify && s.ListenerPath == "" {
		return nil, fmt.Errorf("linux.seccomp.listenerPath: wanted with SCMP_ACT_NOTIFY")
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
	p.Filter = appendArch(p.Filter, unix.AUDIT_ARCH_X86_64, def, groups, callsAMD64[:])
	if i386 {
		p.Filter = appendArch(p.Filter, unix.AUDIT_ARCH_I386, def, groups, calls386[:])
	}
	p.Filter = append(p.Filter, ret(unix.SECCOMP_RET_KILL_PROCESS))
	if len(p.Filter) > unix.BPF_MAXINSNS {
		return nil, fmt.Errorf("linux.seccomp: %d instructions, the kernel takes %d: use fewer conditions", len(p.Filter), unix.BPF_MAXINSNS)
	}
	return p, nil
}

// notifies reports whether the filter has a listener. It is by write that the process behind the filter tells who is to take the listener,
// so that one must not wait for it.
func notifies(def uint32, groups []group) (bool, error) {
	yes, writes := def == unix.SECCOMP_RET_USER_NOTIF, def != unix.SECCOMP_RET_USER_NOTIF
	for i, g := range groups {
		for _, r := range g.rules {
			notify, write := r.ret == unix.SECCOMP_RET_USER_NOTIF, slices.Contains(g.names, "write")
			if notify && write {
				return false, fmt.Errorf("linux.seccomp.syscalls[%d]: SCMP_ACT_NOTIFY cannot be used for write: the listener is handed over by it", i)
			}
			yes = yes || notify && len(g.names) > 0
			writes = writes || write && len(r.args) == 0
		}
	}
	if !writes {
		return false, fmt.Errorf("linux.seccomp.defaultAction: SCMP_ACT_NOTIFY cannot be used for write: the listener is handed over by it")
	}
	return yes, nil
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

// A group is an entry of the file: the names it is for, and its rules, of which one must match.
type group struct {
	names []string
	rules []rule
}

// parseRules checks the entries. One that has several conditions on the same argument means any of its conditions.
func parseRules(list []specs.LinuxSyscall) ([]group, error) {
	out := make([]group, len(list))
	for i, s := range list {
		field := func() string { return fmt.Sprintf("linux.seccomp.syscalls[%d]", i) }
		r, err := action(s.Action, s.ErrnoRet)
		if err != nil {
			return nil, fmt.Errorf("%s.action: %w", field(), err)
		}
		seen := [6]bool{}
		alternatives := false
		for j, a := range s.Args {
			if a.Index > 5 {
				return nil, fmt.Errorf("%s.args[%d].index: want 0 to 5, found %d", field(), j, a.Index)
			}
			if compare(a) == nil {
				return nil, fmt.Errorf("%s.args[%d].op: %q is not supported", field(), j, a.Op)
			}
			alternatives = alternatives || seen[a.Index]
			seen[a.Index] = true
		}
		out[i].names = s.Names
		if !alternatives {
			out[i].rules = []rule{{r, s.Args}}
			continue
		}
		for j := range s.Args {
			out[i].rules = append(out[i].rules, rule{r, s.Args[j : j+1]})
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
func appendArch(p []unix.SockFilter, audit, def uint32, groups []group, calls []call) []unix.SockFilter {
	code := search(nil, spans(def, groups, calls))
	code = append(code, load(offNr))
	slices.Reverse(code)
	return append(append(p, jump(unix.BPF_JEQ, audit, 1, 0), goTo(uint32(len(code)))), code...)
}

// byNumber returns the rules of each call, in the order of the file. Names that this architecture does not have are for another.
func byNumber(groups []group, calls []call) [][]rule {
	last := uint32(0)
	for _, c := range calls {
		last = max(last, c.nr)
	}
	out := make([][]rule, last+1)
	at := 0
	for _, g := range groups {
		for _, name := range g.names {
			// Lists are sorted as a rule: the next name is not far behind the last one.
			if i, ok := find(calls, name, at); ok {
				at = i
				if nr := calls[i].nr; out[nr] == nil {
					out[nr] = g.rules[:len(g.rules):len(g.rules)]
				} else {
					out[nr] = append(out[nr], g.rules...)
				}
			}
		}
	}
	return out
}

// find finds a name in a sorted table, first in the few places behind at.
func find(calls []call, name string, at int) (int, bool) {
	for i := at; i < min(at+8, len(calls)); i++ {
		if calls[i].name == name {
			return i, true
		}
	}
	return slices.BinarySearchFunc(calls, name, func(c call, name string) int { return strings.Compare(c.name, name) })
}

func spans(def uint32, groups []group, calls []call) []span {
	numbers := byNumber(groups, calls)
	enosys := uint32(unix.SECCOMP_RET_ERRNO | unix.ENOSYS)
	newer := def
	if def&unix.SECCOMP_RET_ACTION_FULL == unix.SECCOMP_RET_ERRNO {
		newer = enosys
	}
	out := make([]span, 0, 256)
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
	last := uint32(0)
	for nr, rules := range numbers {
		if len(rules) == 0 {
			continue
		}
		last = uint32(nr)
		s := span{last, rules, def}
		for i, r := range rules {
			if len(r.args) == 0 { // those behind it are never tried
				s.rules, s.ret = rules[:i], r.ret
				break
			}
		}
		add(s)
		add(span{last + 1, nil, def})
	}
	if last > 0 {
		add(span{last + 1, nil, newer})
	}
	add(span{x32Bit, nil, enosys})
	return out
}

// search appends a binary search for the accumulator's value; every path through it ends in a return. The code is appended from its end to
// its beginning, as a jump has to know how long what it skips is.
func search(code []unix.SockFilter, s []span) []unix.SockFilter {
	if len(s) == 1 {
		return answerCode(code, s[0])
	}
	mid := len(s) / 2
	code = search(code, s[mid:])
	before := len(code)
	code = search(code, s[:mid])
	skip := len(code) - before
	if skip <= 255 {
		return append(code, jump(unix.BPF_JGE, s[mid].from, uint8(skip), 0))
	}
	return append(code, goTo(uint32(skip)), jump(unix.BPF_JGE, s[mid].from, 0, 1))
}

// answerCode appends the code of an answer, backwards as search.
func answerCode(code []unix.SockFilter, s span) []unix.SockFilter {
	code = append(code, ret(s.ret))
	for _, r := range slices.Backward(s.rules) {
		var body []unix.SockFilter
		for _, a := range r.args {
			c := compare(a)
			resolve(c, held)
			body = append(body, c...)
		}
		body = append(body, ret(r.ret))
		resolve(body, failed)
		slices.Reverse(body)
		code = append(code, body...)
	}
	return code
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
