package cgroup

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// alwaysAllowed are the devices that every container has (config-linux.md, "Default Devices"), and the making of nodes that cannot be
// opened.
var alwaysAllowed = [...]struct {
	kind         string
	major, minor int64 // -1: all
	access       string
}{
	{"c", -1, -1, "m"}, {"b", -1, -1, "m"},
	{"c", 1, 3, "rwm"}, {"c", 1, 5, "rwm"}, {"c", 1, 7, "rwm"}, {"c", 1, 8, "rwm"}, {"c", 1, 9, "rwm"}, {"c", 5, 0, "rwm"},
	{"c", 5, 2, "rwm"}, {"c", 136, -1, "rwm"},
}

// An instruction is struct bpf_insn (linux/bpf.h).
type instruction struct {
	code, regs uint8
	off        int16
	imm        int32
}

// Registers and codes of the program. The kernel passes struct bpf_cgroup_dev_ctx {access << 16 | type, major, minor} in r1.
const (
	rResult, rScratch, rType, rAccess, rMajor, rMinor = 0, 1, 2, 3, 4, 5

	opLoad32 = unix.BPF_LDX | unix.BPF_MEM | unix.BPF_W
	opAnd    = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K
	opShift  = unix.BPF_ALU | unix.BPF_RSH | unix.BPF_K
	opMov    = unix.BPF_ALU64 | unix.BPF_MOV | unix.BPF_K
	opMovReg = unix.BPF_ALU | unix.BPF_MOV | unix.BPF_X
	opNotEq  = unix.BPF_JMP | unix.BPF_JNE | unix.BPF_K
	opNotReg = unix.BPF_JMP | unix.BPF_JNE | unix.BPF_X
	opEq     = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	opExit   = unix.BPF_JMP | unix.BPF_EXIT
)

// DeviceProgram compiles rules to an eBPF program. The last rule that matches decides, and without one the answer is no. A rule that
// allows matches accesses that it covers completely, a rule that denies those that it touches.
func DeviceProgram(rules []specs.LinuxDeviceCgroup) ([]byte, error) {
	code := []instruction{
		{opLoad32, rScratch<<4 | rType, 0, 0},
		{opMovReg, rType<<4 | rAccess, 0, 0},
		{opAnd, rType, 0, 0xffff},
		{opShift, rAccess, 0, 16},
		{opLoad32, rScratch<<4 | rMajor, 4, 0},
		{opLoad32, rScratch<<4 | rMinor, 8, 0},
	}
	for i := len(alwaysAllowed) - 1; i >= 0; i-- {
		d := alwaysAllowed[i]
		block, err := ruleCode(specs.LinuxDeviceCgroup{Allow: true, Type: d.kind, Major: &d.major, Minor: &d.minor, Access: d.access})
		if err != nil {
			return nil, err
		}
		code = append(code, block...)
	}
	for i := range rules {
		if _, err := ruleCode(rules[i]); err != nil {
			return nil, fmt.Errorf("linux.resources.devices[%d]: %w", i, err)
		}
	}
	end := false
	for i := len(rules) - 1; i >= 0; i-- {
		block, err := ruleCode(rules[i])
		if err != nil {
			return nil, fmt.Errorf("linux.resources.devices[%d]: %w", i, err)
		}
		code = append(code, block...)
		if end = len(block) == 2; end {
			break // it matches everything, and the kernel refuses code that cannot be reached
		}
	}
	if !end {
		code = append(code, instruction{opMov, rResult, 0, 0}, instruction{code: opExit})
	}
	var b []byte
	for _, c := range code {
		b = append(b, c.code, c.regs)
		b = binary.NativeEndian.AppendUint16(b, uint16(c.off))
		b = binary.NativeEndian.AppendUint32(b, uint32(c.imm))
	}
	return b, nil
}

// ruleCode ends with the rule's answer; whatever does not match jumps behind it.
func ruleCode(r specs.LinuxDeviceCgroup) ([]instruction, error) {
	var code []instruction
	switch r.Type {
	case "", "a":
	case "b":
		code = append(code, instruction{opNotEq, rType, 0, unix.BPF_DEVCG_DEV_BLOCK})
	case "c":
		code = append(code, instruction{opNotEq, rType, 0, unix.BPF_DEVCG_DEV_CHAR})
	default:
		return nil, fmt.Errorf("type: want a, b or c, found %q", r.Type)
	}
	mask := int32(0)
	for _, c := range r.Access {
		bit, ok := map[rune]int32{'r': unix.BPF_DEVCG_ACC_READ, 'w': unix.BPF_DEVCG_ACC_WRITE, 'm': unix.BPF_DEVCG_ACC_MKNOD}[c]
		if !ok {
			return nil, fmt.Errorf("access: want letters of rwm, found %q", r.Access)
		}
		mask |= bit
	}
	if all := int32(unix.BPF_DEVCG_ACC_READ | unix.BPF_DEVCG_ACC_WRITE | unix.BPF_DEVCG_ACC_MKNOD); mask != all && r.Access != "" {
		code = append(code, instruction{opMovReg, rAccess<<4 | rScratch, 0, 0}, instruction{opAnd, rScratch, 0, mask})
		if r.Allow {
			code = append(code, instruction{opNotReg, rAccess<<4 | rScratch, 0, 0})
		} else {
			code = append(code, instruction{opEq, rScratch, 0, 0})
		}
	}
	for _, n := range []struct {
		value *int64
		reg   uint8
		field string
	}{{r.Major, rMajor, "major"}, {r.Minor, rMinor, "minor"}} {
		if n.value == nil || *n.value == -1 {
			continue
		}
		if *n.value < 0 || *n.value > 1<<31-1 {
			return nil, fmt.Errorf("%s: found %d", n.field, *n.value)
		}
		code = append(code, instruction{opNotEq, n.reg, 0, int32(*n.value)})
	}
	answer := int32(0)
	if r.Allow {
		answer = 1
	}
	code = append(code, instruction{opMov, rResult, 0, answer}, instruction{code: opExit})
	for i := range code {
		if c := code[i].code; c == opNotEq || c == opNotReg || c == opEq {
			code[i].off = int16(len(code) - i - 1)
		}
	}
	return code, nil
}

// Commands of bpf(2) and their attributes, as far as they are used.
type progLoad struct {
	kind, count uint32
	code        uint64
	license     uint64
	logLevel    uint32
	logSize     uint32
	logBuf      uint64
	version     uint32
	flags       uint32
}

type progAttach struct {
	target, program uint32
	kind, flags     uint32
	replace         uint32
}

// SetDevices loads a program and attaches it to a group on version 2, that of Group.Open.
func SetDevices(dir *os.File, program []byte) error {
	if dir == nil {
		return errors.New("linux.resources.devices: this host has neither cgroup v2 nor the devices controller of version 1")
	}
	license := []byte("Apache-2.0\x00")
	load := progLoad{kind: unix.BPF_PROG_TYPE_CGROUP_DEVICE, count: uint32(len(program) / 8),
		code: uint64(uintptr(unsafe.Pointer(&program[0]))), license: uint64(uintptr(unsafe.Pointer(&license[0])))}
	prog, err := bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(&load), unsafe.Sizeof(load))
	runtime.KeepAlive(license)
	runtime.KeepAlive(program)
	if err != nil {
		return fmt.Errorf("linux.resources.devices: load program: %w", err)
	}
	defer unix.Close(prog)
	attach := progAttach{target: uint32(dir.Fd()), program: uint32(prog), kind: unix.BPF_CGROUP_DEVICE, flags: unix.BPF_F_ALLOW_MULTI}
	if _, err := bpf(unix.BPF_PROG_ATTACH, unsafe.Pointer(&attach), unsafe.Sizeof(attach)); err != nil {
		return fmt.Errorf("linux.resources.devices: attach program to %s: %w", dir.Name(), err)
	}
	return nil
}

func bpf(cmd int, attr unsafe.Pointer, size uintptr) (int, error) {
	for range 10 {
		r, _, e := unix.Syscall(unix.SYS_BPF, uintptr(cmd), uintptr(attr), size)
		if e == 0 {
			return int(r), nil
		}
		if e != unix.EAGAIN && e != unix.EINTR { // the verifier was interrupted by a signal
			return -1, e
		}
	}
	return -1, unix.EAGAIN
}
