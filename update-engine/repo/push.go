package repo

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/theupdateframework/go-tuf/v2/metadata"
	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/update-engine/artifact"
	"github.com/proa-os/proa/update-engine/client"
)

// Pushed is what a registry has got.
type Pushed struct {
	Address string    `json:"address"`
	Digest  string    `json:"digest"` // of the artifact's manifest
	Size    int64     `json:"size"`   // bytes of all files
	Files   []Written `json:"files"`
}

// Push copies what is published to a registry as an artifact (package artifact), with the name and password that docker or podman have for it. What
// the registry has is not sent again; the tag is moved last, so that a push that fails, or is cut, leaves what was there. Pushes come one after the
// other: one that was slow must not take the tag back from a newer one. A registry that takes nothing for pushStall ends it.
func (d *Desk) Push(ctx context.Context, to artifact.Address, way http.RoundTripper) (*Pushed, error) {
	unlock, err := d.pushLock(ctx)
	if err != nil {
		return nil, fmt.Errorf("push: %w", err)
	}
	defer unlock()
	a, err := d.artifact()
	if err != nil {
		return nil, fmt.Errorf("push: %w", err)
	}
	done := &Pushed{Address: to.String(), Digest: fmt.Sprintf("sha256:%x", sha256.Sum256(a.manifest)), Size: a.size, Files: a.files}
	if d.DryRun {
		return done, nil
	}
	if err := a.push(ctx, to, way); err != nil {
		return nil, fmt.Errorf("push to %s: %w", to, err)
	}
	return done, nil
}

const pushLockFile = ".push.lock"

// pushStall is how long a registry may take nothing.
var pushStall = 2 * time.Minute

// pushLock waits for other pushes. They do not keep other commands out.
func (d *Desk) pushLock(ctx context.Context) (unlock func(), err error) {
	if d.DryRun {
		return func() {}, nil
	}
	if _, err := d.highest(metadata.ROOT); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(d.path(pushLockFile), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
		}
		d.progress("wait for another push", 0, 1)
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("another push goes on: %w", context.Cause(ctx))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (a *files) push(ctx context.Context, to artifact.Address, way http.RoundTripper) error {
	var opts []name.Option
	if to.Plain {
		opts = append(opts, name.Insecure)
	}
	// By its parts: as one text a name without a dot is a repository of Docker's.
	registry, err := name.NewRegistry(to.Registry, opts...)
	if err != nil {
		return err
	}
	image, err := partial.CompressedToImage(a)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	a.meter.begin(func() { cancel(fmt.Errorf("the registry has taken nothing for %s", pushStall)) })
	err = remote.Write(registry.Repo(to.Name).Tag(to.Tag), image, remote.WithContext(ctx), remote.WithTransport(watched{way, &a.meter}), remote.WithAuthFromKeychain(authn.DefaultKeychain))
	a.meter.end()
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return cause
	}
	if err == nil {
		a.d.progress("push", a.size, a.size)
	}
	return explain(err, to)
}

// explain says what to do, and quotes what the registry says.
func explain(err error, to artifact.Address) error {
	if err == nil {
		return nil
	}
	t := (*transport.Error)(nil)
	if !errors.As(err, &t) {
		return fmt.Errorf("%.500s", client.Printable(err.Error()))
	}
	if t.StatusCode == http.StatusUnauthorized || t.StatusCode == http.StatusForbidden {
		return fmt.Errorf("the registry answered %d: log in with a name that may write there (docker login %s, or podman login): %.200q", t.StatusCode, to.Registry, t.Error())
	}
	return fmt.Errorf("the registry answered %d: %.300q", t.StatusCode, t.Error())
}

// A pushMeter counts what is sent, and ends a push in which nothing goes on. The library may still read when it has returned; that no longer counts.
type pushMeter struct {
	d     *Desk
	total int64
	mu    sync.Mutex
	done  int64
	stall *time.Timer // nil before the push and behind it
}

func (m *pushMeter) begin(stalled func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stall = time.AfterFunc(pushStall, stalled)
}

func (m *pushMeter) end() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stall.Stop()
	m.stall = nil
}

// went notes that something goes on, and that n bytes more were sent.
func (m *pushMeter) went(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stall == nil {
		return
	}
	m.stall.Reset(pushStall)
	if n > 0 {
		m.done = min(m.done+int64(n), m.total-1) // some may be sent twice, and what is there already is not sent
		m.d.progress("push", m.done, m.total)
	}
}

// watched is a way on which every answer is something that goes on.
type watched struct {
	http.RoundTripper
	meter *pushMeter
}

// RoundTrip implements http.RoundTripper.
func (w watched) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := w.RoundTripper.RoundTrip(r)
	w.meter.went(0)
	return res, err
}

// metered is a file that is being sent.
type metered struct {
	io.ReadCloser
	meter *pushMeter
}

// Read implements io.Reader.
func (r metered) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.meter.went(n)
	return n, err
}

// files are a repository's, as the image that go-containerregistry pushes.
type files struct {
	d         *Desk
	files     []Written
	names     map[v1.Hash]string
	size      int64
	timestamp []byte // the one file that another command may change meanwhile
	manifest  []byte
	meter     pushMeter
}

// artifact lists the files and describes them. It holds the lock only while it lists: what was published is never changed or removed, but for the timestamp.
func (d *Desk) artifact() (*files, error) {
	a := &files{d: d, names: map[v1.Hash]string{}}
	names, err := a.list()
	if err != nil {
		return nil, err
	}
	m := artifact.Manifest{SchemaVersion: 2, MediaType: artifact.MediaType, ArtifactType: artifact.Type,
		Config: artifact.Descriptor{MediaType: artifact.EmptyType, Digest: fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(artifact.Empty))), Size: int64(len(artifact.Empty))}}
	for _, file := range names {
		if err := a.describe(file, &m); err != nil {
			return nil, err
		}
	}
	if a.manifest, err = json.Marshal(m); err != nil {
		return nil, err
	}
	if len(a.manifest) > artifact.MaxManifest {
		return nil, fmt.Errorf("%d files make a manifest of %d bytes; machines read %d at the most: a web server has no such limit", len(a.files), len(a.manifest), artifact.MaxManifest)
	}
	a.meter = pushMeter{d: d, total: max(a.size, 1)}
	return a, nil
}

// recent is how many versions of metadata a registry gets: whoever has read a timestamp is done long before the tenth push after it.
const recent = 10

// list names what the timestamp leads to, and has led to lately, and all roots. What is only staged, or left over, is not among it.
func (a *files) list() (names []string, err error) {
	unlock, err := a.d.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	pub, err := a.d.published()
	if err != nil {
		return nil, err
	}
	if a.timestamp, err = os.ReadFile(a.d.path(timestampFile)); err != nil {
		return nil, fmt.Errorf("nothing is published: %w", err)
	}
	names = []string{timestampFile}
	for _, root := range pub.roots {
		names = append(names, metaFile(version(root), metadata.ROOT))
	}
	for role, newest := range map[string]int64{metadata.SNAPSHOT: version(pub.snapshot), metadata.TARGETS: version(pub.targets), rolePlan: version(pub.plan)} {
		for v := max(1, newest-recent+1); v <= newest; v++ {
			name := metaFile(v, role)
			names = append(names, name)
			if role == metadata.SNAPSHOT {
				continue
			}
			b, err := os.ReadFile(a.d.path(name))
			if err != nil {
				return nil, err
			}
			m, err := parse[metadata.TargetsType](b)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", a.d.path(name), err)
			}
			for target, info := range m.Signed.Targets {
				names = append(names, targetFile(target, sumIn(info)))
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// describe adds a file to the manifest.
func (a *files) describe(file string, m *artifact.Manifest) error {
	r, err := a.open(file)
	if err != nil {
		return err
	}
	defer r.Close()
	hash, size, err := v1.SHA256(r)
	if err != nil {
		return err
	}
	if want := named(file); want != "" && want != hash.Hex {
		return fmt.Errorf("%s: its sha256 is %s: it is damaged; release verify says what else is", a.d.path(file), hash.Hex)
	}
	a.names[hash] = file
	a.files, a.size = append(a.files, Written{file, size}), a.size+size
	m.Layers = append(m.Layers, artifact.Descriptor{MediaType: artifact.FileType, Digest: hash.String(), Size: size, Annotations: map[string]string{artifact.TitleKey: file}})
	return nil
}

// named is the sha256 in the name of a target's file, "" for none.
func named(file string) string {
	hash, _, _ := strings.Cut(file[strings.LastIndexByte(file, '/')+1:], ".")
	if _, err := digest.Parse(hash); err != nil {
		return ""
	}
	return hash
}

func (a *files) open(file string) (io.ReadCloser, error) {
	if file == timestampFile {
		return io.NopCloser(bytes.NewReader(a.timestamp)), nil
	}
	return os.Open(a.d.path(file))
}

// RawManifest and the others implement partial.CompressedImageCore.
func (a *files) RawManifest() ([]byte, error)        { return a.manifest, nil }
func (a *files) RawConfigFile() ([]byte, error)      { return []byte(artifact.Empty), nil }
func (a *files) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }
func (a *files) LayerByDigest(h v1.Hash) (partial.CompressedLayer, error) {
	file, ok := a.names[h]
	if !ok {
		return nil, fmt.Errorf("no file has digest %s", h)
	}
	return layer{a, h, file}, nil
}

// layer is a file as go-containerregistry has it.
type layer struct {
	of   *files
	hash v1.Hash
	file string
}

func (l layer) Digest() (v1.Hash, error)            { return l.hash, nil }
func (l layer) DiffID() (v1.Hash, error)            { return l.hash, nil }
func (l layer) MediaType() (types.MediaType, error) { return artifact.FileType, nil }

// Compressed is the file: it is sent as it is.
func (l layer) Compressed() (io.ReadCloser, error) {
	r, err := l.of.open(l.file)
	if err != nil {
		return nil, err
	}
	return metered{r, &l.of.meter}, nil
}

func (l layer) Size() (int64, error) {
	for _, f := range l.of.files {
		if f.Name == l.file {
			return f.Size, nil
		}
	}
	return 0, fmt.Errorf("%s: no such file", l.file)
}
