package ctl

import (
	"errors"
	"strings"

	"github.com/proa-os/proa/runtime/flagset"
	"github.com/proa-os/proa/runtime/store"
)

// namespaceFlags are about what the workload shares with the machine or with another container.
func (r *runFlags) namespaceFlags(s *flagset.Set) {
	c := &r.c
	s.Func("pid", "MODE", "host: see the machine's processes; container:NAME: those of another container (default: only its own)", func(v string) error {
		other, ok := strings.CutPrefix(v, "container:")
		if v != "host" && v != "private" && (!ok || store.CheckName(other) != nil) {
			return errors.New("want host, private or container:NAME")
		}
		c.PID = shared(v)
		return nil
	})
	s.Func("ipc", "MODE", "host: share memory with the machine; none: no /dev/shm; private (default)", func(v string) error {
		switch {
		case strings.HasPrefix(v, "container:"):
			return errors.New("containers share memory by a file system in memory that both have: a volume made with --opt type=tmpfs --opt device=tmpfs, as -v NAME:/dev/shm")
		case v != "host" && v != "none" && v != "private" && v != "shareable":
			return errors.New("want host, none or private")
		}
		c.IPC = shared(strings.TrimPrefix(v, "shareable"))
		return nil
	})
	s.Func("uts", "MODE", "host: the machine's host name", hostOnly(&c.UTS))
	s.Func("cgroupns", "MODE", "host: see the machine's control groups; private (default)", hostOnly(&c.CgroupNS))
	s.String(&c.Domainname, "domainname", "NAME", "NIS domain name in the container")
}

// shared is what is stored of a mode: nothing of the default.
func shared(v string) string { return strings.TrimPrefix(v, "private") }

func hostOnly(p *string) func(string) error {
	return func(v string) error {
		if v != "host" && v != "private" && v != "" {
			return errors.New("want host or private")
		}
		*p = shared(v)
		return nil
	}
}

// checkNamespaces refuses what does not go together.
func checkNamespaces(c *store.Container) error {
	switch {
	case c.UTS == "host" && (c.Hostname != "" || c.Domainname != ""):
		return errors.New("--hostname and --domainname do not go together with --uts host")
	case c.PID != "" && c.Init:
		return errors.New("--init does not go together with --pid: process 1 is another one")
	case c.IPC != "" && c.ShmSize != 0:
		return errors.New("--shm-size does not go together with --ipc " + c.IPC)
	}
	return nil
}

// elsewhere are docker's flags that are not here, with what is there instead.
var elsewhere = map[string]string{
	"--gpus":                  "the OS has no drivers of GPUs; a device that is there goes into the container with --device /dev/NAME",
	"--runtime":               "the runtime is oci-runtime, always",
	"--link":                  "containers in one network find each other by name: use --network",
	"--volume-driver":         "volumes are directories of the machine: see containerctl volume create",
	"--storage-opt":           "containers share the disk of the machine; -v and --tmpfs have sizes",
	"--log-opt":               "the journal has no options of a container's: see journald.conf(5)",
	"--cgroup-parent":         "say Slice= in a drop-in of the unit: systemctl edit proa-NAME",
	"--device-cgroup-rule":    "name the devices with --device, or say DeviceAllow= in a drop-in of the unit",
	"--memory-swappiness":     "version 2 of control groups has no such setting: use --memory-swap",
	"--kernel-memory":         "version 2 of control groups counts the kernel's memory as the container's: use --memory",
	"--oom-kill-disable":      "version 2 of control groups cannot stop there: use --oom-score-adj",
	"--detach-keys":           "nothing is left running by a key: start it with -d",
	"--attach":                "the foreground has all three: use -d, or the shell's redirections",
	"-a":                      "the foreground has all three: use -d, or the shell's redirections",
	"--disable-content-trust": "the trust policy decides: see /etc/proa/trust",
	"--mac-address":           "addresses of links follow from the container's name",
	"--cpu-rt-runtime":        "the kernel has no groups of real-time processes",
	"--cpu-rt-period":         "the kernel has no groups of real-time processes",
}
