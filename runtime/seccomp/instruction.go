package seccomp

import (
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Offsets in struct seccomp_data (linux/seccomp.h); an argument is two 32-bit words, low word first.
const (
	offNr   = 0
	offArch = 4
	offArgs = 16
)

// Jump offsets in the code of one condition that answerCode replaces. No condition is longer than 8 instructions and
// no rule longer than 49, so these cannot be real ones.
const (
	held   = 254 // the condition holds: to behind it
	failed = 255 // the condition fails: to behind the rule
)

func load(off uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: off}
}

func ret(k uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k}
}

func goTo(off uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JA, K: off}
}

func jump(op uint16, k uint32, jt, jf uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | op | unix.BPF_K, Jt: jt, Jf: jf, K: k}
}

func and(k uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: k}
}

// compare returns the code of one condition on a 64-bit argument, or nil for an operator it does not know.
func compare(a specs.LinuxSeccompArg) []unix.SockFilter {
	low, high := load(offArgs+8*uint32(a.Index)), load(offArgs+8*uint32(a.Index)+4)
	vl, vh := uint32(a.Value), uint32(a.Value>>32)
	switch a.Op {
	case specs.OpEqualTo:
		return []unix.SockFilter{high, jump(unix.BPF_JEQ, vh, 0, failed), low, jump(unix.BPF_JEQ, vl, 0, failed)}
	case specs.OpNotEqual:
		return []unix.SockFilter{high, jump(unix.BPF_JEQ, vh, 0, held), low, jump(unix.BPF_JEQ, vl, failed, 0)}
	case specs.OpMaskedEqual:
		wl, wh := uint32(a.ValueTwo), uint32(a.ValueTwo>>32)
		return []unix.SockFilter{
			high, and(vh), jump(unix.BPF_JEQ, wh, 0, failed),
			low, and(vl), jump(unix.BPF_JEQ, wl, 0, failed),
		}
	case specs.OpGreaterEqual, specs.OpGreaterThan:
		op := uint16(unix.BPF_JGE)
		if a.Op == specs.OpGreaterThan {
			op = unix.BPF_JGT
		}
		return []unix.SockFilter{
			high, jump(unix.BPF_JGT, vh, held, 0), jump(unix.BPF_JEQ, vh, 0, failed),
			low, jump(op, vl, 0, failed),
		}
	case specs.OpLessThan, specs.OpLessEqual:
		op := uint16(unix.BPF_JGE)
		if a.Op == specs.OpLessEqual {
			op = unix.BPF_JGT
		}
		return []unix.SockFilter{
			high, jump(unix.BPF_JGT, vh, failed, 0), jump(unix.BPF_JEQ, vh, 0, held),
			low, jump(op, vl, failed, 0),
		}
	}
	return nil
}
