package world

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"

	"github.com/google/go-containerregistry/pkg/compression"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/proa-os/proa/image-builder/archive"
	"github.com/proa-os/proa/image-builder/lock"
	"github.com/proa-os/proa/internal/registrytest"
	"github.com/proa-os/proa/internal/tooltree"
)

// python is what `python3.13 -m http.server` needs, in the order of its layers.
func python() []string {
	return []string{"libc6", "zlib1g", "libexpat1", "libssl3t64", "libbz2-1.0", "liblzma5", "libffi8", "libpython3.13-minimal", "python3.13-minimal", "libpython3.13-stdlib"}
}

// PushPages pushes an image of Debian's Python, a package a layer, whose web server serves page on port 8000, over IPv4 and IPv6: thousands of files,
// links of both kinds, layers of gzip and of zstd. The packages are those of the tools tree in the checkout repo.
func (r *Registry) PushPages(ctx context.Context, repo, image, page string) error {
	packages, cache, err := pinned(ctx, repo, python())
	if err != nil {
		return fmt.Errorf("push %s: %w", image, err)
	}
	// Debian's programs expect the merged /usr, which base-files brings there.
	base := []registrytest.File{{Name: "usr/"}, {Name: "usr/lib/"}, {Name: "usr/lib64/"}, {Name: "usr/bin/"}, {Name: "lib", Link: "usr/lib"}, {Name: "lib64", Link: "usr/lib64"}, {Name: "bin", Link: "usr/bin"},
		{Name: "etc/"}, {Name: "etc/passwd", Body: "root:x:0:0:root:/:/bin/sh\nwww:x:33:33:www:/:/bin/sh\n"}, {Name: "tmp/", Mode: 0o1777}, {Name: "proc/"}, {Name: "sys/"}, {Name: "dev/"}}
	img, err := registrytest.Build(registrytest.Image{Layers: [][]registrytest.File{base}, Config: v1.Config{
		Cmd: []string{"/usr/bin/python3.13", "-u", "-m", "http.server", "-b", "::", "-d", "/srv", "8000"}, User: "www", Env: []string{"PATH=/usr/bin"}}})
	if err != nil {
		return err
	}
	for i, p := range packages {
		l, err := packageLayer(lock.Path(cache, p), p, i%2 == 1)
		if err != nil {
			return fmt.Errorf("push %s: %s: %w", image, p.Name, err)
		}
		if img, err = mutate.AppendLayers(img, l); err != nil {
			return err
		}
	}
	top, err := registrytest.Build(registrytest.Image{Layers: [][]registrytest.File{{{Name: "srv/"}, {Name: "srv/index.html", Body: page}}}})
	if err != nil {
		return err
	}
	layers, err := top.Layers()
	if err != nil {
		return err
	}
	if img, err = mutate.AppendLayers(img, layers...); err != nil {
		return err
	}
	_, err = r.PushImage(image, img)
	return err
}

// many are packages of programs, libraries and thousands of small files, for an image such as people pull.
func many() []string {
	return append(python(), "binutils-common", "binutils-x86-64-linux-gnu", "libglib2.0-0t64", "openssl", "systemd", "udev", "qemu-system-x86")
}

// PushPackages pushes an image that is only there to be pulled: Debian packages of the tools tree, a layer each, all of gzip. It returns
// how many layers there are, and how many bytes: compressed, and as archives.
func (r *Registry) PushPackages(ctx context.Context, repo, image string) (layers int, packed, plain int64, err error) {
	packages, cache, err := pinned(ctx, repo, many())
	if err != nil {
		return 0, 0, 0, fmt.Errorf("push %s: %w", image, err)
	}
	img, err := registrytest.Build(registrytest.Image{})
	if err != nil {
		return 0, 0, 0, err
	}
	img = mutate.ConfigMediaType(mutate.MediaType(img, types.OCIManifestSchema1), types.OCIConfigJSON) // podman takes no layers of one kind in manifests of the other
	for _, p := range packages {
		l, err := packageLayer(lock.Path(cache, p), p, false)
		if err != nil {
			return 0, 0, 0, fmt.Errorf("push %s: %s: %w", image, p.Name, err)
		}
		size, err := l.Size()
		if err != nil {
			return 0, 0, 0, err
		}
		archive, err := l.Uncompressed()
		if err != nil {
			return 0, 0, 0, err
		}
		n, err := io.Copy(io.Discard, archive)
		if err != nil {
			return 0, 0, 0, err
		}
		packed, plain = packed+size, plain+n
		if img, err = mutate.AppendLayers(img, l); err != nil {
			return 0, 0, 0, err
		}
	}
	_, err = r.PushImage(image, img)
	return len(packages), packed, plain, err
}

// pinned returns the named packages of the tools tree's lock, in that order, fetched into the cache.
func pinned(ctx context.Context, repo string, names []string) ([]lock.Package, string, error) {
	cache, err := tooltree.CacheDir()
	if err != nil {
		return nil, "", err
	}
	l, err := lock.Read(filepath.Join(repo, "manifests/tools.lock.json"))
	if err != nil {
		return nil, "", err
	}
	var found []lock.Package
	for _, name := range names {
		i := slices.IndexFunc(l.Packages, func(p lock.Package) bool { return p.Name == name })
		if i < 0 {
			return nil, "", fmt.Errorf("package %s is not pinned in manifests/tools.lock.json", name)
		}
		found = append(found, l.Packages[i])
	}
	l.Packages = found
	m, err := lock.ReadManifest(filepath.Join(repo, "manifests/tools.toml"))
	if err != nil {
		return nil, "", err
	}
	mirrors, err := lock.FindMirrors(l, cache, archive.Mirrors{}, m.Mirror, "/etc/apt")
	if err != nil {
		return nil, "", err
	}
	return found, cache, lock.Fetch(ctx, l, mirrors, cache, os.Stderr)
}

// packageLayer is a layer of a package's files.
func packageLayer(file string, p lock.Package, zstd bool) (v1.Layer, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	err := lock.Unpack(file, p, func(h *tar.Header, content io.Reader) error {
		c := *h
		c.Name, c.Format = path.Clean(h.Name), tar.FormatPAX
		if h.Typeflag == tar.TypeDir {
			c.Name += "/"
		}
		if h.Typeflag == tar.TypeLink {
			c.Linkname = path.Clean(h.Linkname)
		}
		if err := w.WriteHeader(&c); err != nil {
			return err
		}
		_, err := io.Copy(w, content)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	options := []tarball.LayerOption{tarball.WithMediaType(types.OCILayer)}
	if zstd {
		options = []tarball.LayerOption{tarball.WithCompression(compression.ZStd), tarball.WithMediaType(types.OCILayerZStd)}
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil }, options...)
}
