package debian

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/proa-os/proa/qemu-tests/vm"
)

// configureTime is how long the configuring boot gets, in machine time.
const configureTime = 40 * time.Minute

// configure boots the disk; guest and configure.sh do the rest. It repeats what configure.sh calls a step.
func (m *maker) configure(ctx context.Context) error {
	machine, err := vm.Start(ctx, vm.Config{
		Name: "debian-configure", Dir: filepath.Join(m.work, "machine"), Disk: filepath.Join(m.work, "disk.img"), DiskSize: DiskSize,
		MemoryMiB: 2048, Key: m.key, Timeout: configureTime,
	})
	if err != nil {
		return err
	}
	return errors.Join(m.follow(ctx, machine), machine.Close())
}

// follow waits for the machine's last word and for its end.
func (m *maker) follow(ctx context.Context, machine *vm.Machine) error {
	for {
		line, err := machine.WaitConsole(ctx, `^debian: (step |done$|failed: )`)
		if err != nil {
			return err
		}
		text := strings.TrimPrefix(line.Text, "debian: ")
		if step, ok := strings.CutPrefix(text, "step "); ok {
			m.say("  %s", step)
			continue
		}
		if text != "done" {
			return fmt.Errorf("configure: %s\n%s", text, machine.Console().Tail(40))
		}
		return machine.WaitOff(ctx)
	}
}
