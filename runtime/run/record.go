package run

import (
	"fmt"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/runtime/spec"
)

// dress gives the child what only its parent may set, and what is easier from outside.
func (k *creation) dress() error {
	pid := k.child.proc.Pid
	if a := k.spec.Process.OOMScoreAdj; a != nil {
		if err := setFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), strconv.Itoa(*a)); err != nil {
			return fmt.Errorf("process.oomScoreAdj: %w", err)
		}
	}
	if o := k.spec.Linux.TimeOffsets; len(o) > 0 {
		text := ""
		for clock, t := range o {
			text += fmt.Sprintf("%s %d %d\n", clock, t.Secs, t.Nanosecs)
		}
		if err := setFile(fmt.Sprintf("/proc/%d/timens_offsets", pid), text); err != nil {
			return fmt.Errorf("linux.timeOffsets: %w", err)
		}
	}
	if r := k.spec.Linux.IntelRdt; r != nil {
		top, err := resctrl()
		if err != nil {
			return err
		}
		if k.c.Rdt, k.c.RdtMade, err = joinRdt(top, k.c.ID, r, pid); err != nil {
			return err
		}
	}
	return setLimits(pid, k.spec.Process)
}

// setLimits sets the resource limits of a process.
func setLimits(pid int, p *specs.Process) error {
	limits, err := spec.Rlimits(p.Rlimits)
	if err != nil {
		return err
	}
	for i, l := range limits {
		if err := unix.Prlimit(pid, l.Resource, &unix.Rlimit{Cur: l.Soft, Max: l.Hard}, nil); err != nil {
			return fmt.Errorf("process.rlimits[%d] (%s %d %d): %w", i, p.Rlimits[i].Type, l.Soft, l.Hard, err)
		}
	}
	return nil
}

// record writes the state and the pid file: from now on the container is created.
func (k *creation) record() error {
	c := k.c
	var err error
	c.Pid = k.child.proc.Pid
	if c.Started, err = startTicks(c.Pid); err != nil {
		return fmt.Errorf("create %s: %w", c.ID, err)
	}
	if err := c.writeState(); err != nil {
		return fmt.Errorf("create %s: %w", c.ID, err)
	}
	if k.options.PidFile != "" {
		if err := writeFile(k.options.PidFile, []byte(strconv.Itoa(c.Pid))); err != nil {
			return fmt.Errorf("write pid file: %w", err)
		}
	}
	return nil
}
