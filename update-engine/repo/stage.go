package repo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/release"
	"github.com/proa-os/proa/internal/slot"
	"github.com/proa-os/proa/internal/verity"
	"github.com/proa-os/proa/update-engine/match"
	"github.com/proa-os/proa/update-engine/payload"
)

// Staged says what Stage made, for a table of sizes.
type Staged struct {
	Release  *release.Release
	Raw      int64 // bytes of root image (without tree) and boot program
	Payloads map[string]int64
}

// A build is a folder that image-builder wrote: release.json, root.img, boot.efi.
type build struct {
	release    *release.Release
	root, boot *os.File
}

func (b *build) Close() error { return errors.Join(b.root.Close(), b.boot.Close()) }

// Options for Stage.
type Options struct {
	// AllowInconsistent stages a build whose parts contradict each other or its release.json. Tests use it to be
	// the buggy or coerced release desk that machines must survive.
	AllowInconsistent bool
}

// Stage takes a build into the repository: it makes the full payload, proves it by applying it, and notes both it and
// release.json in what waits for signatures. Machines see nothing of it before Publish.
func (d *Desk) Stage(ctx context.Context, dir string, o Options) (*Staged, error) {
	b, err := openBuild(dir)
	if err != nil {
		return nil, fmt.Errorf("stage %s: %w", dir, err)
	}
	defer b.Close()
	if !o.AllowInconsistent {
		if err := d.check(b); err != nil {
			return nil, fmt.Errorf("stage %s: %w", dir, err)
		}
	}
	r := b.release
	if _, err := slot.Arm(r.Version); err != nil {
		return nil, fmt.Errorf("stage %s: %w", dir, err)
	}
	targets, err := d.staged()
	if err != nil {
		return nil, err
	}
	base := "releases/" + r.Version + "/" + r.Arch + "/"
	if _, ok := targets.Signed.Targets[base+"release.json"]; ok {
		return nil, fmt.Errorf("stage %s: release %s for %s exists already: versions are never reused, raise it", dir, r.Version, r.Arch)
	}
	full, err := d.stagePayload(ctx, b, base+"full.payload")
	if err != nil {
		return nil, fmt.Errorf("stage %s: %w", dir, err)
	}
	r.Payloads = &release.Payloads{Full: full}
	text, err := r.Marshal()
	if err != nil {
		return nil, err
	}
	targets.Signed.Targets[full.Name] = targetInfo(full)
	if err := d.addTarget(targets, base+"release.json", text); err != nil {
		return nil, err
	}
	targets.ClearSignatures()
	return &Staged{
		Release: r, Raw: r.Root.HashOffset + r.Boot.Size, Payloads: map[string]int64{"full": full.Size},
	}, d.writeStaged(targets)
}

func targetInfo(p release.Payload) *metadata.TargetFiles {
	info := metadata.TargetFile()
	info.Path, info.Length, info.Hashes = p.Name, p.Size, metadata.Hashes{"sha256": p.SHA256[:]}
	return info
}

func openBuild(dir string) (*build, error) {
	text, err := os.ReadFile(filepath.Join(dir, "release.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: expected the output folder of image-builder, with release.json, root.img and boot.efi", err)
	}
	if err != nil {
		return nil, err
	}
	r, err := release.Parse(text)
	if err != nil {
		return nil, err
	}
	root, err := os.Open(filepath.Join(dir, "root.img"))
	if err != nil {
		return nil, err
	}
	boot, err := os.Open(filepath.Join(dir, "boot.efi"))
	if err != nil {
		root.Close()
		return nil, err
	}
	return &build{release: r, root: root, boot: boot}, nil
}

// check holds the three parts of a build against each other, so that no machine ever has to.
func (d *Desk) check(b *build) error {
	r := b.release
	for _, part := range []struct {
		file *os.File
		size int64
		sum  digest.SHA256
	}{{b.root, r.Root.Size, r.Root.SHA256}, {b.boot, r.Boot.Size, r.Boot.SHA256}} {
		in := digest.NewReader(part.file.Name(), part.file, part.size, part.sum)
		if _, err := io.Copy(io.Discard, in); err != nil {
			return fmt.Errorf("not the file that release.json describes: %w", err)
		}
	}
	d.progress("check", 1, 2)
	salt, err := match.Salt(r)
	if err != nil {
		return err
	}
	hash, err := verity.RootHash(b.root, r.Root.HashOffset, salt)
	if err != nil {
		return fmt.Errorf("root.img: %w", err)
	}
	if hash != r.Root.RootHash {
		return fmt.Errorf("root.img: its rebuilt verity tree has root hash %s, release.json says %s", hash, r.Root.RootHash)
	}
	if err := match.BootProgram(b.boot, r); err != nil {
		return fmt.Errorf("boot.efi: %w", err)
	}
	d.progress("check", 2, 2)
	return nil
}

// stagePayload makes the full payload in its final place, under its hash.
func (d *Desk) stagePayload(ctx context.Context, b *build, name string) (release.Payload, error) {
	dir := filepath.Dir(d.path("targets/" + name))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return release.Payload{}, err
	}
	f, err := os.CreateTemp(dir, ".payload-*")
	if err != nil {
		return release.Payload{}, err
	}
	defer os.Remove(f.Name()) // gone already if it was renamed
	defer f.Close()
	bootSize, err := b.boot.Seek(0, io.SeekEnd)
	if err != nil {
		return release.Payload{}, err
	}
	manifest, err := payload.Create(ctx, f, []payload.Input{
		{Kind: payload.RootImage, R: b.root, Size: b.release.Root.HashOffset},
		{Kind: payload.BootProgram, R: b.boot, Size: bootSize},
	}, payload.Options{}, func(done, total int64) { d.progress("compress", done, total) })
	if err != nil {
		return release.Payload{}, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return release.Payload{}, err
	}
	if _, err := payload.Prove(f, payload.Sources{}, dir); err != nil {
		return release.Payload{}, fmt.Errorf("the payload does not give back what went in: %w", err)
	}
	if err := errors.Join(f.Chmod(0o644), f.Sync()); err != nil {
		return release.Payload{}, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return release.Payload{}, err
	}
	sum, size, err := digest.OfReader(f)
	if err != nil {
		return release.Payload{}, err
	}
	return release.Payload{Name: name, Size: size, SHA256: sum, Manifest: manifest.Digest()}, os.Rename(f.Name(), d.path(targetFile(name, sum)))
}
