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
// Order, each harmless if it is the last that happened: everything written so far, result, marker, cache. If the config puts state on
// another device, all that is written there, and where it is comes last; the machine has to start again then (Options.Restart).
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
	unix.Sync()
	b, err := json.MarshalIndent(result{
		BootID: strings.TrimSpace(bootID), Date: now.UTC().Format(time.RFC3339), UserConfig: st.UserConfig,
		Platform: st.Platform, ConfigSHA256: st.ConfigSHA256, Configs: st.Origins,
	}, "", "  ")
	if err != nil {
		return err
	}
	mark := func(root *os.Root, dir string) error {
		if err := root.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := writeDurably(root, dir+"/result.json", append(b, '\n')); err != nil {
			return err
		}
		return writeDurably(root, dir+"/"+path.Base(Marker), nil)
	}
	if where := plan.StateDevice(st.Config); where != "" && filepath.Clean(o.Root) == "/" {
		err = moveState(ctx, o, where, root, mark)
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

// writeDurably writes a temporary file, syncs it, renames it, and syncs the directory.
func writeDurably(root *os.Root, name string, b []byte) error {
	tmp := name + ".tmp"
	f, err := root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write /%s: %w", name, err)
	}
	if err := root.Rename(tmp, name); err != nil {
		return err
	}
	dir, err := root.Open(path.Dir(name))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
