package stage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/ignition/apply"
	"github.com/proa-os/proa/ignition/config"
	"github.com/proa-os/proa/ignition/plan"
	"github.com/proa-os/proa/internal/durable"
)

// Marker is the file, relative to the root, whose existence says that a machine is provisioned; the generator looks for it.
const Marker = apply.StateDir + "/provisioned"

// result is /var/lib/ignition/result.json; the first three keys are upstream's.
type result struct {
	BootID       string          `json:"provisioningBootID"`
	Date         string          `json:"provisioningDate"` // RFC 3339, by the machine's clock
	UserConfig   bool            `json:"userConfigProvided"`
	Platform     string          `json:"platform"`
	ConfigSHA256 string          `json:"configSHA256,omitempty"`
	Configs      []config.Origin `json:"configs,omitempty"`
}

// finish makes it durable that the machine is provisioned and removes the cached config.
// Order, each harmless if it is the last that happened: everything written so far, result, what is still to be deleted, marker, cache. If the
// config puts state on another device, all that is written there, and where it is comes last; the machine has to start again then
// (Options.Restart).
func finish(ctx context.Context, o Options, bootID string, now time.Time) error {
	st, err := load(o)
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(o.Root)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := syncState(root); err != nil {
		return err
	}
	b, err := json.MarshalIndent(result{
		BootID: strings.TrimSpace(bootID), Date: now.UTC().Format(time.RFC3339), UserConfig: st.UserConfig,
		Platform: st.Platform, ConfigSHA256: st.ConfigSHA256, Configs: st.Origins,
	}, "", "  ")
	if err != nil {
		return err
	}
	mark := func(root *os.Root, dir string) error { return o.mark(root, dir, append(b, '\n'), st.Platform) }
	var to *home
	if where := plan.StateDevice(st.Config); o.home != nil || where != "" && filepath.Clean(o.Root) == "/" {
		lookAt := o.home
		if lookAt == nil {
			lookAt = o.homeOn
		}
		if to, err = lookAt(ctx, where); err != nil {
			return err
		}
	}
	if to != nil {
		err = o.moveState(to, root, mark)
	} else {
		err = mark(root, apply.StateDir)
	}
	if err != nil {
		return err
	}
	o.Log.Info("machine is provisioned", "marker", "/"+Marker)
	for _, name := range []string{o.ConfigCache, o.StateFile, o.Failure} {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// syncState makes durable what is in state, with the directory of the marker. Other file systems are: the stages that wrote there have seen to it.
func syncState(root *os.Root) error {
	if err := root.MkdirAll(apply.StateDir, 0o755); err != nil {
		return err
	}
	dir, err := root.Open(apply.StateDir)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := unix.Syncfs(int(dir.Fd())); err != nil {
		return fmt.Errorf("write /%s to disk: %w", apply.StateDir, err)
	}
	return nil
}

// mark writes what finish leaves in a state, in its order, each whole and durable before the next.
func (o Options) mark(root *os.Root, dir string, result []byte, platform string) error {
	write := func(name string, b []byte) error {
		if err := o.step("write " + name); err != nil {
			return err
		}
		return durable.WriteFile(root, dir+"/"+name, b, 0o644)
	}
	err := write("result.json", result)
	if err == nil && o.deletes(platform) {
		err = write(path.Base(toDelete), nil)
	}
	if err == nil {
		err = write(path.Base(Marker), nil)
	}
	return err
}

// step is asked before everything that lasts.
func (o Options) step(what string) error {
	if o.Fault == nil {
		return nil
	}
	return o.Fault(what)
}
