package bundle

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/runtime/image"
	"github.com/proa-os/proa/runtime/store"
)

// Prepare makes the bundle of a container in dir and leaves this thread in a mount namespace of its own, in which the
// container's overlay is mounted. The caller executes oci-runtime from the same thread: the container copies the namespace,
// and when its last process has gone the overlay is gone. It is never mounted where anybody has to unmount it.
func Prepare(s *store.Store, name, dir string, start Start) error {
	c, err := s.Container(name)
	if err != nil {
		return err
	}
	img, err := s.Load(c.Manifest)
	if err != nil {
		return fmt.Errorf("prepare %s: %w", name, err)
	}
	// The workload may write the files, so they lie on the disk it can fill anyway, and not in /run, which is memory and
	// which systemd needs.
	p := Place{Rootfs: filepath.Join(s.ContainerDir(name), "rootfs"), Files: filepath.Join(s.ContainerDir(name), "files")}
	for _, d := range []string{dir, p.Files} {
		if err := os.MkdirAll(d, 0o711); err != nil {
			return fmt.Errorf("prepare %s: %w", name, err)
		}
	}
	if err := writeFiles(p.Files, c); err != nil {
		return fmt.Errorf("prepare %s: %w", name, err)
	}
	if _, err := Mount(s, c); err != nil {
		return err
	}
	if err := writeConfig(s, c, &img.Config, p, dir, start); err != nil {
		return fmt.Errorf("prepare %s: %w", name, err)
	}
	return nil
}

// Mount leaves this thread in a mount namespace of its own, in which the container's root is mounted at the path that it returns.
func Mount(s *store.Store, c *store.Container) (root string, err error) {
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return "", fmt.Errorf("prepare %s: make mount namespace (needs root): %w", c.Name, err)
	}
	if err := unix.MountSetattr(unix.AT_FDCWD, "/", unix.AT_RECURSIVE, &unix.MountAttr{Propagation: unix.MS_PRIVATE}); err != nil {
		return "", fmt.Errorf("prepare %s: make mounts private: %w", c.Name, err)
	}
	dir := s.ContainerDir(c.Name)
	l := layersOf(s, c)
	if c.IDs != nil && c.IDs.First != 0 {
		if err := l.mapIDs(c.IDs, filepath.Join(dir, "lower")); err != nil {
			return "", fmt.Errorf("prepare %s: map owners: %w", c.Name, err)
		}
	}
	root = filepath.Join(dir, "rootfs")
	// Overlayfs works in the upper directory for whoever mounts it.
	if err := AsRoot(c.IDs, func() error { return l.mount(root, "proa-"+c.Name) }); err != nil {
		return "", fmt.Errorf("prepare %s: %w", c.Name, err)
	}
	return root, nil
}

// writeConfig writes config.json to dir. It looks into the mounted root, whose content is the image author's and the workload's.
func writeConfig(st *store.Store, c *store.Container, img *image.Config, p Place, dir string, start Start) error {
	root, err := os.OpenRoot(p.Rootfs)
	if err != nil {
		return err
	}
	defer root.Close()
	user := c.User
	if user == "" {
		user = img.Config.User
	}
	u, err := LookupUser(root, user)
	if err != nil {
		return err
	}
	if err := u.Join(root, c.Groups); err != nil {
		return err
	}
	if cwd := strings.TrimPrefix(WorkDir(c, img), "/"); cwd != "" {
		if _, err := root.Stat(cwd); errors.Is(err, fs.ErrNotExist) {
			if err := AsRoot(c.IDs, func() error { return root.MkdirAll(cwd, 0o755) }); err != nil {
				return fmt.Errorf("make working directory: %w", err)
			}
		}
	}
	// Images of whole systems have dangling links here, on which nothing can be mounted.
	for _, f := range []string{"etc/resolv.conf", "etc/hosts", "etc/hostname"} {
		if st, err := root.Lstat(f); err == nil && st.Mode()&fs.ModeSymlink != 0 {
			if err := root.Remove(f); err != nil {
				return err
			}
		}
	}
	if err := useVolumes(st, c, u, p.Rootfs); err != nil {
		return err
	}
	if err := useSecrets(st.SecretsDir(), filepath.Join(dir, "secrets"), c); err != nil {
		return err
	}
	s, err := Spec(c, img, u, p, start)
	if err != nil {
		return err
	}
	if s.Linux.Devices, err = devices(c); err != nil {
		return err
	}
	if c.Privileged || slices.ContainsFunc(c.CapAdd, func(n string) bool { return strings.EqualFold(n, "ALL") }) {
		if err := onlyPermitted(s.Process.Capabilities); err != nil {
			return err
		}
	}
	b, err := json.MarshalIndent(s, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "config.json"), b, 0o600)
}

// onlyPermitted makes of "all capabilities" those that there are to give.
func onlyPermitted(c *specs.LinuxCapabilities) error {
	have, err := permitted()
	if err != nil {
		return err
	}
	for _, l := range []*[]string{&c.Bounding, &c.Effective, &c.Permitted} {
		*l = slices.DeleteFunc(slices.Clone(*l), func(n string) bool { return !have[n] })
	}
	return nil
}

// writeFiles writes what the machine knows: names, and where to ask for names.
func writeFiles(dir string, c *store.Container) error {
	hosts := "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t" + hostname(c) + "\n"
	resolv := []byte{}
	if c.Network == "host" {
		var err error
		if resolv, err = os.ReadFile("/etc/resolv.conf"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	for name, data := range map[string][]byte{"hosts": []byte(hosts), "hostname": []byte(hostname(c) + "\n"), "resolv.conf": resolv} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// layers are the directories of an overlay, the topmost of the lower ones first.
type layers struct {
	lower       []string
	upper, work string
	volatile    bool // what is written need not outlive the machine
}

func layersOf(s *store.Store, c *store.Container) *layers {
	dir := s.ContainerDir(c.Name)
	l := &layers{upper: filepath.Join(dir, "upper"), work: filepath.Join(dir, "work"), volatile: c.Remove}
	for _, d := range slices.Backward(c.Layers) {
		l.lower = append(l.lower, s.LayerDir(d))
	}
	if len(l.lower) == 0 {
		l.lower = []string{filepath.Join(dir, "rootfs")}
	}
	return l
}

// mount mounts the overlay. Devices in it do not work: the container's are in /dev, which is a mount of its own.
func (l *layers) mount(target, source string) error {
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("mount overlay: %w", err)
	}
	defer unix.Close(fs)
	if l.volatile {
		if err := l.setVolatile(fs); err != nil {
			return err
		}
	}
	var options [][2]string
	for _, d := range l.lower {
		options = append(options, [2]string{"lowerdir+", d})
	}
	options = append(options, [2]string{"upperdir", l.upper}, [2]string{"workdir", l.work}, [2]string{"source", source})
	for _, o := range options {
		if err := unix.FsconfigSetString(fs, o[0], o[1]); err != nil {
			return fmt.Errorf("mount overlay: %s=%s: %w", o[0], o[1], err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return fmt.Errorf("mount overlay of %d layers: %w (see the kernel log)", len(l.lower), err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NODEV)
	if err != nil {
		return fmt.Errorf("mount overlay: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount overlay: %w", err)
	}
	return nil
}

// setVolatile keeps the overlay from writing through. Without it the end of every container waits until all that anybody has written to the
// file system below is on the disk (linux, fs/overlayfs/super.c, ovl_sync_fs).
func (l *layers) setVolatile(fs int) error {
	// An earlier mount has left word that a cut of the power since then would have torn what is here. It would be for one run only.
	if err := os.RemoveAll(filepath.Join(l.work, "work", "incompat")); err != nil {
		return fmt.Errorf("mount overlay: %w", err)
	}
	if err := unix.FsconfigSetFlag(fs, "volatile"); err != nil {
		return fmt.Errorf("mount overlay: volatile: %w", err)
	}
	return nil
}

// Lower is what is below a container's own files: its layers as one tree, which is mounted nowhere and goes with the root.
func Lower(s *store.Store, c *store.Container) (*os.Root, error) {
	bottom := filepath.Join(s.ContainerDir(c.Name), "rootfs")
	if len(c.Layers) == 0 {
		return os.OpenRoot(bottom)
	}
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("mount layers: %w", err)
	}
	defer unix.Close(fs)
	// An overlay without an upper directory has two of lower ones at least: below all there is an empty one.
	for _, d := range append(layersOf(s, c).lower, bottom) {
		if err := unix.FsconfigSetString(fs, "lowerdir+", d); err != nil {
			return nil, fmt.Errorf("mount layers: lowerdir+=%s: %w", d, err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, fmt.Errorf("mount %d layers: %w (see the kernel log)", len(c.Layers), err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_RDONLY)
	if err != nil {
		return nil, fmt.Errorf("mount layers: %w", err)
	}
	defer unix.Close(fd)
	return os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", fd))
}
