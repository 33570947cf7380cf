package rescue

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"
)

// Delay is the time between a failure and the reboot, for a person to read the message.
const Delay = 10 * time.Second

// Run calls boot, which does not return when all goes well: another program takes its place. If it does return, or panics,
// Run shows why and reboots. It never returns, because the end of process 1 is a kernel panic.
func Run(c *Console, boot func() error) {
	// Without handlers the Go runtime ends the program on these. Handlers, unlike "ignore", do not outlive exec.
	signal.Notify(make(chan os.Signal, 1), unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM)
	c.Fail(attempt(boot))
	c.write(levelError, fmt.Sprintf("rebooting in %d seconds; this used up a try of this boot program, if it was not good already", Delay/time.Second))
	time.Sleep(Delay)
	reboot(c)
}

// attempt turns a panic into an error with its stack.
func attempt(boot func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
		}
	}()
	if err := boot(); err != nil {
		return err
	}
	return errors.New("nothing was started")
}

// reboot restarts the machine, without waiting long for a disk that does not answer.
func reboot(c *Console) {
	synced := make(chan struct{})
	go func() { unix.Sync(); close(synced) }()
	select {
	case <-synced:
	case <-time.After(5 * time.Second):
	}
	err := unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	c.write(levelError, fmt.Sprintf("reboot: %v; trying sysrq", err))
	err = os.WriteFile(c.path("proc/sysrq-trigger"), []byte("b"), 0)
	for {
		c.write(levelError, fmt.Sprintf("reboot by sysrq: %v; switch the machine off and on", err))
		time.Sleep(time.Minute)
	}
}
