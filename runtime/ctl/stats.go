package ctl

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/proa-os/proa/runtime/cgroup"
	"github.com/proa-os/proa/runtime/flagset"
	"github.com/proa-os/proa/runtime/store"
)

// watchVerbs look at containers that run.
func watchVerbs() []verb {
	return []verb{
		{name: "stats", args: "[NAME...]", what: "show what containers take", max: -1, lister: "containers", json: true, setup: func(s *flagset.Set) action {
			f := &statsFlags{interval: time.Second}
			s.Bool(&f.once, "no-stream", "once")
			return f.run
		}, more: "Numbers are those of the unit's cgroup: processor time of all processes, memory with the files that are kept in it."},
		{name: "top", args: "NAME", what: "list a container's processes", min: 1, max: 1, lister: "containers", json: true, setup: plain(top)},
	}
}

// usage is what a container takes at one moment.
type usage struct {
	Name     string  `json:"name"`
	CPU      float64 `json:"cpu_percent"` // of one processor, since the look before
	CPUTime  float64 `json:"cpu_seconds"`
	Memory   uint64  `json:"memory"`
	Limit    uint64  `json:"memory_limit,omitempty"` // 0: none
	Read     uint64  `json:"read"`
	Written  uint64  `json:"written"`
	Received uint64  `json:"received"`
	Sent     uint64  `json:"sent"`
	Pids     uint64  `json:"pids"`
}

type statsFlags struct {
	once     bool
	interval time.Duration
}

func (f *statsFlags) run(ctx context.Context, c *call) error {
	before := map[string]usage{}
	last := time.Now()
	for round := 0; ; round++ {
		now, err := c.usages()
		if err != nil {
			return err
		}
		took := time.Since(last).Seconds()
		last = time.Now()
		for i, u := range now {
			if b, ok := before[u.Name]; ok && took > 0 {
				now[i].CPU = max(0, (u.CPUTime-b.CPUTime)/took*100)
			}
			before[u.Name] = u
		}
		if round > 0 {
			if err := c.showUsage(now, f.once); err != nil || f.once {
				return err
			}
		}
		wait := f.interval
		if round == 0 {
			wait /= 2 // the first look has nothing to compare with
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil
		}
	}
}

// usages are those of the named containers, or of all that run.
func (c *call) usages() ([]usage, error) {
	var ks []*store.Container
	for _, name := range c.args {
		k, err := c.container(name)
		if err != nil {
			return nil, err
		}
		ks = append(ks, k)
	}
	if len(c.args) == 0 {
		var err error
		if ks, err = c.store.Containers(); err != nil {
			return nil, err
		}
	}
	out := []usage{}
	for _, k := range ks {
		st, err := c.running(k)
		if err != nil {
			if len(c.args) > 0 {
				return nil, err
			}
			continue
		}
		g, err := cgroup.Of(st.Pid)
		if err != nil {
			continue // it ends at this moment
		}
		u := readUsage(g.Dir)
		u.Name = k.Name
		if k.Network != "host" {
			u.Received, u.Sent = traffic(st.Pid)
		}
		out = append(out, u)
	}
	return out, nil
}

// readUsage reads the files of a cgroup. Those that are not there, the controller being off, count as zero.
func readUsage(dir string) (u usage) {
	number := func(file, key string) uint64 {
		n, err := cgroupNumber(filepath.Join(dir, file), key)
		if err != nil {
			return 0
		}
		return n
	}
	u.CPUTime = float64(number("cpu.stat", "usage_usec")) / 1e6
	u.Memory, u.Limit, u.Pids = number("memory.current", ""), number("memory.max", ""), number("pids.current", "")
	b, err := os.ReadFile(filepath.Join(dir, "io.stat"))
	if err != nil {
		return u
	}
	for _, f := range strings.Fields(string(b)) {
		key, value, _ := strings.Cut(f, "=")
		n, err := strconv.ParseUint(value, 10, 64)
		switch {
		case err != nil:
		case key == "rbytes":
			u.Read += n
		case key == "wbytes":
			u.Written += n
		}
	}
	return u
}

// cgroupNumber reads a file of one number, or of lines with a key and one. "max" is an error.
func cgroupNumber(file, key string) (uint64, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		switch {
		case key == "" && len(f) == 1:
			return strconv.ParseUint(f[0], 10, 64)
		case len(f) == 2 && f[0] == key:
			return strconv.ParseUint(f[1], 10, 64)
		}
	}
	return 0, fmt.Errorf("%s has no %s", file, key)
}

// traffic sums what came and went over the interfaces of a process's network namespace, but loopback.
func traffic(pid int) (received, sent uint64) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", pid))
	if err != nil {
		return 0, 0
	}
	for line := range strings.Lines(string(b)) {
		name, rest, ok := strings.Cut(line, ":")
		f := strings.Fields(rest)
		if !ok || strings.TrimSpace(name) == "lo" || len(f) < 9 {
			continue
		}
		r, _ := strconv.ParseUint(f[0], 10, 64)
		s, _ := strconv.ParseUint(f[8], 10, 64)
		received, sent = received+r, sent+s
	}
	return received, sent
}

func (c *call) showUsage(list []usage, once bool) error {
	if c.asJSON {
		return c.json(list)
	}
	if !once {
		fmt.Fprint(c.Out, "\x1b[H\x1b[2J") // a screen of its own each time
	}
	return c.table("NAME\tCPU\tMEMORY\tLIMIT\tREAD/WRITTEN\tRECEIVED/SENT\tPROCESSES", func(w io.Writer) {
		for _, u := range list {
			limit := "-"
			if u.Limit > 0 {
				limit = size(int64(u.Limit))
			}
			fmt.Fprintf(w, "%s\t%.1f%%\t%s\t%s\t%s/%s\t%s/%s\t%d\n", u.Name, u.CPU, size(int64(u.Memory)), limit, size(int64(u.Read)), size(int64(u.Written)),
				size(int64(u.Received)), size(int64(u.Sent)), u.Pids)
		}
	})
}

// process is one of a container's.
type process struct {
	Pid     int     `json:"pid"`
	Inside  int     `json:"pid_inside"`
	UID     int     `json:"uid"` // on the machine
	CPUTime float64 `json:"cpu_seconds"`
	RSS     uint64  `json:"rss"`
	Command string  `json:"command"`
}

func top(_ context.Context, c *call) error {
	k, err := c.container(c.args[0])
	if err != nil {
		return err
	}
	st, err := c.running(k)
	if err != nil {
		return err
	}
	list, err := processes(st.Pid)
	if err != nil {
		return err
	}
	if c.asJSON {
		return c.json(list)
	}
	return c.table("PID\tINSIDE\tUID\tTIME\tMEMORY\tCOMMAND", func(w io.Writer) {
		for _, p := range list {
			fmt.Fprintf(w, "%d\t%d\t%d\t%s\t%s\t%s\n", p.Pid, p.Inside, p.UID, time.Duration(p.CPUTime*1e9).Round(10*time.Millisecond), size(int64(p.RSS)), p.Command)
		}
	})
}

// processes are those in the pid namespace of process pid. What the workload says of itself is made printable.
func processes(pid int) ([]process, error) {
	space, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid))
	if err != nil {
		return nil, err
	}
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	out := []process{}
	for _, dir := range dirs {
		if s, err := os.Readlink(dir + "/ns/pid"); err != nil || s != space {
			continue
		}
		if p, ok := readProcess(dir); ok {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b process) int { return cmp.Compare(a.Inside, b.Inside) })
	return out, nil
}

func readProcess(dir string) (p process, ok bool) {
	status, err := os.ReadFile(dir + "/status")
	if err != nil {
		return p, false // it has ended
	}
	p.Pid, _ = strconv.Atoi(filepath.Base(dir))
	for line := range strings.Lines(string(status)) {
		key, value, _ := strings.Cut(line, ":")
		f := strings.Fields(value)
		switch {
		case len(f) == 0:
		case key == "Name":
			p.Command = "[" + printable(f[0]) + "]"
		case key == "Uid":
			p.UID, _ = strconv.Atoi(f[0])
		case key == "NSpid":
			p.Inside, _ = strconv.Atoi(f[len(f)-1])
		case key == "VmRSS":
			n, _ := strconv.ParseUint(f[0], 10, 64)
			p.RSS = n << 10
		}
	}
	if b, err := os.ReadFile(dir + "/cmdline"); err == nil && len(b) > 0 {
		p.Command = strings.ReplaceAll(printable(string(bytes.ReplaceAll(bytes.TrimRight(b, "\x00"), []byte{0}, []byte{' '}))), "\n", " ")
	}
	if b, err := os.ReadFile(dir + "/schedstat"); err == nil {
		if f := strings.Fields(string(b)); len(f) > 0 {
			n, _ := strconv.ParseUint(f[0], 10, 64)
			p.CPUTime = float64(n) / 1e9
		}
	}
	return p, true
}
