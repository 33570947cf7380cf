package world

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"os"
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

	"github.com/proa-os/proa/internal/tooltree"
	"github.com/proa-os/proa/qemu-tests/vm"
)

// A Registry is a container registry (OCI distribution spec, go-containerregistry's) in memory, by plain HTTP.
type Registry struct {
	server *http.Server
	port   int
	done   chan error
}

// StartRegistry serves an empty registry on a free port of the loopback interface until Close.
func StartRegistry() (*Registry, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start registry: %w", err)
	}
	r := &Registry{port: l.Addr().(*net.TCPAddr).Port, done: make(chan error, 1)}
	r.server = &http.Server{
		Handler:           registry.New(registry.Logger(log.New(io.Discard, "", 0))),
		ReadHeaderTimeout: time.Minute,
	}
	go func() { r.done <- r.server.Serve(l) }()
	return r, nil
}

// GuestHost is the registry's name for a machine: the first part of an image reference.
func (r *Registry) GuestHost() string { return fmt.Sprintf("%s:%d", vm.HostAddress, r.port) }

// HostHost is the registry's name for the host.
func (r *Registry) HostHost() string { return fmt.Sprintf("127.0.0.1:%d", r.port) }

// Close ends the server.
func (r *Registry) Close() error {
	err := r.server.Close()
	if served := <-r.done; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

// PushBusybox pushes an image made of the tools tree's static busybox, with all its applets in /bin, and files (absolute path to
// content) that runs command. ref is repository:tag; the image's digest comes back.
func (r *Registry) PushBusybox(ctx context.Context, ref string, files map[string]string, command []string) (string, error) {
	image, err := busyboxImage(ctx, files, command)
	if err != nil {
		return "", fmt.Errorf("make image %s: %w", ref, err)
	}
	to, err := name.ParseReference(r.HostHost()+"/"+ref, name.Insecure)
	if err != nil {
		return "", fmt.Errorf("push image: %w", err)
	}
	if err := remote.Write(to, image, remote.WithContext(ctx)); err != nil {
		return "", fmt.Errorf("push image %s: %w", ref, err)
	}
	digest, err := image.Digest()
	if err != nil {
		return "", fmt.Errorf("push image %s: %w", ref, err)
	}
	return digest.String(), nil
}

func busyboxImage(ctx context.Context, files map[string]string, command []string) (v1.Image, error) {
	tree, err := tooltree.Open()
	if err != nil {
		return nil, err
	}
	busybox, err := os.ReadFile(tree.Path("usr/bin/busybox"))
	if err != nil {
		return nil, err
	}
	list, err := tree.Command(ctx, "busybox", "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("list applets of busybox: %w", err)
	}
	layer, err := busyboxLayer(busybox, strings.Fields(string(list)), files)
	if err != nil {
		return nil, err
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer)), nil })
	if err != nil {
		return nil, err
	}
	image, err := mutate.AppendLayers(empty.Image, l)
	if err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.Architecture, config.OS = "amd64", "linux"
	config.Config = v1.Config{Cmd: command, Env: []string{"PATH=/bin"}}
	return mutate.ConfigFile(image, config)
}

// busyboxLayer is a tar archive, the same for the same content.
func busyboxLayer(busybox []byte, applets []string, files map[string]string) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	var errs []error
	add := func(h tar.Header, content []byte) {
		h.Size, h.Format, h.ModTime = int64(len(content)), tar.FormatPAX, time.Unix(0, 0)
		errs = append(errs, w.WriteHeader(&h))
		_, err := w.Write(content)
		errs = append(errs, err)
	}
	made := map[string]bool{"/": true, ".": true}
	var folder func(dir string)
	folder = func(dir string) {
		if !made[dir] {
			made[dir] = true
			folder(path.Dir(dir))
			add(tar.Header{Typeflag: tar.TypeDir, Name: strings.TrimPrefix(dir, "/") + "/", Mode: 0o755}, nil)
		}
	}
	for _, dir := range []string{"/bin", "/etc", "/tmp"} {
		folder(dir)
	}
	add(tar.Header{Typeflag: tar.TypeReg, Name: "bin/busybox", Mode: 0o755}, busybox)
	for _, applet := range applets {
		if applet != "busybox" {
			add(tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + path.Base(applet), Linkname: "busybox", Mode: 0o777}, nil)
		}
	}
	for _, file := range slices.Sorted(maps.Keys(files)) {
		folder(path.Dir(path.Clean(file)))
		add(tar.Header{Typeflag: tar.TypeReg, Name: strings.TrimPrefix(path.Clean(file), "/"), Mode: 0o644}, []byte(files[file]))
	}
	errs = append(errs, w.Close())
	return b.Bytes(), errors.Join(errs...)
}
