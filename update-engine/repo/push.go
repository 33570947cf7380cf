package repo

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/update-engine/artifact"
)

// Pushed is what a registry has got.
type Pushed struct {
	Address string    `json:"address"`
	Digest  string    `json:"digest"` // of the artifact's manifest
	Size    int64     `json:"size"`   // bytes of all files
	Files   []Written `json:"files"`
}

// Push copies metadata/ and targets/ to a registry as an artifact (package artifact), with the name and password that docker or podman have for it. What
// the registry has is not sent again; the tag is moved last, so that a push that fails, or is cut, leaves what was there.
func (d *Desk) Push(ctx context.Context, to artifact.Address, way http.RoundTripper) (*Pushed, error) {
	a, err := d.artifact()
	if err != nil {
		return nil, fmt.Errorf("push: %w", err)
	}
	done := &Pushed{Address: to.String(), Digest: fmt.Sprintf("sha256:%x", sha256.Sum256(a.manifest)), Files: a.files}
	for _, f := range a.files {
		done.Size += f.Size
	}
	if d.DryRun {
		return done, nil
	}
	if err := d.push(ctx, a, to, way); err != nil {
		return nil, fmt.Errorf("push to %s: %w", to, err)
	}
	return done, nil
}

func (d *Desk) push(ctx context.Context, a *files, to artifact.Address, way http.RoundTripper) error {
	var opts []name.Option
	if to.Plain {
		opts = append(opts, name.Insecure)
	}
	tag, err := name.NewTag(to.Registry+"/"+to.Name+":"+to.Tag, opts...)
	if err != nil {
		return err
	}
	image, err := partial.CompressedToImage(a)
	if err != nil {
		return err
	}
	updates := make(chan v1.Update, 100)
	result := make(chan error, 1)
	go func() {
		result <- remote.Write(tag, image, remote.WithContext(ctx), remote.WithTransport(way), remote.WithAuthFromKeychain(authn.DefaultKeychain), remote.WithProgress(updates))
	}()
	for u := range updates {
		if u.Error == nil {
			d.progress("push", u.Complete, u.Total)
		}
	}
	return explain(<-result, to)
}

// explain says what to do, and quotes what the registry says.
func explain(err error, to artifact.Address) error {
	t := (*transport.Error)(nil)
	if !errors.As(err, &t) {
		return err
	}
	if t.StatusCode == http.StatusUnauthorized || t.StatusCode == http.StatusForbidden {
		return fmt.Errorf("the registry answered %d: log in with a name that may write there (docker login %s, or podman login): %.200q", t.StatusCode, to.Registry, t.Error())
	}
	return fmt.Errorf("the registry answered %d: %.300q", t.StatusCode, t.Error())
}

// files are a repository's, as the image that go-containerregistry pushes.
type files struct {
	d         *Desk
	files     []Written
	names     map[v1.Hash]string
	timestamp []byte // the one file that another command may change meanwhile
	manifest  []byte
}

// artifact lists the files and describes them. It holds the lock only meanwhile: what was published is never changed or removed.
func (d *Desk) artifact() (*files, error) {
	unlock, err := d.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	a := &files{d: d, names: map[v1.Hash]string{}}
	if a.timestamp, err = os.ReadFile(d.path(timestampFile)); err != nil {
		return nil, fmt.Errorf("nothing is published: %w", err)
	}
	m := artifact.Manifest{SchemaVersion: 2, MediaType: artifact.MediaType, ArtifactType: artifact.Type,
		Config: artifact.Descriptor{MediaType: artifact.EmptyType, Digest: fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(artifact.Empty))), Size: int64(len(artifact.Empty))}}
	for _, dir := range []string{"metadata", "targets"} {
		err = errors.Join(err, fs.WalkDir(os.DirFS(d.Dir), dir, func(file string, e fs.DirEntry, err error) error {
			if dir == "targets" && errors.Is(err, fs.ErrNotExist) { // no release yet
				return nil
			}
			if err != nil || !e.Type().IsRegular() || strings.HasPrefix(e.Name(), ".") {
				return err
			}
			return a.describe(file, &m)
		}))
	}
	if err != nil {
		return nil, err
	}
	if a.manifest, err = json.Marshal(m); err != nil {
		return nil, err
	}
	if len(a.manifest) > artifact.MaxManifest {
		return nil, fmt.Errorf("%d files make a manifest of %d bytes; registries take %d: a web server has no such limit", len(a.files), len(a.manifest), artifact.MaxManifest)
	}
	return a, nil
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
	a.files = append(a.files, Written{file, size})
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

// layer is a file as go-containerregistry has it. It is sent as it is.
type layer struct {
	of   *files
	hash v1.Hash
	file string
}

func (l layer) Digest() (v1.Hash, error)            { return l.hash, nil }
func (l layer) DiffID() (v1.Hash, error)            { return l.hash, nil }
func (l layer) MediaType() (types.MediaType, error) { return artifact.FileType, nil }
func (l layer) Compressed() (io.ReadCloser, error)  { return l.of.open(l.file) }
func (l layer) Size() (int64, error) {
	for _, f := range l.of.files {
		if f.Name == l.file {
			return f.Size, nil
		}
	}
	return 0, fmt.Errorf("%s: no such file", l.file)
}
