package oneshot

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/proa-os/proa/internal/registrytest"
	"github.com/proa-os/proa/qemu-tests/bench/start"
	"github.com/proa-os/proa/qemu-tests/world"
)

const (
	place = "/run/bench" // on the machine, in memory
	image = "bench/true:1"
)

// inside measures in a mount namespace in which crun's libraries come before the machine's: crun executes itself again and may clear its
// environment, so that neither its own loader's name nor a variable would reach it.
func inside(libDir string) string {
	return fmt.Sprintf("exec unshare -m sh -c 'mount -t overlay -o ro,lowerdir=%[1]s/lib:/%[2]s bench /%[2]s && exec %[1]s/bench-rounds < %[1]s/plan'", place, libDir)
}

// furnish puts on the machine what is measured.
func (b *bench) furnish(registry *world.Registry) error {
	fmt.Fprintln(b.Messages, "copying crun, a bundle and an image")
	files, err := writeBundle(filepath.Join(b.Out, "bundle"))
	if err != nil {
		return err
	}
	i := registrytest.Image{Layers: [][]registrytest.File{{{Name: "bin/"}, {Name: "bin/true", Body: string(files["rootfs/bin/true"]), Mode: 0o755}}},
		Config: v1.Config{Cmd: []string{"/bin/true"}}}
	if _, err := registry.Push(image, i); err != nil {
		return err
	}
	scoped := bytes.Replace(files["config.json"], []byte(`"/proa-bench"`), []byte(`"system.slice:proa:bench"`), 1)
	if bytes.Equal(scoped, files["config.json"]) {
		return errors.New("the bundle has another linux.cgroupsPath than /proa-bench")
	}
	send := map[string][]byte{
		"bundle/config.json": files["config.json"], "bundle/rootfs/bin/true": files["rootfs/bin/true"],
		"scope/config.json": scoped, "scope/rootfs/bin/true": files["rootfs/bin/true"],
	}
	if send["bench-rounds"], err = b.rounds(); err != nil {
		return err
	}
	tree, err := start.OpenPeers(b.ctx, start.Options{Manifests: b.Manifests, APT: b.APT})
	if err != nil {
		return err
	}
	if send["crun"], err = os.ReadFile(tree.Path("usr/bin/crun")); err != nil {
		return err
	}
	libs, err := libraries(tree.Path("usr/bin/crun"), tree.Path(b.host.LibDir()))
	if err != nil {
		return err
	}
	for name, content := range libs {
		send["lib/"+name] = content
	}
	made := fmt.Sprintf("mkdir %[1]s %[1]s/lib && for b in bundle scope; do mkdir -p %[1]s/$b/rootfs && (cd %[1]s/$b/rootfs && mkdir bin proc dev sys tmp); done", place)
	if _, err := b.machine.Run(b.ctx, "root", made); err != nil {
		return err
	}
	for name, content := range send {
		if err := b.machine.CopyTo(b.ctx, "root", path.Join(place, name), 0o755, content); err != nil {
			return err
		}
	}
	_, err = b.machine.Run(b.ctx, "root", "containerctl pull --tls-verify=false "+registry.GuestHost()+"/"+image)
	return err
}

// rounds builds the program that measures on the machine.
func (b *bench) rounds() ([]byte, error) {
	repo, err := world.FindRepository()
	if err != nil {
		return nil, err
	}
	file := filepath.Join(b.Out, "bench-rounds")
	cmd := exec.CommandContext(b.ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", file, "./qemu-tests/cmd/bench-rounds")
	cmd.Dir, cmd.Env = repo, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build bench-rounds: %w\n%s", err, out)
	}
	return os.ReadFile(file)
}

// libraries are those that a program needs, and those that they need, by name. Those that dir does not have are the machine's.
func libraries(program, dir string) (map[string][]byte, error) {
	out := map[string][]byte{}
	for todo := []string{program}; len(todo) > 0; todo = todo[1:] {
		f, err := elf.Open(todo[0])
		if err != nil {
			return nil, fmt.Errorf("read libraries of %s: %w", todo[0], err)
		}
		names, err := f.ImportedLibraries()
		if err := errors.Join(err, f.Close()); err != nil {
			return nil, fmt.Errorf("read libraries of %s: %w", todo[0], err)
		}
		for _, name := range names {
			if out[name] != nil {
				continue
			}
			file := filepath.Join(dir, name)
			b, err := os.ReadFile(file)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, err
			}
			out[name] = b
			todo = append(todo, file)
		}
	}
	return out, nil
}
