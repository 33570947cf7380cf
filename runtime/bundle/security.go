package bundle

import (
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/proa-os/proa/runtime/seccomp"
	"github.com/proa-os/proa/runtime/store"
)

// masked and readOnly are the paths of proc and sysfs that tell of the machine, or change it.
var (
	masked = [...]string{"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware"}
	readOnly = [...]string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

// secure applies --privileged and --security-opt.
func secure(s *specs.Spec, c *store.Container) error {
	if c.Privileged {
		s.Linux.Seccomp, s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = nil, nil, nil
	}
	o := c.Security
	if o == nil {
		return nil
	}
	s.Process.ApparmorProfile = o.AppArmor
	s.Process.SelinuxLabel = o.Label
	switch {
	case o.Seccomp == "unconfined":
		s.Linux.Seccomp = nil
	case o.Seccomp != "":
		p, err := profile([]byte(o.Seccomp), s.Process.Capabilities.Bounding)
		if err != nil {
			return fmt.Errorf("seccomp profile: %w", err)
		}
		s.Linux.Seccomp = p
	}
	for _, path := range o.Unmask {
		unmasked := func(p string) bool {
			return path == "ALL" || p == path || strings.HasPrefix(p, strings.TrimSuffix(path, "*")) && strings.HasSuffix(path, "*")
		}
		s.Linux.MaskedPaths = slices.DeleteFunc(s.Linux.MaskedPaths, unmasked)
		s.Linux.ReadonlyPaths = slices.DeleteFunc(s.Linux.ReadonlyPaths, unmasked)
	}
	s.Linux.MaskedPaths = append(s.Linux.MaskedPaths, o.Mask...)
	return nil
}

// dockerProfile is a seccomp profile as docker and podman read it: the OCI's section with conditions.
type dockerProfile struct {
	specs.LinuxSeccomp
	Syscalls []struct {
		specs.LinuxSyscall
		Name     string    `json:"name"`
		Includes condition `json:"includes"`
		Excludes condition `json:"excludes"`
	} `json:"syscalls"`
}

// condition is part of a rule. Its minKernel is always met: this kernel is newer than any that profiles speak of.
type condition struct {
	Caps, Arches []string
}

// profile reads docker's format for a container with the given bounding set and this machine's architecture.
func profile(b []byte, bounding []string) (*specs.LinuxSeccomp, error) {
	var p dockerProfile
	if err := json.Unmarshal(b, &p); err != nil {
		return nil, err
	}
	out := p.LinuxSeccomp
	out.Syscalls = nil
	if len(out.Architectures) == 0 {
		out.Architectures = seccomp.Default(nil).Architectures
	}
	all := func(want []string) bool {
		return !slices.ContainsFunc(want, func(n string) bool { return !slices.Contains(bounding, n) })
	}
	here := func(arches []string) bool { return slices.Contains(arches, runtime.GOARCH) }
	for _, c := range p.Syscalls {
		in, ex := c.Includes, c.Excludes
		switch {
		case !all(in.Caps), len(in.Arches) > 0 && !here(in.Arches), len(ex.Caps) > 0 && all(ex.Caps), here(ex.Arches):
			continue
		}
		rule := c.LinuxSyscall
		if c.Name != "" {
			rule.Names = append(rule.Names, c.Name)
		}
		out.Syscalls = append(out.Syscalls, rule)
	}
	return &out, nil
}
