package run

import (
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

	"github.com/proa-os/proa/runtime/cgroup"
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

	hookless bool // known to have no hooks, which need not be looked for
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
	cgroup.Thaw(c.Pid)
	if !waitPidfd(fd, 10*time.Second) {
		return fmt.Errorf("process %d does not end after SIGKILL", c.Pid)
	}
	return nil
}

// Signal sends a signal to the container's first process; SIGKILL to all of them, also where they do not go with the first one.
func (c *Container) Signal(sig unix.Signal) error {
	if sig == unix.SIGKILL {
		if done, err := c.killGroup(); done || err != nil {
			return err
		}
	}
	if c.Status != specs.StateRunning && c.Status != specs.StateCreated && c.Status != StatePaused {
		// The last words are what containerd looks for.
		return fmt.Errorf("signal %s: it is %s: container not running", c.ID, c.Status)
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
	return writeFile(filepath.Join(c.dir, "state.json"), c.encode())
}

// encode is json.Marshal, which prepares for every type before it writes the first byte.
func (c *Container) encode() []byte {
	text := func(s string) []byte {
		if plain(s) {
			return append(append([]byte{'"'}, s...), '"')
		}
		b, _ := json.Marshal(s) // no string is an error
		return b
	}
	b := []byte("{")
	add := func(key string, value []byte) {
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = append(append(append(b, '"'), key...), '"', ':')
		b = append(b, value...)
	}
	add("ociVersion", text(c.Version))
	add("id", text(c.ID))
	add("status", text(string(c.Status)))
	add("pid", strconv.AppendInt(nil, int64(c.Pid), 10))
	add("bundle", text(c.Bundle))
	add("created", text(c.Created.Format(time.RFC3339Nano)))
	add("startTicks", strconv.AppendUint(nil, c.Started, 10))
	for _, s := range []struct{ key, value string }{{"cgroup", c.Cgroup}, {"scope", c.Scope}, {"mounted", c.Mounted}, {"rdt", c.Rdt}} {
		if s.value != "" {
			add(s.key, text(s.value))
		}
	}
	for _, m := range []struct {
		key   string
		value map[string]string
	}{{"annotations", c.Annotations}, {"cgroupV1", c.CgroupV1}} {
		if len(m.value) > 0 {
			v, _ := json.Marshal(m.value)
			add(m.key, v)
		}
	}
	if len(c.RdtMade) > 0 {
		v, _ := json.Marshal(c.RdtMade)
		add("rdtMade", v)
	}
	return append(b, '}')
}

// plain reports whether JSON has s as it is.
func plain(s string) bool {
	for _, c := range []byte(s) {
		if c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			return false
		}
	}
	return true
}

// writeFile replaces a file by rename. It does not sync: state lives in /run.
func writeFile(name string, b []byte) error {
	tmp := filepath.Join(filepath.Dir(name), "."+filepath.Base(name)+".new")
	if err := newFile(tmp, b); err != nil {
		return err
	}
	if err := unix.Rename(tmp, name); err != nil { // os.Rename looks at name before
		os.Remove(tmp)
		return &os.LinkError{Op: "rename", Old: tmp, New: name, Err: err}
	}
	return nil
}
