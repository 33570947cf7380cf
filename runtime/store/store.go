// Package store keeps images and containers on the machine: directories, atomic renames and one lock, no database.
//
//	/var/lib/proa/containers/
//	  lock                          flock: exclusive for whoever changes the store
//	  blobs/sha256/<digest>         verified documents: index, manifest, configuration
//	  layers/<diffID>/              unpacked layers, shared by all images that hold them
//	  images/<name>.json            what a name stands for; the name with / as %2F
//	  containers/<name>/            container.json, upper and work of its overlay, rootfs to mount it on, files of its own in /etc
//	  volumes/                      named volumes: package volume's
//	  secrets/                      root's only: package secret's
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
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/durable"
	"github.com/proa-os/proa/runtime/image"
	"github.com/proa-os/proa/runtime/ref"
	"github.com/proa-os/proa/runtime/rubbish"
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
	dir  string
	once sync.Once   // for a program that takes the lock some times
	Warn func(error) // is told what does not keep a change from being made; may be nil
}

// Open opens the store and makes what is missing of it.
func Open(dir string) (*Store, error) {
	// Containers of other users get to their roots through it, but nobody looks around.
	for _, d := range []string{"", "blobs", "blobs/sha256", "layers", "images", "containers", "partial", "tmp"} {
		mode := fs.FileMode(0o700)
		if d == "" {
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

// Lock takes the store for a change and removes what an earlier one left unfinished; what cannot be removed is in nobody's way, so that is only
// warned of. Call the returned function to release it.
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
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock store: %w", err)
	}
	if err := s.clean(); err != nil && s.Warn != nil {
		s.once.Do(func() { s.Warn(fmt.Errorf("what earlier changes of the store have left stays on the disk: %w", err)) })
	}
	return func() { f.Close() }, nil
}

// clean removes what nobody holds: directories in tmp, blobs in partial that nobody came back for.
func (s *Store) clean() error {
	errs := []error{rubbish.Remove(s.path("fetch"))} // of earlier releases
	names, err := os.ReadDir(s.path("tmp"))
	errs = append(errs, err)
	for _, n := range names {
		errs = append(errs, unheld(s.path("tmp", n.Name()), rubbish.Remove))
	}
	return errors.Join(append(errs, s.forgetPartial(time.Now().Add(-keepPartial)))...)
}

// keepPartial is how long an interrupted pull may wait to be gone on with.
const keepPartial = 24 * time.Hour

// forgetPartial removes blobs in partial that have not been written to since then and that nobody holds.
func (s *Store) forgetPartial(since time.Time) error {
	names, err := os.ReadDir(s.path("partial"))
	if err != nil {
		return err
	}
	for _, n := range names {
		i, err := n.Info()
		if err != nil || i.ModTime().After(since) {
			continue
		}
		if err := unheld(s.path("partial", n.Name()), rubbish.Remove); err != nil {
			return err
		}
	}
	return nil
}

// unheld calls f for a path on which no process has a flock.
func unheld(name string, f func(string) error) error {
	h, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer h.Close()
	if unix.Flock(int(h.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		return nil
	}
	return f(name)
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
	Signer string       `json:"signer,omitempty"` // file of the key that the trust policy demanded a signature of
}

func (s *Store) recordPath(name string) string {
	return s.path("images", url.PathEscape(name)+".json")
}

// Image returns the image a name stands for.
func (s *Store) Image(r ref.Ref) (*Record, error) {
	b, err := os.ReadFile(s.recordPath(r.String()))
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

// Document returns a document of an image that is here, verified.
func (s *Store) Document(d image.Digest) ([]byte, bool) {
	b, err := os.ReadFile(s.blob(d))
	return b, err == nil && image.Digest(digest.Of(b)) == d
}

// Load reads the documents of an image, and verifies them once more.
func (s *Store) Load(manifest image.Digest) (*image.Image, error) {
	return image.Resolve(manifest, func(d image.Descriptor) ([]byte, error) {
		return os.ReadFile(s.blob(d.Digest))
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
	if err := durable.Remove(root, filepath.Base(s.recordPath(r.String()))); err != nil {
		return err
	}
	return s.Collect()
}

// Collect removes layers and documents that neither an image nor a container, running or not, nor a pull needs. The caller holds the lock. A record that
// cannot be read stops it: better a full disk than a missing layer.
func (s *Store) Collect() error {
	keep := make(map[string]bool)
	type need struct {
		manifest image.Digest
		who      string
	}
	var needs []need
	images, err := s.Images()
	if err != nil {
		return fmt.Errorf("collect: %w", err)
	}
	for _, r := range images {
		needs = append(needs, need{r.Digest, r.Name + ": pull it again, or rmi it"})
		keep[r.Top.Hex()] = true
	}
	if err := s.removeTorn(); err != nil {
		return fmt.Errorf("collect: %w", err)
	}
	containers, err := s.Containers()
	if err != nil {
		return fmt.Errorf("collect: %w", err)
	}
	for _, c := range containers {
		needs = append(needs, need{c.Manifest, fmt.Sprintf("%s, which container %s was made of: remove that", c.Image, c.Name)})
	}
	if err := s.claimed(keep); err != nil {
		return fmt.Errorf("collect: %w", err)
	}
	for _, n := range needs {
		img, err := s.Load(n.manifest)
		if err != nil {
			return fmt.Errorf("collect: image %s: %w", n.who, err)
		}
		for _, d := range img.Docs {
			keep[d.Digest.Hex()] = true
		}
		for i, d := range img.Config.RootFS.DiffIDs {
			keep[d.Hex()], keep[img.Layers[i].Digest.Hex()] = true, true
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
	return rubbish.Remove(tmp)
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
