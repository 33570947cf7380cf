package image

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/proa-os/proa/image-builder/stage"
	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/release"
)

// A receipt says what the last build has put into a directory, and from what. It is kept in the cache, by the directory's path:
// beside the images it would be the one file that differs between hosts.
type receipt struct {
	Key  digest.SHA256 `json:"key"` // of the whole release
	Seal *stage.Seal   `json:"seal"`
}

func (in *inputs) receiptFile() (string, error) {
	out, err := filepath.Abs(in.Out)
	if err != nil {
		return "", err
	}
	return filepath.Join(in.CacheDir, "receipts", digest.Of([]byte(out)).String()+".json"), nil
}

// releaseKey is the key of everything: the root image's inputs and what is put around it.
func (in *inputs) releaseKey() (digest.SHA256, error) {
	root, err := in.rootKey()
	if err != nil {
		return digest.SHA256{}, err
	}
	m, err := json.Marshal(in.manifest)
	if err != nil {
		return digest.SHA256{}, err
	}
	return stage.NewKey("release").Add("root image", root.String()).Add("manifest", string(m)).Add("manifest file", in.manifest.Sum.String()).
		Add("init", in.sources.Inputs[initProgram]).Add("command line", in.CommandLine).Sum(), nil
}

// finished returns what Out holds if that is what a build would make, else nil. Doubt is no error: then Build builds.
func (in *inputs) finished() *release.Release {
	if in.NoCache {
		return nil
	}
	name, err := in.receiptFile()
	if err != nil {
		return nil
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return nil
	}
	var old receipt
	if json.Unmarshal(b, &old) != nil || old.Seal == nil {
		return nil
	}
	if key, err := in.releaseKey(); err != nil || key != old.Key {
		return nil
	}
	if !in.NoQcow2 && old.Seal.Sum(qcow2File).IsZero() {
		return nil
	}
	renewed, err := old.Seal.Check(in.Out)
	if err != nil {
		return nil
	}
	if b, err = os.ReadFile(filepath.Join(in.Out, "release.json")); err != nil {
		return nil
	}
	r, err := release.Parse(b)
	if err != nil {
		return nil
	}
	if renewed && in.write(name, &old) != nil {
		return nil
	}
	return r
}

// receipt describes what was built in dir, nil if nobody is to rely on it.
func (in *inputs) receipt(dir string) (*receipt, error) {
	if in.NoCache {
		return nil, nil
	}
	key, err := in.releaseKey()
	if err != nil {
		return nil, err
	}
	in.sums["disk.img"] = digest.SHA256{} // gigabytes of holes
	seal, err := stage.NewSeal(dir, in.sums)
	if err != nil {
		return nil, err
	}
	return &receipt{key, seal}, nil
}

// remember keeps the receipt of what is in Out now.
func (in *inputs) remember(r *receipt) error {
	if r == nil {
		return nil
	}
	name, err := in.receiptFile()
	if err == nil {
		err = in.write(name, r)
	}
	if err != nil {
		return fmt.Errorf("remember the build: %w", err)
	}
	return nil
}

func (in *inputs) write(name string, r *receipt) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	dir := filepath.Dir(name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	forget(dir)
	return stage.ReplaceFile(name, b)
}

// forget removes the receipts of directories into which nobody has built for long. One too many costs a build.
func forget(dir string) {
	const long = 90 * 24 * time.Hour
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if fi, err := e.Info(); err == nil && time.Since(fi.ModTime()) > long {
			os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}
