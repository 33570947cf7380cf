// Package registrytest serves container images on a loopback port for tests: of the runtime, of the release desk, of whole machines and of the
// demo. The registry is go-containerregistry's own, in memory; images are built here from files.
//
// It speaks plain HTTP, so clients need --tls-verify=false, or TLS with an authority of its own (StartTLS). A machine in QEMU's user network
// reaches it as 10.0.2.2:<port>. Proxy is one on the way there, Debian another registry, from the judges' tree.
package registrytest

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// A Registry is a running registry.
type Registry struct {
	Addr   string // host:port it listens on
	CA     []byte // PEM: who vouches for it, if it speaks TLS
	server *http.Server
	way    http.RoundTripper // for our own pushes
}

// Start serves an empty registry on addr, for example "127.0.0.1:0".
func Start(addr string) (*Registry, error) {
	return StartHandler(addr, func(h http.Handler) http.Handler { return h })
}

// StartHandler is Start with a handler in between, for registries that misbehave.
func StartHandler(addr string, wrap func(http.Handler) http.Handler) (*Registry, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("start registry: %w", err)
	}
	r := &Registry{Addr: l.Addr().String(), server: newServer(wrap), way: remote.DefaultTransport}
	go r.server.Serve(l) // ends with Close
	return r, nil
}

func newServer(wrap func(http.Handler) http.Handler) *http.Server {
	quiet := log.New(io.Discard, "", 0)
	return &http.Server{Handler: wrap(registry.New(registry.Logger(quiet))), ErrorLog: quiet, ReadHeaderTimeout: time.Minute}
}

// Close stops the registry at once: a client that keeps a connection open does not keep a test waiting.
func (r *Registry) Close() error { return r.server.Close() }

// A File is an entry of a layer. A name with / at the end is a directory, a link target makes a symbolic link.
type File struct {
	Name, Body, Link string
	Mode             int64 // 0 is 0755 for directories, 0644 for files
}

// An Image is what Push builds: layers of files, lowest first, and a configuration.
type Image struct {
	Layers [][]File
	Config v1.Config
}

// PushBusybox pushes an image with busybox at /bin/busybox, links for its usual programs, the files (absolute path to
// content) as a second layer, and cmd. name is "web" or "web:1"; the digest is "sha256:...".
func (r *Registry) PushBusybox(image string, busybox []byte, files map[string]string, cmd []string) (string, error) {
	base := []File{{Name: "bin/"}, {Name: "etc/"}, {Name: "tmp/", Mode: 0o1777}, {Name: "proc/"}, {Name: "sys/"}, {Name: "dev/"},
		{Name: "etc/passwd", Body: "root:x:0:0:root:/root:/bin/sh\nwww:x:33:33:www:/www:/bin/sh\n"},
		{Name: "etc/group", Body: "root:x:0:\nwww:x:33:\n"},
		{Name: "bin/busybox", Body: string(busybox), Mode: 0o755}}
	for _, applet := range strings.Fields(applets) {
		base = append(base, File{Name: "bin/" + applet, Link: "busybox"})
	}
	var top []File
	for _, p := range slices.Sorted(maps.Keys(files)) {
		top = append(top, File{Name: strings.TrimPrefix(path.Clean("/"+p), "/"), Body: files[p]})
	}
	i := Image{Layers: [][]File{base}, Config: v1.Config{Cmd: cmd, Env: []string{"PATH=/bin"}, WorkingDir: "/"}}
	if len(top) > 0 {
		i.Layers = append(i.Layers, top)
	}
	return r.Push(image, i)
}

const applets = `sh ls cat echo sleep true false id ps wget httpd grep test kill mount hostname nc ip env date touch rm mkdir stat head`

// Push builds an image for linux/amd64 and pushes it.
func (r *Registry) Push(image string, i Image) (string, error) {
	img, err := Build(i)
	if err != nil {
		return "", err
	}
	return r.PushImage(image, img)
}

// PushImage pushes an image that was built elsewhere.
func (r *Registry) PushImage(image string, img v1.Image) (string, error) {
	ref, err := name.ParseReference(r.Addr+"/"+image, name.Insecure)
	if err != nil {
		return "", err
	}
	if err := remote.Write(ref, img, remote.WithTransport(r.way)); err != nil {
		return "", fmt.Errorf("push %s: %w", image, err)
	}
	d, err := img.Digest()
	return d.String(), err
}

// PushIndex pushes an index of images for several machines, "linux/amd64" and the like.
func (r *Registry) PushIndex(image string, images map[string]v1.Image) (string, error) {
	ref, err := name.ParseReference(r.Addr+"/"+image, name.Insecure)
	if err != nil {
		return "", err
	}
	index := v1.ImageIndex(empty.Index)
	for _, platform := range slices.Sorted(maps.Keys(images)) {
		os, arch, _ := strings.Cut(platform, "/")
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: images[platform], Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: os, Architecture: arch}}})
	}
	if err := remote.WriteIndex(ref, index, remote.WithTransport(r.way)); err != nil {
		return "", fmt.Errorf("push %s: %w", image, err)
	}
	d, err := index.Digest()
	return d.String(), err
}

// Build makes an image. The same input gives the same digest.
func Build(i Image) (v1.Image, error) {
	img, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{OS: "linux", Architecture: "amd64", Config: i.Config,
		RootFS: v1.RootFS{Type: "layers"}})
	if err != nil {
		return nil, err
	}
	for _, files := range i.Layers {
		data, err := archive(files)
		if err != nil {
			return nil, err
		}
		// It is packed once, and not each time that somebody asks for its digest, its size or its bytes.
		l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }, tarball.WithCompressedCaching)
		if err != nil {
			return nil, err
		}
		if img, err = mutate.AppendLayers(img, l); err != nil {
			return nil, err
		}
	}
	return img, nil
}

func archive(files []File) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Name: f.Name, Typeflag: tar.TypeReg, Mode: f.Mode, Size: int64(len(f.Body)), ModTime: time.Unix(1700000000, 0)}
		switch {
		case f.Link != "":
			h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, f.Link, 0o777
		case strings.HasSuffix(f.Name, "/"):
			h.Typeflag = tar.TypeDir
			if h.Mode == 0 {
				h.Mode = 0o755
			}
		case h.Mode == 0:
			h.Mode = 0o644
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("build layer: %s: %w", f.Name, err)
		}
		if _, err := io.WriteString(w, f.Body); err != nil {
			return nil, fmt.Errorf("build layer: %s: %w", f.Name, err)
		}
	}
	return b.Bytes(), w.Close()
}
