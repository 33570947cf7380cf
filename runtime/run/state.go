package run

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/runtime/scope"
)

// Root is the directory of all state, --root on the command line. The zero value is no valid Root.
type Root string

// StatePaused is what engines call a frozen container.
const StatePaused specs.ContainerState = "paused"

// ErrNotExist says that no container has the ID.
var ErrNotExist = errors.New("no such container")

// A Container is what state.json holds.
type Container struct {
	specs.State           // Status is filled in when it is read
	Created     time.Time `json:"created"`
	// Started is the start time of Pid in ticks since boot (proc_pid_stat(5), field 22): a recycled pid differs.
	Started uint64 `json:"startTicks"`
	// Cgroup is the directory made for linux.cgroupsPath, or "".
	Cgroup string `json:"cgroup,omitempty"`
	// CgroupV1 are the same for each controller of version 1.
	CgroupV1 map[string]string `json:"cgroupV1,omitempty"`
	// Scope is the unit of the group, if systemd manages that, or "".
	Scope string `json:"scope,omitempty"`
	// Mounted is the root directory, with all mounts below it, of a container in the caller's mount namespace, or "".
	Mounted string `json:"mounted,omitempty"`
	// Rdt is the directory of linux.intelRdt, or ""; RdtMade are those that are removed with the container.
	Rdt     string   `json:"rdt,omitempty"`
	RdtMade []string `json:"rdtMade,omitempty"`
	dir     string
}

// CheckID accepts 1 to 200 letters, digits and "_+-." that do not start with a dot.
func CheckID(id string) error {
	ok := len(id) >= 1 && len(id) <= 200 && id[0] != '.'
	for _, c := range []byte(id) {
		ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("_+-.", c) >= 0)
	}
	if !ok {
		return fmt.Errorf("container ID %q: want letters, digits, _ + - and . (not first), at most 200", id)
	}
	return nil
}

// Load reads the state of a container and finds out its status.
func (r Root) Load(id string) (*Container, error) {
	if err := CheckID(id); err != nil {
		return nil, err
	}
	c := &Container{dir: filepath.Join(string(r), id)}
	b, err := readFile(filepath.Join(c.dir, "state.json"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if _, err := os.Stat(c.dir); err != nil {
			return nil, fmt.Errorf("container %s: %w", id, ErrNotExist)
		}
		// The caller of Create is still at work, or was killed.
		c.State = specs.State{Version: specs.Version, ID: id, Status: specs.StateCreating}
		return c, nil
	case err != nil:
		return nil, fmt.Errorf("read state of %s: %w", id, err)
	}
	if err := json.Unmarshal(b, c); err != nil {
		return nil, fmt.Errorf("read state of %s: %w", id, err)
	}
	c.Status = specs.StateStopped
	if ticks, err := startTicks(c.Pid); err == nil && ticks == c.Started {
		c.Status = specs.StateRunning
		if _, err := os.Stat(filepath.Join(c.dir, "start.sock")); err == nil {
			c.Status = specs.StateCreated
		}
		if g, err := c.group(); err == nil && g.Frozen() {
			c.Status = StatePaused
		}
	} else {
		c.Pid = 0
	}
	return c, nil
}

// List returns all containers, sorted by ID.
func (r Root) List() ([]*Container, error) {
	entries, err := os.ReadDir(string(r))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	var out []*Container
	for _, e := range entries {
		c, err := r.Load(e.Name())
		if errors.Is(err, ErrNotExist) || CheckID(e.Name()) != nil {
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

// Delete removes what is left of a stopped container. With force it kills a live one first, and a container that does
// not exist is no error.
func (r Root) Delete(id string, force bool) error {
	c, err := r.Load(id)
	if err != nil {
		if force && errors.Is(err, ErrNotExist) {
			return nil
		}
		return err
	}
	if c.Status != specs.StateStopped {
		if !force {
			return fmt.Errorf("delete %s: it is %s: stop it first, or use --force", id, c.Status)
		}
		if err := c.kill(); err != nil {
			return fmt.Errorf("delete %s: %w", id, err)
		}
	}
	if err := c.removeGroup(); err != nil {
		return fmt.Errorf("delete %s: %w", id, err)
	}
	if err := c.removeRdt(); err != nil {
		return fmt.Errorf("delete %s: %w", id, err)
	}
	if err := c.unmount(); err != nil {
		return fmt.Errorf("delete %s: %w", id, err)
	}
	s, serr := c.poststopConfig()
	if err := os.RemoveAll(c.dir); err != nil {
		return fmt.Errorf("delete %s: %w", id, err)
	}
	if serr != nil {
		return nil // one that died while it was created may have no configuration
	}
	if err := c.poststop(s); err != nil {
		fmt.Fprintf(os.Stderr, "oci-runtime: warning: %v\n", err) // runtime.md: the lifecycle goes on
	}
	return nil
}

// poststopConfig is config for a container with hooks that are still to run, and nil if there are none: the parsing is a good part of
// a short container's time.
func (c *Container) poststopConfig() (*specs.Spec, error) {
	b, err := readFile(filepath.Join(c.dir, "config.json"))
	if err != nil {
		return nil, err
	}
	// In any case, and written with escapes, as the decoder takes it.
	if !bytes.Contains(b, []byte(`\u`)) && !bytes.Contains(bytes.ToLower(b), []byte(`"poststop"`)) {
		return nil, nil
	}
	return c.config()
}

// unmount takes the container's file systems out of the caller's mount namespace.
func (c *Container) unmount() error {
	if c.Mounted == "" {
		return nil
	}
	if err := unix.Unmount(c.Mounted, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && err != unix.EINVAL && err != unix.ENOENT {
		return &os.PathError{Op: "unmount", Path: c.Mounted, Err: err}
	}
	return nil
}

// removeRdt removes the groups of resctrl that were made for the container.
func (c *Container) removeRdt() error {
	var errs []error
	for _, d := range c.RdtMade {
		if err := unix.Rmdir(d); err != nil && err != unix.ENOENT {
			errs = append(errs, &os.PathError{Op: "remove group", Path: d, Err: err})
		}
	}
	return errors.Join(errs...)
}

// removeGroup kills what is in the container's own group, if it has one, and removes it.
func (c *Container) removeGroup() error {
	var serr error
	if c.Scope != "" {
		serr = scope.Stop(c.Scope)
	}
	g, err := c.group()
	if err != nil {
		return serr
	}
	// Without systemd's help as well: what is in the group must end.
	return errors.Join(g.Remove(), serr)
}

// kill ends the container's PID 1, and with it its whole pid namespace, and waits until it is gone.
func (c *Container) kill() error {
	fd, err := c.pidfd()
	if err != nil {
		return nil // gone
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && err != unix.ESRCH {
		return fmt.Errorf("kill process %d: %w", c.Pid, err)
	}
	if !waitPidfd(fd, 10*time.Second) {
		return fmt.Errorf("process %d does not end after SIGKILL", c.Pid)
	}
	return nil
}

// Signal sends a signal to the container's first process.
func (c *Container) Signal(sig unix.Signal) error {
	if c.Status != specs.StateRunning && c.Status != specs.StateCreated && c.Status != StatePaused {
		return fmt.Errorf("signal %s: it is %s", c.ID, c.Status)
	}
	fd, err := c.pidfd()
	if err != nil {
		return fmt.Errorf("signal %s: %w", c.ID, err)
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil {
		return fmt.Errorf("signal %s: %w", c.ID, err)
	}
	return nil
}

// Stop sends sig and waits up to grace for the end, then kills. A signal that the process neither handles nor blocks
// is lost on PID 1 of a pid namespace (pid_namespaces(7)), so then there is nothing to wait for.
func (c *Container) Stop(sig unix.Signal, grace time.Duration) error {
	fd, err := c.pidfd()
	if err != nil {
		return nil // gone
	}
	defer unix.Close(fd)
	if hears(c.Pid, sig) {
		if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil && err != unix.ESRCH {
			return fmt.Errorf("stop %s: %w", c.ID, err)
		}
		if waitPidfd(fd, grace) {
			return nil
		}
	}
	return c.kill()
}

// hears reports whether process pid handles or blocks sig; when in doubt it does.
func hears(pid int, sig unix.Signal) bool {
	b, err := readFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return true
	}
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(line, ":")
		if key != "SigBlk" && key != "SigCgt" {
			continue
		}
		mask, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
		if err != nil || mask&(1<<(uint(sig)-1)) != 0 {
			return true
		}
	}
	return false
}

// pidfd opens the first process, unless its pid belongs to another process by now.
func (c *Container) pidfd() (int, error) {
	if c.Pid <= 0 {
		return -1, unix.ESRCH
	}
	fd, err := unix.PidfdOpen(c.Pid, 0)
	if err != nil {
		return -1, err
	}
	if ticks, err := startTicks(c.Pid); err != nil || ticks != c.Started {
		unix.Close(fd)
		return -1, unix.ESRCH
	}
	return fd, nil
}

// waitPidfd waits until the process has ended, at most d.
func waitPidfd(fd int, d time.Duration) bool {
	deadline := time.Now().Add(d)
	for {
		left := max(time.Until(deadline), 0)
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(left.Milliseconds()))
		if n > 0 {
			return true
		}
		if err != unix.EINTR && left == 0 {
			return false
		}
	}
}

// startTicks returns field 22 of /proc/pid/stat; a zombie counts as gone.
func startTicks(pid int) (uint64, error) {
	if pid <= 0 {
		return 0, unix.ESRCH
	}
	b, err := readFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The second field is in parentheses and may contain anything.
	i := strings.LastIndexByte(string(b), ')')
	f := strings.Fields(string(b[i+1:]))
	if i < 0 || len(f) < 20 {
		return 0, fmt.Errorf("read /proc/%d/stat: %d fields", pid, len(f))
	}
	if f[0] == "Z" || f[0] == "X" {
		return 0, unix.ESRCH
	}
	return strconv.ParseUint(f[19], 10, 64)
}

// writeState stores c so that a reader sees all or nothing.
func (c *Container) writeState() error {
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(c.dir, "state.json"), b)
}

// writeFile replaces a file by rename. It does not sync: state lives in /run.
func writeFile(name string, b []byte) error {
	tmp := filepath.Join(filepath.Dir(name), "."+filepath.Base(name)+".new")
	if err := newFile(tmp, b); err != nil {
		return err
	}
	if err := os.Rename(tmp, name); err != nil {
		os.Remove(tmp)
		return err
	}
	return nil
}
