package bench

import (
	"context"
	"time"

	"github.com/proa-os/proa/qemu-tests/vm"
)

// The console lines that end phases. The firmware is the lab's OVMF, which says when it starts a loader. The kernel's first lines come all
// at once when its console driver starts, a moment after the kernel itself.
const (
	loaderStarts  = `BdsDxe: starting `
	kernelSpeaks  = `Linux version `
	initStarts    = `Run /init as init process`
	systemdSpeaks = `systemd\[1\]: `
	multiUser     = `Reached target multi-user\.target`
	softReboots   = `Reached target soft-reboot\.target`
)

// A mark is when a console line came.
type mark struct{ wall, cpu float64 } // seconds since power on; of QEMU's CPU time

// measure follows the machine, which has just been switched on after used CPU time, to multi-user and asks what it noted. The
// asking comes last, as it costs time itself.
func measure(ctx context.Context, m *vm.Machine, used time.Duration) (*Boot, error) {
	begin := time.Now()
	marks := map[string]mark{}
	for _, re := range []string{loaderStarts, kernelSpeaks, initStarts, systemdSpeaks, multiUser} {
		if _, err := m.WaitConsole(ctx, re); err != nil {
			return nil, err
		}
		marks[re] = mark{time.Since(begin).Seconds(), (m.CPUTime() - used).Seconds()}
	}
	// The command is allowed to say that the system is degraded: that is for the stories to judge.
	if _, err := m.Run(ctx, "root", "systemctl is-system-running --wait || true"); err != nil {
		return nil, err
	}
	var answers []string
	for _, command := range []string{managerCommand, targetCommand, kernelCommand, unitsCommand} {
		out, err := m.Run(ctx, "root", command)
		if err != nil {
			return nil, err
		}
		answers = append(answers, out)
	}
	phases, err := guestPhases(answers[0], answers[1], answers[2])
	if err != nil {
		return nil, err
	}
	boot := newBoot(marks, phases)
	if boot.Slowest, err = slowest(answers[3], phases.ToMultiUser(), slowestUnits); err != nil {
		return nil, err
	}
	return boot, nil
}

// newBoot puts together what both clocks say. The guest's begins when the kernel does: as long before the line about /init, which is
// printed at once, as the guest says.
func newBoot(marks map[string]mark, guest Phases) *Boot {
	cpu := func(from, to string) float64 { return marks[to].cpu - marks[from].cpu }
	b := &Boot{Phases: guest, Wall: marks[multiUser].wall}
	b.Firmware = marks[loaderStarts].wall
	b.Loader = max(0, marks[initStarts].wall-guest.Kernel-b.Firmware)
	b.CPU = CPU{
		Firmware: marks[loaderStarts].cpu, Loader: cpu(loaderStarts, kernelSpeaks), Kernel: cpu(kernelSpeaks, initStarts),
		Initramfs: cpu(initStarts, systemdSpeaks), Userspace: cpu(systemdSpeaks, multiUser),
	}
	return b
}
