package oci

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/proa-os/proa/runtime/flagset"
	"github.com/proa-os/proa/runtime/run"
)

// load reads the container that is the only argument.
func (g *global) load(words []string) (*run.Container, error) {
	id, err := one(words, "ID")
	if err != nil {
		return nil, err
	}
	return g.root.Load(id)
}

func (g *global) pause(words []string, on bool) error {
	c, err := g.load(words)
	if err != nil {
		return err
	}
	return c.Pause(on)
}

// ps takes the arguments that engines pass on to ps(1) and does not use them.
func (g *global) ps(words []string, format string) error {
	c, err := g.load(words[:min(1, len(words))])
	if err != nil {
		return err
	}
	pids, err := c.Processes()
	if err != nil {
		return err
	}
	switch format {
	case "json":
		if pids == nil {
			pids = []int{}
		}
		return json.NewEncoder(g.out).Encode(pids)
	case "table":
		w := tabwriter.NewWriter(g.out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "PID\tCOMMAND")
		for _, pid := range pids {
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			if err == nil {
				fmt.Fprintf(w, "%d\t%s\n", pid, strconv.QuoteToGraphic(strings.TrimRight(strings.ReplaceAll(string(b), "\x00", " "), " ")))
			}
		}
		return w.Flush()
	}
	return fmt.Errorf("--format: want table or json, found %q", format)
}

// updateOptions are the flags of update, which are runc's.
type updateOptions struct {
	file    string
	changes []func(*specs.LinuxResources)
}

func (u *updateOptions) flags(s *flagset.Set) {
	s.String(&u.file, "r,resources", "FILE", "linux.resources as JSON; - for standard input")
	number := func(name, usage string, set func(*specs.LinuxResources, int64)) {
		s.Func(name, "N", usage, func(v string) error {
			n, err := strconv.ParseInt(v, 10, 64)
			if err != nil {
				return fmt.Errorf("want a number, found %q", v)
			}
			u.changes = append(u.changes, func(r *specs.LinuxResources) { set(r, n) })
			return nil
		})
	}
	size := func(name, usage string, set func(*specs.LinuxResources, int64)) {
		s.Func(name, "BYTES", usage, func(v string) error {
			n, err := parseSize(v)
			if err != nil {
				return err
			}
			u.changes = append(u.changes, func(r *specs.LinuxResources) { set(r, n) })
			return nil
		})
	}
	memory := func(r *specs.LinuxResources) *specs.LinuxMemory {
		if r.Memory == nil {
			r.Memory = &specs.LinuxMemory{}
		}
		return r.Memory
	}
	size("memory", "bytes, or with k, m or g behind; -1 for no limit", func(r *specs.LinuxResources, n int64) { memory(r).Limit = &n })
	size("memory-reservation", "bytes that are kept", func(r *specs.LinuxResources, n int64) { memory(r).Reservation = &n })
	size("memory-swap", "bytes of memory and swap; -1 for no limit", func(r *specs.LinuxResources, n int64) { memory(r).Swap = &n })
	number("pids-limit", "processes; -1 for no limit", func(r *specs.LinuxResources, n int64) { r.Pids = &specs.LinuxPids{Limit: &n} })
	number("blkio-weight", "weight of input and output, 10 to 1000", func(r *specs.LinuxResources, n int64) {
		w := uint16(n)
		r.BlockIO = &specs.LinuxBlockIO{Weight: &w}
	})
	u.cpuFlags(s, number)
}

// cpuFlags are those for processors.
func (u *updateOptions) cpuFlags(s *flagset.Set, number func(name, usage string, set func(*specs.LinuxResources, int64))) {
	cpu := func(r *specs.LinuxResources) *specs.LinuxCPU {
		if r.CPU == nil {
			r.CPU = &specs.LinuxCPU{}
		}
		return r.CPU
	}
	number("cpu-quota", "microseconds in a period", func(r *specs.LinuxResources, n int64) { cpu(r).Quota = &n })
	number("cpu-period", "length of a period in microseconds", func(r *specs.LinuxResources, n int64) { p := uint64(n); cpu(r).Period = &p })
	number("cpu-burst", "microseconds that may be saved up for later periods", func(r *specs.LinuxResources, n int64) { b := uint64(n); cpu(r).Burst = &b })
	number("cpu-idle", "1 for what runs only when nothing else does, 0 for all else", func(r *specs.LinuxResources, n int64) { cpu(r).Idle = &n })
	number("cpu-rt-period", "length of a period of real-time processes in microseconds", func(r *specs.LinuxResources, n int64) {
		p := uint64(n)
		cpu(r).RealtimePeriod = &p
	})
	number("cpu-rt-runtime", "microseconds of real-time processes in a period", func(r *specs.LinuxResources, n int64) { cpu(r).RealtimeRuntime = &n })
	number("cpu-share", "weight beside others, 2 to 262144", func(r *specs.LinuxResources, n int64) { p := uint64(n); cpu(r).Shares = &p })
	for _, l := range []struct {
		name, usage string
		set         func(*specs.LinuxResources, string)
	}{
		{"cpuset-cpus", "processors to use", func(r *specs.LinuxResources, v string) { cpu(r).Cpus = v }},
		{"cpuset-mems", "memory nodes to use", func(r *specs.LinuxResources, v string) { cpu(r).Mems = v }},
	} {
		s.Func(l.name, "LIST", l.usage, func(v string) error {
			u.changes = append(u.changes, func(r *specs.LinuxResources) { l.set(r, v) })
			return nil
		})
	}
}

// parseSize reads bytes: 104857600, 102400k, 100m; -1.
func parseSize(v string) (int64, error) {
	digits, shift := v, 0
	for i, letter := range []string{"k", "m", "g", "t"} {
		if d, ok := strings.CutSuffix(strings.ToLower(v), letter); ok {
			digits, shift = d, 10*(i+1)
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < -1 || n == -1 && shift > 0 || n > math.MaxInt64>>shift {
		return 0, fmt.Errorf("want bytes, with k, m, g or t behind for more of them, found %q", v)
	}
	return n << shift, nil
}

func (g *global) update(words []string, u *updateOptions) error {
	c, err := g.load(words)
	if err != nil {
		return err
	}
	r := new(specs.LinuxResources)
	if u.file != "" {
		var b []byte
		if u.file == "-" {
			b, err = io.ReadAll(io.LimitReader(os.Stdin, 1<<20))
		} else {
			b, err = os.ReadFile(u.file)
		}
		if err == nil {
			err = json.Unmarshal(b, r)
		}
		if err != nil {
			return fmt.Errorf("read resources: %w", err)
		}
	}
	for _, f := range u.changes {
		f(r)
	}
	return c.Update(r)
}
