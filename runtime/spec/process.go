package spec

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// maxBits is above any number of processors or memory nodes that the kernel can be built for.
const maxBits = 1 << 14

// Mask turns a list such as "0-3,7" into a bit mask as sched_setaffinity(2) and set_mempolicy(2) take it. The empty list is an empty mask.
func Mask(field, list string) ([]uint64, error) {
	var mask []uint64
	if list == "" {
		return nil, nil
	}
	for part := range strings.SplitSeq(list, ",") {
		from, to, both := strings.Cut(strings.TrimSpace(part), "-")
		first, err := strconv.ParseUint(from, 10, 32)
		last := first
		if err == nil && both {
			last, err = strconv.ParseUint(to, 10, 32)
		}
		if err != nil || last < first || last >= maxBits {
			return nil, fmt.Errorf("%s: want numbers and ranges as in 0-3,7, found %q", field, list)
		}
		for n := first; n <= last; n++ {
			for uint64(len(mask)) <= n/64 {
				mask = append(mask, 0)
			}
			mask[n/64] |= 1 << (n % 64)
		}
	}
	return mask, nil
}

// Affinity returns process.execCPUAffinity as masks; one that is not asked for is empty.
func Affinity(a *specs.CPUAffinity) (initial, final []uint64, err error) {
	if a == nil {
		return nil, nil, nil
	}
	if initial, err = Mask("process.execCPUAffinity.initial", a.Initial); err != nil {
		return nil, nil, err
	}
	final, err = Mask("process.execCPUAffinity.final", a.Final)
	return initial, final, err
}

// A MemoryPolicy is linux.memoryPolicy as set_mempolicy(2) takes it.
type MemoryPolicy struct {
	Mode  int // with the flags
	Nodes []uint64
}

// memoryModes are MPOL_* of linux/mempolicy.h: the index is the number.
var memoryModes = [...]specs.MemoryPolicyModeType{specs.MpolDefault, specs.MpolPreferred, specs.MpolBind, specs.MpolInterleave, specs.MpolLocal,
	specs.MpolPreferredMany, specs.MpolWeightedInterleave}

// memoryFlags are the flags of a mode.
var memoryFlags = [...]struct {
	name specs.MemoryPolicyFlagType
	bit  int
}{{specs.MpolFNumaBalancing, 1 << 13}, {specs.MpolFRelativeNodes, 1 << 14}, {specs.MpolFStaticNodes, 1 << 15}}

// MemoryPolicies returns the names of modes and flags, for features.md.
func MemoryPolicies() (modes, flags []string) {
	for _, m := range memoryModes {
		modes = append(modes, string(m))
	}
	for _, f := range memoryFlags {
		flags = append(flags, string(f.name))
	}
	return modes, flags
}

// Memory translates linux.memoryPolicy; nil without one.
func Memory(p *specs.LinuxMemoryPolicy) (*MemoryPolicy, error) {
	if p == nil {
		return nil, nil
	}
	m := &MemoryPolicy{Mode: -1}
	for i, name := range memoryModes {
		if name == p.Mode {
			m.Mode = i
		}
	}
	if m.Mode < 0 {
		return nil, fmt.Errorf("linux.memoryPolicy.mode: no mode is called %q", p.Mode)
	}
	var err error
	if m.Nodes, err = Mask("linux.memoryPolicy.nodes", p.Nodes); err != nil {
		return nil, err
	}
	switch p.Mode {
	case specs.MpolDefault, specs.MpolLocal:
		if len(m.Nodes) > 0 {
			return nil, fmt.Errorf("linux.memoryPolicy.nodes: %s takes none, found %q", p.Mode, p.Nodes)
		}
	case specs.MpolPreferred:
	default:
		if len(m.Nodes) == 0 {
			return nil, fmt.Errorf("linux.memoryPolicy.nodes: %s needs some", p.Mode)
		}
	}
	for i, name := range p.Flags {
		known := false
		for _, f := range memoryFlags {
			if f.name == name {
				m.Mode, known = m.Mode|f.bit, true
			}
		}
		if !known {
			return nil, fmt.Errorf("linux.memoryPolicy.flags[%d]: no flag is called %q", i, name)
		}
	}
	return m, nil
}

// Schedule is process.scheduler in the terms of sched_setattr(2).
func Schedule(s *specs.Scheduler) (*unix.SchedAttr, error) {
	if s == nil {
		return nil, nil
	}
	policies := map[specs.LinuxSchedulerPolicy]uint32{specs.SchedOther: unix.SCHED_NORMAL, specs.SchedFIFO: unix.SCHED_FIFO, specs.SchedRR: unix.SCHED_RR,
		specs.SchedBatch: unix.SCHED_BATCH, specs.SchedISO: 4, specs.SchedIdle: unix.SCHED_IDLE, specs.SchedDeadline: unix.SCHED_DEADLINE}
	p, ok := policies[s.Policy]
	if !ok {
		return nil, fmt.Errorf("process.scheduler.policy: no policy is called %q", s.Policy)
	}
	if s.Policy == specs.SchedDeadline {
		// As the kernel has it (sched(7)), which says EINVAL to all of it.
		switch {
		case s.Runtime < 1024:
			return nil, fmt.Errorf("process.scheduler.runtime: want at least 1024 ns for SCHED_DEADLINE, found %d", s.Runtime)
		case s.Deadline < s.Runtime:
			return nil, fmt.Errorf("process.scheduler.deadline: want at least the runtime, %d ns, found %d", s.Runtime, s.Deadline)
		case s.Period != 0 && s.Period < s.Deadline: // none is the deadline
			return nil, fmt.Errorf("process.scheduler.period: want at least the deadline, %d ns, found %d", s.Deadline, s.Period)
		}
	}
	a := &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: p, Nice: s.Nice, Priority: uint32(s.Priority), Runtime: s.Runtime, Deadline: s.Deadline, Period: s.Period}
	flags := map[specs.LinuxSchedulerFlag]uint64{specs.SchedFlagResetOnFork: 1, specs.SchedFlagReclaim: 2, specs.SchedFlagDLOverrun: 4,
		specs.SchedFlagKeepPolicy: 8, specs.SchedFlagKeepParams: 16, specs.SchedFlagUtilClampMin: 32, specs.SchedFlagUtilClampMax: 64}
	for i, f := range s.Flags {
		bit, ok := flags[f]
		if !ok {
			return nil, fmt.Errorf("process.scheduler.flags[%d]: no flag is called %q", i, f)
		}
		a.Flags |= bit
	}
	return a, nil
}

// IOPriority returns process.ioPriority as ioprio_set(2) takes it; ok is false without one.
func IOPriority(p *specs.LinuxIOPriority) (value int, ok bool, err error) {
	if p == nil {
		return 0, false, nil
	}
	class, known := map[specs.IOPriorityClass]int{specs.IOPRIO_CLASS_RT: 1, specs.IOPRIO_CLASS_BE: 2, specs.IOPRIO_CLASS_IDLE: 3}[p.Class]
	if !known {
		return 0, false, fmt.Errorf("process.ioPriority.class: no class is called %q", p.Class)
	}
	if p.Priority < 0 || p.Priority > 7 {
		return 0, false, fmt.Errorf("process.ioPriority.priority: want 0 to 7, found %d", p.Priority)
	}
	return class<<13 | p.Priority, true, nil
}

// Personality returns linux.personality as personality(2) takes it; ok is false without one.
func Personality(p *specs.LinuxPersonality) (value int, ok bool, err error) {
	if p == nil {
		return 0, false, nil
	}
	if len(p.Flags) > 0 {
		return 0, false, fmt.Errorf("linux.personality.flags: the specification defines none, found %q", p.Flags)
	}
	switch p.Domain {
	case specs.PerLinux:
		return 0, true, nil
	case specs.PerLinux32:
		return 8, true, nil
	}
	return 0, false, fmt.Errorf("linux.personality.domain: want LINUX or LINUX32, found %q", p.Domain)
}
