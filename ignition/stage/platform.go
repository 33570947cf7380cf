package stage

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/proa-os/proa/ignition/apply"
	"github.com/proa-os/proa/ignition/platform"
	"github.com/proa-os/proa/internal/durable"
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

// toDelete is the file, relative to the root, that says that the platform has user data of this machine that it can delete. It is there
// before the machine counts as provisioned, so that no loss of power keeps the user data: while it is there, each boot tries again.
const toDelete = apply.StateDir + "/delete-config"

// deletes reports whether user data is to be deleted.
func (o Options) deletes(id string) bool {
	if to, err := os.Readlink(filepath.Join(o.Root, keepConfig)); err == nil && to == "/dev/null" {
		return false
	}
	p, err := platform.Lookup(id)
	return err == nil && p.Deletes()
}

// Delete has a platform delete the config of this machine; ok is false where it has no way to.
func Delete(ctx context.Context, m *platform.Machine, o Options, p platform.Platform) (ok bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, reportTime)
	defer cancel()
	if ok, err = p.Delete(ctx, m); err != nil || !ok {
		return ok, err
	}
	root, err := os.OpenRoot(o.Root)
	if err != nil {
		return true, err
	}
	defer root.Close()
	if _, err := root.Lstat(toDelete); errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err := o.step("remove delete-config"); err != nil {
		return true, err
	}
	return true, durable.Remove(root, toDelete)
}

// Forget has the platform delete the config of a machine that is provisioned, so that nothing that runs there later can read it; not
// all platforms can. A config that is to be kept masks ignition-delete-config.service, as with upstream. What goes wrong is a warning:
// the machine is provisioned.
func Forget(ctx context.Context, m *platform.Machine, o Options) {
	p, err := named(m, o)
	if err != nil || !o.deletes(p.ID) {
		return
	}
	if _, err := Delete(ctx, m, o, p); err != nil {
		o.Log.Warn("the platform keeps the config of this machine", "platform", p.ID, "error", err)
	} else {
		o.Log.Info("the platform has deleted the config of this machine", "platform", p.ID)
	}
}
