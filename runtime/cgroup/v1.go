package cgroup

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// SettingsV1 is Settings for version 1, with the devices.
func SettingsV1(r *specs.LinuxResources) ([]Setting, error) {
	if r == nil {
		return nil, nil
	}
	if len(r.Unified) > 0 {
		return nil, fmt.Errorf("linux.resources.unified is not supported: this host has cgroup v1")
	}
	var l list
	l.cpuV1(r.CPU)
	l.memoryV1(r.Memory)
	l.blkio(r.BlockIO)
	l.pids(r.Pids)
	for i, h := range r.HugepageLimits {
		field, err := pageSize(i, h)
		if err != nil {
			return nil, err
		}
		l.add(field, "hugetlb."+h.Pagesize+".limit_in_bytes", "%d", h.Limit)
		l.add(field, "hugetlb."+h.Pagesize+".rsvd.limit_in_bytes", "%d", h.Limit)
		l.last().Optional = true
	}
	l.rdma(r)
	if n := r.Network; n != nil {
		if n.ClassID != nil && *n.ClassID != 0 {
			l.add("network.classID", "net_cls.classid", "%d", *n.ClassID)
		}
		for i, p := range n.Priorities {
			l.add(fmt.Sprintf("network.priorities[%d]", i), "net_prio.ifpriomap", "%s %d", p.Name, p.Priority)
		}
	}
	if err := l.devices(r.Devices); err != nil {
		return nil, err
	}
	return l, nil
}

func (l *list) last() *Setting { return &(*l)[len(*l)-1] }

func (l *list) cpuV1(c *specs.LinuxCPU) {
	if c == nil {
		return
	}
	if c.Idle != nil {
		l.add("cpu.idle", "cpu.idle", "%d", *c.Idle)
	}
	if c.Shares != nil && *c.Shares != 0 && (c.Idle == nil || *c.Idle == 0) {
		l.add("cpu.shares", "cpu.shares", "%d", *c.Shares)
		l.last().Optional = *c.Shares == 1024
	}
	if c.Period != nil && *c.Period != 0 {
		l.add("cpu.period", "cpu.cfs_period_us", "%d", *c.Period)
	}
	if c.Quota != nil && *c.Quota != 0 {
		l.add("cpu.quota", "cpu.cfs_quota_us", "%d", *c.Quota)
		l.last().Optional = *c.Quota < 0
	}
	if c.Burst != nil {
		l.add("cpu.burst", "cpu.cfs_burst_us", "%d", *c.Burst)
	}
	if c.RealtimePeriod != nil && *c.RealtimePeriod != 0 {
		l.add("cpu.realtimePeriod", "cpu.rt_period_us", "%d", *c.RealtimePeriod)
	}
	if c.RealtimeRuntime != nil && *c.RealtimeRuntime != 0 {
		l.add("cpu.realtimeRuntime", "cpu.rt_runtime_us", "%d", *c.RealtimeRuntime)
	}
	if c.Cpus != "" {
		l.add("cpu.cpus", "cpuset.cpus", "%s", c.Cpus)
	}
	if c.Mems != "" {
		l.add("cpu.mems", "cpuset.mems", "%s", c.Mems)
	}
}

func (l *list) memoryV1(m *specs.LinuxMemory) {
	if m == nil {
		return
	}
	bytes := func(field, file string, n *int64) {
		if n != nil && *n != 0 {
			l.add("memory."+field, "memory."+file, "%d", *n)
			l.last().Optional = *n < 0 // nothing to limit
		}
	}
	bytes("limit", "limit_in_bytes", m.Limit)
	swap := m.Swap
	if swap == nil && m.Limit != nil && *m.Limit < 0 {
		swap = m.Limit // version 1 counts memory and swap together: memory is not unlimited where these are not
	}
	bytes("swap", "memsw.limit_in_bytes", swap)
	bytes("reservation", "soft_limit_in_bytes", m.Reservation)
	bytes("kernel", "kmem.limit_in_bytes", m.Kernel)
	bytes("kernelTCP", "kmem.tcp.limit_in_bytes", m.KernelTCP)
	if m.Swappiness != nil {
		l.add("memory.swappiness", "memory.swappiness", "%d", *m.Swappiness)
	}
	if m.DisableOOMKiller != nil && *m.DisableOOMKiller {
		l.add("memory.disableOOMKiller", "memory.oom_control", "1")
	}
	if m.UseHierarchy != nil && *m.UseHierarchy {
		l.add("memory.useHierarchy", "memory.use_hierarchy", "1")
		l.last().Optional = true // kernels that know nothing else have lost the file
	}
}

func (l *list) blkio(b *specs.LinuxBlockIO) {
	if b == nil {
		return
	}
	number := func(field, file string, w *uint16) {
		if w != nil && *w != 0 {
			l.add("blockIO."+field, "blkio."+file, "%d", *w)
		}
	}
	number("weight", "weight", b.Weight)
	if len(*l) > 0 && l.last().File == "blkio.weight" {
		l.orElse("blkio.bfq.weight", "%d", *b.Weight)
	}
	number("leafWeight", "leaf_weight", b.LeafWeight)
	for i, d := range b.WeightDevice {
		if d.Weight != nil && *d.Weight != 0 {
			l.add(fmt.Sprintf("blockIO.weightDevice[%d].weight", i), "blkio.weight_device", "%d:%d %d", d.Major, d.Minor, *d.Weight)
			l.orElse("blkio.bfq.weight_device", "%d:%d %d", d.Major, d.Minor, *d.Weight)
		}
		if d.LeafWeight != nil && *d.LeafWeight != 0 {
			l.add(fmt.Sprintf("blockIO.weightDevice[%d].leafWeight", i), "blkio.leaf_weight_device", "%d:%d %d", d.Major, d.Minor, *d.LeafWeight)
		}
	}
	for _, t := range []struct {
		field, file string
		devices     []specs.LinuxThrottleDevice
	}{{"throttleReadBpsDevice", "read_bps", b.ThrottleReadBpsDevice}, {"throttleWriteBpsDevice", "write_bps", b.ThrottleWriteBpsDevice},
		{"throttleReadIOPSDevice", "read_iops", b.ThrottleReadIOPSDevice}, {"throttleWriteIOPSDevice", "write_iops", b.ThrottleWriteIOPSDevice}} {
		for i, d := range t.devices {
			l.add(fmt.Sprintf("blockIO.%s[%d]", t.field, i), "blkio.throttle."+t.file+"_device", "%d:%d %d", d.Major, d.Minor, d.Rate)
		}
	}
}

// devices writes the rules one after the other, as the last that matches decides on version 1 as well, and then those that every
// container has.
func (l *list) devices(rules []specs.LinuxDeviceCgroup) error {
	if len(rules) == 0 {
		return nil
	}
	for i, r := range rules {
		if _, err := ruleCode(r); err != nil {
			return fmt.Errorf("linux.resources.devices[%d]: %w", i, err)
		}
		l.device(fmt.Sprintf("devices[%d]", i), r)
	}
	for _, d := range alwaysAllowed {
		l.device("devices", specs.LinuxDeviceCgroup{Allow: true, Type: d.kind, Major: &d.major, Minor: &d.minor, Access: d.access})
	}
	return nil
}

func (l *list) device(field string, r specs.LinuxDeviceCgroup) {
	file, kind, access := "devices.deny", r.Type, r.Access
	if r.Allow {
		file = "devices.allow"
	}
	if kind == "" {
		kind = "a"
	}
	if access == "" {
		access = "rwm"
	}
	number := func(n *int64) string {
		if n == nil || *n == -1 {
			return "*"
		}
		return strconv.FormatInt(*n, 10)
	}
	l.add(field, file, "%s %s:%s %s", kind, number(r.Major), number(r.Minor), access)
}

// HasDevices reports whether devices are decided about by files of version 1.
func (g Group) HasDevices() bool { return g.V1["devices"] != "" }

// WithoutDevices drops what a host without that controller of version 1 has no files for.
func WithoutDevices(settings []Setting) []Setting {
	return slices.DeleteFunc(slices.Clone(settings), func(s Setting) bool { return strings.HasPrefix(s.File, "devices.") })
}
