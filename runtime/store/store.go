// Package store keeps images and containers on the machine: directories, atomic renames and one lock, no database.
//
//	/var/lib/proa/containers/
//	  lock                          flock: exclusive for whoever changes the store
//	  blobs/sha256/<digest>         verified documents: index, manifest, configuration
//	  layers/<diffID>/              unpacked layers, shared by all images that hold them
//	  images/<name>.json            what a name stands for; the name with / as %2F
//	  containers/<name>/            container.json, upper and work of its overlay, rootfs to mount it on, files of its own in /etc
//	  fetch/<random>/               of user proa-fetch: what a pull has fetched, not trusted
//	  tmp/<random>/                 layers being unpacked, containers being removed
//
// Everything becomes visible by one rename after its content is on disk (syncfs): a layer only with its digest and diffID
// verified, an image only with all its layers there. So at any power cut the store holds the old state or the new one; what
// is in tmp and fetch was not finished and is removed by the next change. The compressed layers are not kept.
package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/durable"
	"github.com/proa-os/proa/runtime/image"
	"github.com/proa-os/proa/runtime/ref"
)

// DefaultDir is where the store is on a machine.
const DefaultDir = "/var/lib/proa/containers"

// Errors a caller branches on.
var (
	ErrNoImage     = errors.New("no such image")
	ErrNoContainer = errors.New("no such container")
	ErrExists      = errors.New("a container with this name exists")
)

// A Store is an open store. Reading needs no lock: names appear and vanish by rename.
type Store struct {
	dir string
}

// Open opens the store and makes what is missing of it.
func Open(dir string) (*Store, error) {
	// A directory of proa-fetch lies in it, so others may pass through, but not look around.
	for _, d := range []string{"", "blobs", "blobs/sha256", "layers", "images", "containers", "fetch", "tmp"} {
		mode := fs.FileMode(0o700)
		if d == "" || d == "fetch" {
			mode = 0o711
		}
		if err := os.MkdirAll(filepath.Join(dir, d), mode); err != nil {
			return nil, fmt.Errorf("open store: %w", err)
		}
	}
	return &Store{dir: dir}, nil
}

func (s *Store) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

// Lock takes the store for a change and removes what an earlier one left unfinished. Call the returned function to
// release it.
func (s *Store) Lock() (func(), error) {
	f, err := os.OpenFile(s.path("lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock store: %w", err)
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if err != unix.EINTR {
			break
		}
	}
	if err == nil {
		err = s.clean()
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock store: %w", err)
	}
	return func() { f.Close() }, nil
}

// clean empties tmp and removes fetch directories that no process holds.
func (s *Store) clean() error {
	names, err := os.ReadDir(s.path("tmp"))
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := removeAll(s.path("tmp", n.Name())); err != nil {
			return err
		}
	}
	if names, err = os.ReadDir(s.path("fetch")); err != nil {
		return err
	}
	for _, n := range names {
		f, err := os.Open(s.path("fetch", n.Name()))
		if err != nil {
			continue
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			err = removeAll(s.path("fetch", n.Name()))
		}
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// FetchDir makes an empty directory that belongs to uid and gid. It exists until the returned function is called or, after
// a crash, until the next Lock. The caller holds the lock, or another process may take the new directory for a leftover.
func (s *Store) FetchDir(uid, gid int) (*os.File, func(), error) {
	dir, err := os.MkdirTemp(s.path("fetch"), "pull-")
	if err != nil {
		return nil, nil, fmt.Errorf("make fetch directory: %w", err)
	}
	remove := func() { removeAll(dir) }
	f, err := os.Open(dir)
	if err == nil {
		if err = unix.Flock(int(f.Fd()), unix.LOCK_EX); err == nil && os.Geteuid() == 0 {
			err = f.Chown(uid, gid)
		}
	}
	if err != nil {
		remove()
		return nil, nil, fmt.Errorf("make fetch directory: %w", err)
	}
	return f, func() { remove(); f.Close() }, nil
}

// HasLayer reports whether the layer with a diffID is there.
func (s *Store) HasLayer(d image.Digest) bool {
	_, err := os.Stat(s.LayerDir(d))
	return err == nil
}

// LayerDir is the directory of an unpacked layer.
func (s *Store) LayerDir(d image.Digest) string { return s.path("layers", d.Hex()) }

// Layers returns the diffIDs of all layers.
func (s *Store) Layers() ([]image.Digest, error) {
	names, err := os.ReadDir(s.path("layers"))
	if err != nil {
		return nil, err
	}
	var out []image.Digest
	for _, n := range names {
		if d, err := digest.Parse(n.Name()); err == nil {
			out = append(out, image.Digest(d))
		}
	}
	return out, nil
}

// A Record is what images/<name>.json holds.
type Record struct {
	Name   string       `json:"name"`   // canonical
	Digest image.Digest `json:"digest"` // of the manifest for this machine
	Top    image.Digest `json:"top"`    // of the index, or the same
	Size   int64        `json:"size"`   // bytes of the layers as fetched
	Pulled time.Time    `json:"pulled"`
}

func (s *Store) record(name string) string {
	return s.path("images", url.PathEscape(name)+".json")
}

// Image returns the image a name stands for.
func (s *Store) Image(r ref.Ref) (*Record, error) {
	b, err := os.ReadFile(s.record(r.String()))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w: pull it first", r, ErrNoImage)
	}
	if err != nil {
		return nil, err
	}
	var rec Record
	if err := json.Unmarshal(b, &rec); err != nil {
		return nil, fmt.Errorf("image record of %s: %w: pull it again", r, err)
	}
	return &rec, nil
}

// Images returns all images, sorted by name.
func (s *Store) Images() ([]*Record, error) {
	names, err := os.ReadDir(s.path("images"))
	if err != nil {
		return nil, err
	}
	var out []*Record
	for _, n := range names {
		base, ok := strings.CutSuffix(n.Name(), ".json")
		if !ok || strings.HasPrefix(base, ".") {
			continue
		}
		name, err := url.PathUnescape(base)
		if err != nil {
			continue
		}
		r, err := ref.Parse(name)
		if err != nil {
			continue
		}
		rec, err := s.Image(r)
		if errors.Is(err, ErrNoImage) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		out = append(out, rec)
	}
	slices.SortFunc(out, func(a, b *Record) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// Load reads the documents of an image, and verifies them once more.
func (s *Store) Load(manifest image.Digest) (*image.Image, error) {
	return image.Resolve(manifest, func(d image.Descriptor) ([]byte, error) {
		return os.ReadFile(s.path("blobs", "sha256", d.Digest.Hex()))
	})
}

// Untag removes a name, and what no other name and no container needs any more. The caller holds the lock.
func (s *Store) Untag(r ref.Ref) error {
	if _, err := s.Image(r); err != nil {
		return err
	}
	root, err := os.OpenRoot(s.path("images"))
	if err != nil {
		return err
	}
	defer root.Close()
	if err := durable.Remove(root, filepath.Base(s.record(r.String()))); err != nil {
		return err
	}
	return s.Collect()
}

// Collect removes layers and documents that neither an image nor a container needs. The caller holds the lock. A record that
// cannot be read stops it: better a full disk than a missing layer.
func (s *Store) Collect() error {
	keep := make(map[string]bool)
	var manifests []image.Digest
	images, err := s.Images()
	if err != nil {
		return fmt.Errorf("collect: %w", err)
	}
	for _, r := range images {
		manifests = append(manifests, r.Digest)
		keep[r.Top.Hex()] = true
	}
	containers, err := s.Containers()
	if err != nil {
		return fmt.Errorf("collect: %w", err)
	}
	for _, c := range containers {
		manifests = append(manifests, c.Manifest)
	}
	for _, m := range manifests {
		img, err := s.Load(m)
		if err != nil {
			return fmt.Errorf("collect: %w", err)
		}
		for _, d := range img.Docs {
			keep[d.Digest.Hex()] = true
		}
		for _, d := range img.Config.RootFS.DiffIDs {
			keep[d.Hex()] = true
		}
	}
	for _, dir := range []string{"layers", "blobs/sha256"} {
		names, err := os.ReadDir(s.path(dir))
		if err != nil {
			return fmt.Errorf("collect: %w", err)
		}
		for _, n := range names {
			if keep[n.Name()] {
				continue
			}
			if err := s.discard(s.path(dir, n.Name())); err != nil {
				return fmt.Errorf("collect: %w", err)
			}
		}
	}
	return nil
}

// discard takes a path out of the store by one rename, and then removes it.
func (s *Store) discard(p string) error {
	tmp, err := os.MkdirTemp(s.path("tmp"), "gone-")
	if err != nil {
		return err
	}
	if err := os.Rename(p, filepath.Join(tmp, "x")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return removeAll(tmp)
}
