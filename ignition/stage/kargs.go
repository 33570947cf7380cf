package stage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/proa-os/proa/ignition/config"
	"github.com/proa-os/proa/ignition/kargs"
	"github.com/proa-os/proa/ignition/loader"
	"github.com/proa-os/proa/ignition/plan"
)

// errRestarting ends a stage of a machine that is about to start again. It is no failure.
var errRestarting = errors.New("the machine starts again")

// arguments makes the machine boot with the kernel arguments of the config. If it does not yet, restart is called, and no later stage of
// this boot runs.
func arguments(ctx context.Context, o Options, m loader.Machine, restart func(ctx context.Context, why string) error) error {
	st, err := load(o)
	if err != nil {
		return err
	}
	ops, err := plan.Build(&st.Merged)
	if err != nil {
		return err
	}
	op := plan.ArgumentsOf(ops)
	again, err := m.Ensure(ctx, op.Exist, op.NotExist)
	var r *kargs.Refusal
	switch {
	case errors.As(err, &r):
		return config.Issues{{Place: st.Place("kernelArguments"), Problem: r.What + ": " + r.Word, Expected: r.Expected, Found: r.Found, Next: r.Next}}
	case err != nil:
		return fmt.Errorf("set kernel arguments: %w", err)
	case !again:
		return nil
	}
	why := "kernel arguments are now as the config says (" + strings.Join(op.Exist, " ") + "): the machine starts again, once"
	o.Log.Warn(why)
	if err := restart(ctx, why); err != nil {
		return fmt.Errorf("restart with other kernel arguments: %w; next step: restart the machine", err)
	}
	return errRestarting
}

// restart says so on the consoles, asks systemd to reboot, and waits until this program is told to stop.
func restart(ctx context.Context, why string) error {
	if f, err := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0); err == nil { // the journal has it in any case
		fmt.Fprintf(f, "<4>ignition: %s\n", why)
		f.Close()
	}
	if err := Systemctl(ctx, "--no-block", "reboot"); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}
