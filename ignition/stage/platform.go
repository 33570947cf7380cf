package stage

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/proa-os/proa/ignition/platform"
)

// reportTime is how long a platform may take to hear how a stage has ended: nothing waits for its answer but the next stage.
const reportTime = 30 * time.Second

// report tells the platform how a stage that had the network, or could not get it, has ended, where it wants to know.
func report(ctx context.Context, m *platform.Machine, o Options, failure error) {
	p, err := named(m, o)
	if err != nil || (o.Stage == "fetch-offline" || o.Stage == "network") && failure == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reportTime)
	defer cancel()
	if err := p.Report(ctx, m, o.Stage, failure); err != nil {
		o.Log.Warn("cannot tell the platform how the stage has ended", "platform", p.ID, "stage", o.Stage, "error", err)
	}
}

// keepConfig is the unit that upstream deletes user data with: where a config masks it, the user data is kept.
const keepConfig = "etc/systemd/system/ignition-delete-config.service"

// Forget has the platform delete the config of a machine that is provisioned, so that nothing that runs there later can read it; not
// all platforms can. A config that is to be kept masks ignition-delete-config.service, as with upstream. What goes wrong is a warning:
// the machine is provisioned.
func Forget(ctx context.Context, m *platform.Machine, o Options) {
	if to, err := os.Readlink(filepath.Join(o.Root, keepConfig)); err == nil && to == "/dev/null" {
		return
	}
	p, err := named(m, o)
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, reportTime)
	defer cancel()
	deleted, err := p.Delete(ctx, m)
	switch {
	case err != nil:
		o.Log.Warn("the platform keeps the config of this machine", "platform", p.ID, "error", err)
	case deleted:
		o.Log.Info("the platform has deleted the config of this machine", "platform", p.ID)
	}
}
