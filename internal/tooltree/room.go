package tooltree

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Room is a mount namespace whose root is the tree: for programs that Command cannot run, because they start themselves again by
// /proc/self/exe, start others by name, or read files at fixed paths. Engines of containers do all three.
//
//	/usr                the tree's, read-only; /bin, /lib ... lead there
//	/etc                a copy of the tree's, with the few accounts and names that programs ask for
//	/proc, /dev, /sys   the host's; /sys/fs/cgroup is cgroup2 alone, as on a machine
//	what Enter names    the host's, at the same path
//	all else            empty, in memory
//
// What is mounted in it nobody else sees, and all is gone with its last process. A program is killed when the room is left, but not what it has
// started in turn: whoever runs daemons ends them. Rooms need root.
type Room struct {
	tree *Tree
	work chan func() // for the one thread that is inside
	done chan struct{}
}

// RoomOptions say what a room shares with the host.
type RoomOptions struct {
	Binds   []string // files and directories that are in the room under the same path, with what is mounted below
	Network bool     // the host's network; otherwise one of its own, with nothing in it but a loopback that is down
}

// Enter makes a room and one thread of this process that is in it.
func (t *Tree) Enter(o RoomOptions) (*Room, error) {
	r := &Room{tree: t, work: make(chan func()), done: make(chan struct{})}
	ready := make(chan error)
	go onOwnThread(func() {
		defer close(r.done)
		if err := t.furnish(o); err != nil {
			ready <- fmt.Errorf("make a room of %s: %w", t.dir, err)
			return
		}
		ready <- nil
		for f := range r.work {
			f()
		}
	})
	if err := <-ready; err != nil {
		return nil, err
	}
	return r, nil
}

// onOwnThread runs f on a thread that ends with it. That is never the first one, which the process is known by: /proc/self is its.
func onOwnThread(f func()) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		f() // the thread is not unlocked: it ends with the goroutine
		return
	}
	defer runtime.UnlockOSThread()
	var other sync.WaitGroup
	other.Go(func() { // not on the first thread while this goroutine keeps it
		runtime.LockOSThread()
		f()
	})
	other.Wait()
}

// Close leaves the room. It kills the programs that are still running.
func (r *Room) Close() {
	close(r.work)
	<-r.done
}

// Do runs f on the thread that is in the room: files are the room's.
func (r *Room) Do(f func() error) error {
	errs := make(chan error)
	r.work <- func() { errs <- f() }
	return <-errs
}

// Command returns a command for Start, Run or Output. Its environment has a PATH and nothing of the caller's.
func (r *Room) Command(ctx context.Context, program string, args ...string) *exec.Cmd {
	path := program
	if !strings.ContainsRune(program, '/') {
		path = "/usr/bin/" + program
		if _, err := os.Stat(r.tree.Path(path)); err != nil {
			path = "/usr/sbin/" + program
		}
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = []string{"PATH=/usr/bin:/usr/sbin", "HOME=/root", "LC_ALL=C.UTF-8", "TZ=UTC", "TMPDIR=/var/tmp"}
	return cmd
}

// Start starts a command in the room; it dies with the room's thread.
func (r *Room) Start(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	return r.Do(cmd.Start)
}

// Run starts a command in the room and waits for its end.
func (r *Room) Run(cmd *exec.Cmd) error {
	if err := r.Start(cmd); err != nil {
		return err
	}
	return cmd.Wait()
}

// Output runs a command in the room and returns its standard output; an error has what it said to the other.
func (r *Room) Output(cmd *exec.Cmd) ([]byte, error) {
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := r.Run(cmd); err != nil {
		return out.Bytes(), fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, bytes.TrimSpace(errs.Bytes()))
	}
	return out.Bytes(), nil
}

// furnish moves the calling thread into a new mount namespace and makes the room in it.
func (t *Tree) furnish(o RoomOptions) error {
	flags := unix.CLONE_NEWNS
	if !o.Network {
		flags |= unix.CLONE_NEWNET
	}
	if err := unix.Unshare(flags); err != nil {
		return fmt.Errorf("unshare (needs root): %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	const root = "/tmp" // anything that is there everywhere: only this namespace sees what is mounted over it
	binds, err := openAll(append([]string{"/proc", "/dev", "/sys"}, o.Binds...))
	if err != nil {
		return err
	}
	defer closeAll(binds)
	if err := t.lay(root); err != nil {
		return err
	}
	for _, b := range binds {
		if err := b.attach(root); err != nil {
			return err
		}
	}
	if err := unix.Chdir(root); err != nil {
		return fmt.Errorf("enter: %w", err)
	}
	if err := unix.PivotRoot(".", "."); err != nil { // pivot_root(2): the old root is then on top of the new one
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount the old root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return err
	}
	return onlyCgroup2()
}

// lay mounts the room's own part at root.
func (t *Tree) lay(root string) error {
	tree, err := openBind(t.Path("usr"))
	if err != nil {
		return err
	}
	defer unix.Close(tree.fd)
	etc := os.DirFS(t.Path("etc")) // opened lazily, by a path that root may hide
	names, err := newAccounts(etc)
	if err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", root, "tmpfs", unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("mount tmpfs: %w", err)
	}
	tree.path = "/usr"
	if err := tree.attach(root); err != nil {
		return err
	}
	if err := unix.MountSetattr(-1, filepath.Join(root, "usr"), unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
		return fmt.Errorf("make /usr read-only: %w", err)
	}
	for _, l := range []string{"bin", "sbin", "lib", "lib64"} {
		if err := os.Symlink("usr/"+l, filepath.Join(root, l)); err != nil {
			return err
		}
	}
	for _, d := range []string{"root", "run", "var/lib", "var/tmp"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return err
		}
	}
	for name, content := range names {
		file := filepath.Join(root, "etc", name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, content, 0o644)); err != nil {
			return err
		}
	}
	return nil
}

// onlyCgroup2 makes /sys/fs/cgroup what it is on a machine.
func onlyCgroup2() error {
	const dir = "/sys/fs/cgroup"
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil || st.Type == unix.CGROUP2_SUPER_MAGIC {
		return nil
	}
	if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil && err != unix.EINVAL { // with all hierarchies of version 1
		return fmt.Errorf("unmount %s: %w", dir, err)
	}
	if err := unix.Mount("cgroup2", dir, "cgroup2", 0, ""); err != nil {
		return fmt.Errorf("mount cgroup2: %w", err)
	}
	return nil
}
