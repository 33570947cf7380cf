package cgroup

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// A Setting is one value to write.
type Setting struct {
	File, Value string
	Field       string // of config.json, for errors
	Optional    bool   // a kernel without the file does without
	// ElseFile and ElseValue are for a kernel without File, or "": the scheduler bfq has names and a scale of its own.
	ElseFile, ElseValue string
}

// Controllers returns those that settings need.
func Controllers(settings []Setting) []string {
	var out []string
	for _, s := range settings {
		c, _, _ := strings.Cut(s.File, ".")
		if c != "cgroup" && !slices.Contains(out, c) {
			out = append(out, c)
		}
	}
	return out
}

// Settings translates linux.resources but for its devices.
func Settings(r *specs.LinuxResources) ([]Setting, error) {
	if r == nil {
		return nil, nil
	}
	var l list
	for _, f := range []func(*specs.LinuxResources) error{l.cpu, l.memory, l.io, l.others} {
		if err := f(r); err != nil {
			return nil, err
		}
	}
	return l, nil
}

type list []Setting

func (l *list) add(field, file, format string, args ...any) {
	s := Setting{File: file, Value: fmt.Sprintf(format, args...), Field: "linux.resources." + field}
	s.Optional = s.Value == "max" // without the controller there is no limit anyway
	*l = append(*l, s)
}

// orElse gives the last setting its other file.
func (l *list) orElse(file, format string, args ...any) {
	l.last().ElseFile, l.last().ElseValue = file, fmt.Sprintf(format, args...)
}

func onlyV1(field string) error {
	return fmt.Errorf("linux.resources.%s is not supported: cgroup v2 has nothing like it", field)
}

// limit is a number, or max for a negative one.
func limit(n int64) string {
	if n < 0 {
		return "max"
	}
	return strconv.FormatInt(n, 10)
}

func (l *list) cpu(r *specs.LinuxResources) error {
	c := r.CPU
	if c == nil {
		return nil
	}
	switch {
	case c.RealtimePeriod != nil && *c.RealtimePeriod != 0:
		return onlyV1("cpu.realtimePeriod")
	case c.RealtimeRuntime != nil && *c.RealtimeRuntime != 0:
		return onlyV1("cpu.realtimeRuntime")
	}
	if c.Idle != nil {
		l.add("cpu.idle", "cpu.idle", "%d", *c.Idle)
	}
	if c.Shares != nil && *c.Shares != 0 && (c.Idle == nil || *c.Idle == 0) {
		l.add("cpu.shares", "cpu.weight", "%d", Weight(*c.Shares))
		(*l)[len(*l)-1].Optional = *c.Shares == 1024 // the default, which engines write out
	}
	burst := c.Burst != nil && *c.Burst > 0
	if c.Burst != nil && !burst {
		l.add("cpu.burst", "cpu.max.burst", "0")
	}
	if c.Quota != nil || c.Period != nil {
		value := "max"
		if c.Quota != nil && *c.Quota > 0 {
			value = strconv.FormatInt(*c.Quota, 10)
		}
		if c.Period != nil && *c.Period != 0 { // else the group keeps the one it has
			value += " " + strconv.FormatUint(*c.Period, 10)
		}
		l.add("cpu.quota", "cpu.max", "%s", value)
	}
	if burst {
		l.add("cpu.burst", "cpu.max.burst", "%d", *c.Burst)
	}
	if c.Cpus != "" {
		l.add("cpu.cpus", "cpuset.cpus", "%s", c.Cpus)
	}
	if c.Mems != "" {
		l.add("cpu.mems", "cpuset.mems", "%s", c.Mems)
	}
	return nil
}

// Weight converts cpu.shares (2 to 262144, 1024 by default) to cpu.weight (1 to 10000, 100 by default) so that the ends and the
// defaults fall together, by the curve that runtimes have agreed on.
func Weight(shares uint64) uint64 {
	if shares <= 2 {
		return 1
	}
	if shares >= 262144 {
		return 10000
	}
	x := math.Log2(float64(shares))
	return uint64(math.Ceil(math.Pow(10, (x*x+125*x)/612-7.0/34)))
}

func (l *list) memory(r *specs.LinuxResources) error {
	m := r.Memory
	if m == nil {
		return nil
	}
	switch {
	case m.Kernel != nil && *m.Kernel > 0:
		return onlyV1("memory.kernel")
	case m.KernelTCP != nil && *m.KernelTCP > 0:
		return onlyV1("memory.kernelTCP")
	case m.Swappiness != nil:
		return onlyV1("memory.swappiness")
	case m.DisableOOMKiller != nil && *m.DisableOOMKiller:
		return onlyV1("memory.disableOOMKiller")
	}
	if m.Swap != nil && *m.Swap != 0 {
		// Version 1 counted memory and swap together.
		swap := *m.Swap
		if swap > 0 {
			if m.Limit == nil || *m.Limit <= 0 {
				return fmt.Errorf("linux.resources.memory.swap: needs memory.limit, which it includes")
			}
			if swap -= *m.Limit; swap < 0 {
				return fmt.Errorf("linux.resources.memory.swap: %d is below memory.limit %d, which it includes", *m.Swap, *m.Limit)
			}
		}
		l.add("memory.swap", "memory.swap.max", "%s", limit(swap))
		(*l)[len(*l)-1].Optional = swap <= 0 // a kernel without swap accounting has no swap to limit
	}
	if m.Limit != nil && *m.Limit != 0 {
		l.add("memory.limit", "memory.max", "%s", limit(*m.Limit))
	}
	if m.Reservation != nil && *m.Reservation != 0 {
		l.add("memory.reservation", "memory.low", "%s", limit(*m.Reservation))
	}
	return nil
}

func (l *list) io(r *specs.LinuxResources) error {
	b := r.BlockIO
	if b == nil {
		return nil
	}
	if b.LeafWeight != nil && *b.LeafWeight != 0 {
		return onlyV1("blockIO.leafWeight")
	}
	weight := func(w uint16) uint64 { return 1 + (uint64(w)-10)*9999/990 }
	if b.Weight != nil && *b.Weight != 0 {
		if *b.Weight < 10 || *b.Weight > 1000 {
			return fmt.Errorf("linux.resources.blockIO.weight: want 10 to 1000, found %d", *b.Weight)
		}
		l.add("blockIO.weight", "io.weight", "%d", weight(*b.Weight))
		l.orElse("io.bfq.weight", "%d", *b.Weight)
	}
	for i, d := range b.WeightDevice {
		if d.LeafWeight != nil && *d.LeafWeight != 0 {
			return onlyV1(fmt.Sprintf("blockIO.weightDevice[%d].leafWeight", i))
		}
		if d.Weight == nil || *d.Weight < 10 || *d.Weight > 1000 {
			return fmt.Errorf("linux.resources.blockIO.weightDevice[%d].weight: want 10 to 1000", i)
		}
		l.add(fmt.Sprintf("blockIO.weightDevice[%d]", i), "io.weight", "%d:%d %d", d.Major, d.Minor, weight(*d.Weight))
		l.orElse("io.bfq.weight", "%d:%d %d", d.Major, d.Minor, *d.Weight)
	}
	for _, t := range []struct {
		field, key string
		devices    []specs.LinuxThrottleDevice
	}{{"throttleReadBpsDevice", "rbps", b.ThrottleReadBpsDevice}, {"throttleWriteBpsDevice", "wbps", b.ThrottleWriteBpsDevice},
		{"throttleReadIOPSDevice", "riops", b.ThrottleReadIOPSDevice}, {"throttleWriteIOPSDevice", "wiops", b.ThrottleWriteIOPSDevice}} {
		for i, d := range t.devices {
			value := "max"
			if d.Rate > 0 {
				value = strconv.FormatUint(d.Rate, 10)
			}
			l.add(fmt.Sprintf("blockIO.%s[%d]", t.field, i), "io.max", "%d:%d %s=%s", d.Major, d.Minor, t.key, value)
		}
	}
	return nil
}

func (l *list) others(r *specs.LinuxResources) error {
	l.pids(r.Pids)
	for i, h := range r.HugepageLimits {
		field, err := pageSize(i, h)
		if err != nil {
			return err
		}
		l.add(field, "hugetlb."+h.Pagesize+".max", "%d", h.Limit)
		l.add(field, "hugetlb."+h.Pagesize+".rsvd.max", "%d", h.Limit)
		(*l)[len(*l)-1].Optional = true
	}
	l.rdma(r)
	if n := r.Network; n != nil && (n.ClassID != nil && *n.ClassID != 0 || len(n.Priorities) > 0) {
		return onlyV1("network")
	}
	// Last, as they are the most exact.
	for _, file := range slices.Sorted(maps.Keys(r.Unified)) {
		if file == "" || strings.ContainsAny(file, "/\x00") || !strings.Contains(file, ".") || strings.HasPrefix(file, "cgroup.") || strings.HasPrefix(file, ".") {
			return fmt.Errorf("linux.resources.unified: %q is no file of a controller", file)
		}
		for value := range strings.Lines(r.Unified[file]) {
			l.add("unified."+file, file, "%s", strings.TrimSuffix(value, "\n"))
		}
	}
	return nil
}

// pids is the same on both versions. No process can be born in a group whose limit is 0: that means no other than the first one.
func (l *list) pids(p *specs.LinuxPids) {
	if p == nil || p.Limit == nil {
		return
	}
	n := *p.Limit
	if n == 0 {
		n = 1
	}
	l.add("pids.limit", "pids.max", "%s", limit(n))
}

// pageSize checks the size, which becomes a part of file names, and returns the field's name.
func pageSize(i int, h specs.LinuxHugepageLimit) (string, error) {
	field := fmt.Sprintf("hugepageLimits[%d]", i)
	if h.Pagesize == "" || strings.ContainsAny(h.Pagesize, "/.\x00") {
		return "", fmt.Errorf("linux.resources.%s.pageSize: found %q", field, h.Pagesize)
	}
	return field, nil
}

// rdma is the same on both versions.
func (l *list) rdma(r *specs.LinuxResources) {
	for _, dev := range slices.Sorted(maps.Keys(r.Rdma)) {
		value := dev
		if h := r.Rdma[dev].HcaHandles; h != nil {
			value += fmt.Sprintf(" hca_handle=%d", *h)
		}
		if o := r.Rdma[dev].HcaObjects; o != nil {
			value += fmt.Sprintf(" hca_object=%d", *o)
		}
		l.add("rdma."+dev, "rdma.max", "%s", value)
	}
}
