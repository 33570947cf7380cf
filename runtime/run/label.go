package run

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/runtime/spec"
)

func hasSELinux() bool  { return exists("/sys/fs/selinux/enforce") }
func hasAppArmor() bool { return exists("/sys/kernel/security/apparmor") }

// labelMounts gives linux.mountLabel to the file systems that are made for the container. Those that show what the kernel has, and what
// is bound, keep their own labels.
func labelMounts(mounts []spec.Mount, label string) {
	for i, m := range mounts {
		if m.Type != "bind" && !ofNamespace(m.Type) {
			mounts[i].Data = append(mounts[i].Data, "context="+label)
		}
	}
}

// openLabels opens a /proc of the container where a label for the workload is asked for.
func (p *plan) openLabels() error {
	if l := p.process.SelinuxLabel; l != "" && !hasSELinux() {
		return errors.New("process.selinuxLabel: SELinux is not enabled on this machine")
	}
	if l := p.process.ApparmorProfile; l != "" && l != "unconfined" && !hasAppArmor() {
		return errors.New("process.apparmorProfile: AppArmor is not enabled on this machine")
	}
	if p.process.SelinuxLabel != "" || hasAppArmor() && p.process.ApparmorProfile != "" {
		p.labels = p.fileSystem("label of the process: ", spec.Mount{Type: "proc"})
	}
	return nil
}

func exists(name string) bool { return unix.Access(name, unix.F_OK) == nil }

// setLabels writes the labels that execve gives the workload.
func (p *plan) setLabels() {
	if p.labels == nil {
		return
	}
	how := p.openHow(unix.O_WRONLY|unix.O_CLOEXEC, 0)
	write := func(field, file, value string) {
		f := p.Call(field, unix.SYS_OPENAT2, p.labels, file, how, unix.SizeofOpenHow)
		p.Call(field, unix.SYS_WRITE, f, value, len(value))
		p.Call(field, unix.SYS_CLOSE, f)
	}
	if l := p.process.SelinuxLabel; l != "" {
		write("process.selinuxLabel", "thread-self/attr/exec", l)
	}
	if l := p.process.ApparmorProfile; l != "" {
		write("process.apparmorProfile", "thread-self/attr/apparmor/exec", "exec "+l)
	}
}
