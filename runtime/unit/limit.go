package unit

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/proa-os/proa/runtime/cgroup"
	"github.com/proa-os/proa/runtime/store"
)

// Limits are the limits of a container of Once, as its unit has them, with what systemd has of them if there is none.
func Limits(c *store.Container) string {
	lines := resources(c)
	if c.Pids == 0 {
		lines = append(lines, "TasksMax=infinity")
	}
	return strings.Join(lines, "\n") + "\n"
}

// resources are those limits that may change while it runs.
func resources(c *store.Container) (out []string) {
	line := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	if c.Memory > 0 {
		line("MemoryMax=%d", c.Memory)
	}
	switch {
	case c.MemorySwap != nil && *c.MemorySwap >= 0:
		line("MemorySwapMax=%d", max(*c.MemorySwap-c.Memory, 0))
	case c.MemorySwap == nil && c.Memory > 0:
		line("MemorySwapMax=%d", c.Memory)
	}
	if c.CPUs > 0 {
		// systemd ignores a quota of more than two decimals, and 1.1*100 has thirteen.
		line("CPUQuota=%s%%", strconv.FormatFloat(math.Round(c.CPUs*1e4)/100, 'f', -1, 64))
	}
	if c.CPUShares > 0 {
		line("CPUWeight=%d", cgroup.Weight(uint64(c.CPUShares)))
	}
	if c.CPUSet != "" {
		line("AllowedCPUs=%s", c.CPUSet)
	}
	if c.MemSet != "" {
		line("AllowedMemoryNodes=%s", c.MemSet)
	}
	if c.MemoryLow > 0 {
		line("MemoryLow=%d", c.MemoryLow)
	}
	if c.BlkioWeight > 0 {
		line("IOWeight=%d", 1+(c.BlkioWeight-10)*9999/990)
	}
	for _, r := range c.Rates {
		line("%s=%s %d", r.Setting, escape(r.Device), r.Most)
	}
	if c.Pids > 0 {
		line("TasksMax=%d", c.Pids)
	}
	return out
}

// Settings are limits of Limits as files of a unit's cgroup. Systemd writes them when a unit starts, and when it is told of one; a unit that
// it has read anew it leaves as it was until then.
func Settings(limits string) (out []cgroup.Setting, err error) {
	for line := range strings.Lines(limits) {
		key, v, _ := strings.Cut(strings.TrimSpace(line), "=")
		s := cgroup.Setting{Field: key, Value: v}
		switch key {
		case "MemoryMax":
			s.File = "memory.max"
		case "MemorySwapMax":
			s.File, s.Optional = "memory.swap.max", true
		case "MemoryLow":
			s.File = "memory.low"
		case "CPUQuota":
			of, err := share(v)
			if err != nil {
				return nil, fmt.Errorf("%s=%s: %w", key, v, err)
			}
			s.File, s.Value = "cpu.max", fmt.Sprintf("%d 100000", of.(uint64)/10)
		case "CPUWeight":
			s.File = "cpu.weight"
		case "AllowedCPUs":
			s.File = "cpuset.cpus"
		case "AllowedMemoryNodes":
			s.File = "cpuset.mems"
		case "IOWeight":
			s.File, s.Value, s.Optional = "io.weight", "default "+v, true
		case "TasksMax":
			s.File, s.Value = "pids.max", strings.Replace(v, "infinity", "max", 1)
		default: // of single devices: they do not change
			continue
		}
		out = append(out, s)
	}
	return out, nil
}
