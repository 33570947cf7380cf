package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/internal/durable"
	"github.com/proa-os/proa/runtime/image"
	"github.com/proa-os/proa/runtime/network"
	"github.com/proa-os/proa/runtime/rubbish"
)

// A Container is what container.json holds: all that was asked for. Its bundle is made from it anew at each start.
type Container struct {
	Name     string         `json:"name"`
	Image    string         `json:"image"`    // the name it was made from
	Manifest image.Digest   `json:"manifest"` // and what that stood for then
	Layers   []image.Digest `json:"layers"`   // diffIDs, lowest first
	Created  time.Time      `json:"created"`
	Waiting  bool           `json:"waiting,omitempty"`  // for its first start, which somebody else is to ask for
	Instance string         `json:"instance,omitempty"` // tells it from others of its name; of those that live for one run in the foreground

	Args            []string          `json:"args,omitempty"`       // instead of the image's Cmd
	Entrypoint      []string          `json:"entrypoint,omitempty"` // instead of the image's; [""] is none
	Env             []string          `json:"env,omitempty"`
	User            string            `json:"user,omitempty"`
	Groups          []string          `json:"groups,omitempty"` // further ones, names or numbers
	WorkDir         string            `json:"workdir,omitempty"`
	Hostname        string            `json:"hostname,omitempty"`
	Domainname      string            `json:"domainname,omitempty"`
	PID             string            `json:"pid_mode,omitempty"`    // host, container:NAME; default its own processes
	IPC             string            `json:"ipc_mode,omitempty"`    // host, none; default its own
	UTS             string            `json:"uts_mode,omitempty"`    // host; default its own host name
	CgroupNS        string            `json:"cgroup_mode,omitempty"` // host; default its own view
	Network         string            `json:"network"`               // host, none, bridge (those of Networks), container:NAME, ns:PATH
	ReadOnly        bool              `json:"read_only,omitempty"`
	NoNewPrivileges bool              `json:"no_new_privileges,omitempty"`
	Privileged      bool              `json:"privileged,omitempty"`
	CapAdd          []string          `json:"cap_add,omitempty"`
	CapDrop         []string          `json:"cap_drop,omitempty"`
	Security        *Security         `json:"security,omitempty"`
	IDs             *IDs              `json:"ids,omitempty"` // nil: those of the machine
	Sysctls         map[string]string `json:"sysctls,omitempty"`
	Ulimits         []Ulimit          `json:"ulimits,omitempty"`
	Devices         []Device          `json:"devices,omitempty"`
	Volumes         []Volume          `json:"volumes,omitempty"`
	Secrets         []Secret          `json:"secrets,omitempty"`
	ShmSize         int64             `json:"shm_size,omitempty"` // bytes; default 64 MB
	Labels          map[string]string `json:"labels,omitempty"`

	Unit        string  `json:"unit,omitempty"`         // of a declared container; otherwise its own, proa-<name>.service
	Init        bool    `json:"init,omitempty"`         // with a process 1 of ours (package reaper)
	Terminal    bool    `json:"terminal,omitempty"`     // while somebody is attached
	Stdin       bool    `json:"stdin,omitempty"`        // pass on that of whoever is attached
	Remove      bool    `json:"remove,omitempty"`       // when it ends
	Notify      bool    `json:"notify,omitempty"`       // the workload says when it is ready (sd_notify)
	AwaitHealth bool    `json:"await_health,omitempty"` // it is ready when its health check succeeds
	Preserve    int     `json:"preserve_fds,omitempty"` // descriptors of whoever is attached
	Restart     string  `json:"restart"`                // no, on-failure, always, unless-stopped
	Restarts    int     `json:"restarts,omitempty"`     // how often on-failure tries; 0: always
	StopSignal  string  `json:"stop_signal,omitempty"`  // default TERM
	StopTimeout int     `json:"stop_timeout,omitempty"` // seconds
	Memory      int64   `json:"memory,omitempty"`       // bytes
	MemorySwap  *int64  `json:"memory_swap,omitempty"`  // bytes of both; -1: any
	CPUs        float64 `json:"cpus,omitempty"`
	CPUShares   int     `json:"cpu_shares,omitempty"` // docker's, 2 to 262144
	CPUSet      string  `json:"cpuset,omitempty"`
	Pids        int     `json:"pids,omitempty"`
	MemoryLow   int64   `json:"memory_low,omitempty"` // bytes
	MemSet      string  `json:"memset,omitempty"`     // memory nodes
	OOMScoreAdj *int    `json:"oom_score_adj,omitempty"`
	BlkioWeight int     `json:"blkio_weight,omitempty"` // docker's, 10 to 1000
	Rates       []Rate  `json:"rates,omitempty"`
	NoLog       bool    `json:"no_log,omitempty"` // output goes nowhere
	Health      *Health `json:"health,omitempty"`

	Networks   []network.Attachment `json:"networks,omitempty"` // with the addresses it has for as long as it exists
	Publish    []network.Port       `json:"publish,omitempty"`
	DNS        []netip.Addr         `json:"dns,omitempty"`         // whom to ask for foreign names
	DNSSearch  []string             `json:"dns_search,omitempty"`  // ["."]: none
	DNSOptions []string             `json:"dns_options,omitempty"` // of resolv.conf(5)
	Hosts      []string             `json:"hosts,omitempty"`       // NAME:ADDRESS or NAME:host-gateway
}

// Security is what --security-opt says beside no-new-privileges.
type Security struct {
	Seccomp  string   `json:"seccomp,omitempty"` // unconfined, or the profile's JSON
	AppArmor string   `json:"apparmor,omitempty"`
	Label    string   `json:"label,omitempty"`  // SELinux
	Mask     []string `json:"mask,omitempty"`   // further paths
	Unmask   []string `json:"unmask,omitempty"` // paths that are not masked; ALL
}

// IDs are the numbers on the machine that stand for the container's 0 to Count-1, for users and for groups.
type IDs struct {
	First uint32 `json:"first"`
	Count uint32 `json:"count"`
}

// A Ulimit is a resource limit of the workload.
type Ulimit struct {
	Name string `json:"name"` // nofile
	Soft uint64 `json:"soft"`
	Hard uint64 `json:"hard"`
}

// A Device is one of the machine's in the container.
type Device struct {
	Source string `json:"source"`
	Target string `json:"target"`
	Access string `json:"access"` // of r, w and m
}

// A Rate limits what a device does in a second.
type Rate struct {
	Setting string `json:"setting"` // systemd's: IOReadBandwidthMax ...
	Device  string `json:"device"`
	Most    int64  `json:"most"`
}

// A Volume is a directory or file of the host in the container, a named volume, or with Kind tmpfs a file system in memory.
type Volume struct {
	Kind     string   `json:"kind,omitempty"` // "", tmpfs
	Name     string   `json:"name,omitempty"` // of a volume; Source is then where it is found at the start
	Source   string   `json:"source,omitempty"`
	Target   string   `json:"target"`
	ReadOnly bool     `json:"read_only,omitempty"`
	Options  []string `json:"options,omitempty"` // further mount options
	NoCopy   bool     `json:"no_copy,omitempty"` // a new volume is not filled from the image
	Exists   bool     `json:"exists,omitempty"`  // the machine's must be there: it is not made
	Chown    bool     `json:"chown,omitempty"`   // is given to the container's user at the start
}

// A Secret is one that the container is given at each start.
type Secret struct {
	Name   string `json:"name"`
	Env    bool   `json:"env,omitempty"` // as the variable Target, otherwise as the file
	Target string `json:"target"`
	UID    int    `json:"uid,omitempty"`
	GID    int    `json:"gid,omitempty"`
	Mode   uint32 `json:"mode,omitempty"`
}

// Health says how to find out whether the container works.
type Health struct {
	Command  []string      `json:"command"`
	Interval time.Duration `json:"interval"`               // between tries
	Timeout  time.Duration `json:"timeout"`                // of one
	Retries  int           `json:"retries"`                // failures in a row that make it unhealthy
	Start    time.Duration `json:"start_period,omitempty"` // in which failures do not count
	Action   string        `json:"on_failure,omitempty"`   // none, restart, kill, stop
}

// CheckName accepts what is a container name, part of a unit's name and a directory at once.
func CheckName(name string) error {
	if !regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$`).MatchString(name) {
		return fmt.Errorf("container name %q: want letters, digits, _ . and - (not first), at most 63", name)
	}
	return nil
}

// ContainerDir is where a container's file system lives.
func (s *Store) ContainerDir(name string) string { return s.path("containers", name) }

// VolumesDir is where named volumes live.
func (s *Store) VolumesDir() string { return s.path("volumes") }

// SecretsDir is where secrets live.
func (s *Store) SecretsDir() string { return s.path("secrets") }

// AddContainer stores a new container with an empty upper directory. The caller holds the lock. From now on Collect keeps its image, which is looked for
// once more: since the caller read it somebody may have removed it.
//
// One for one run is not waited for until it is on the disk, as nobody wants it back after a power cut. Of that there may be a directory left
// with an empty record: such a one is no container, its name is free, and Collect removes it.
func (s *Store) AddContainer(c *Container) error {
	if err := CheckName(c.Name); err != nil {
		return err
	}
	if err := s.whole(c.Manifest); err != nil {
		return fmt.Errorf("add container %s: image %s is not whole any more: %w: pull it again", c.Name, c.Image, err)
	}
	tmp, err := os.MkdirTemp(s.path("tmp"), "container-")
	if err != nil {
		return fmt.Errorf("add container %s: %w", c.Name, err)
	}
	defer rubbish.Remove(tmp)
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	dir := filepath.Join(tmp, "c")
	for _, d := range []string{"", "upper", "work", "rootfs"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			return fmt.Errorf("add container %s: %w", c.Name, err)
		}
	}
	// The upper directory's mode is that of the container's root directory.
	if err := os.Chmod(filepath.Join(dir, "upper"), 0o755); err != nil {
		return fmt.Errorf("add container %s: %w", c.Name, err)
	}
	write, brief := durable.WritePath, c.Remove && !c.Waiting
	if brief {
		write = os.WriteFile
	}
	if err := write(filepath.Join(dir, "container.json"), append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("add container %s: %w", c.Name, err)
	}
	err = unix.Renameat2(unix.AT_FDCWD, dir, unix.AT_FDCWD, s.ContainerDir(c.Name), unix.RENAME_NOREPLACE)
	if err == unix.EEXIST {
		err = ErrExists
		if _, torn := s.Container(c.Name); errors.Is(torn, ErrNoContainer) {
			if err = s.discard(s.ContainerDir(c.Name)); err == nil {
				err = unix.Renameat2(unix.AT_FDCWD, dir, unix.AT_FDCWD, s.ContainerDir(c.Name), unix.RENAME_NOREPLACE)
			}
		}
	}
	if err == nil && !brief {
		err = syncDir(s.path("containers"))
	}
	if err != nil {
		return fmt.Errorf("add container %s: %w", c.Name, err)
	}
	return nil
}

// UpdateContainer stores what has changed of a container. The caller holds the lock.
func (s *Store) UpdateContainer(c *Container) error {
	if err := CheckName(c.Name); err != nil {
		return err
	}
	b, err := json.MarshalIndent(c, "", "  ")
	if err == nil {
		err = durable.WritePath(filepath.Join(s.ContainerDir(c.Name), "container.json"), append(b, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("update container %s: %w", c.Name, err)
	}
	return nil
}

// Container reads one container.
func (s *Store) Container(name string) (*Container, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	b, err := os.ReadFile(filepath.Join(s.ContainerDir(name), "container.json"))
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(b) == 0 { // empty: see AddContainer
		return nil, fmt.Errorf("%s: %w", name, ErrNoContainer)
	}
	if err != nil {
		return nil, err
	}
	c := new(Container)
	if err := json.Unmarshal(b, c); err != nil {
		return nil, fmt.Errorf("read container %s: %w", name, err)
	}
	c.Name = name // a rename may have been cut off before it wrote it
	return c, nil
}

// Containers returns all, sorted by name.
func (s *Store) Containers() ([]*Container, error) {
	names, err := os.ReadDir(s.path("containers"))
	if err != nil {
		return nil, err
	}
	var out []*Container
	for _, n := range names {
		if CheckName(n.Name()) != nil {
			continue
		}
		c, err := s.Container(n.Name())
		if errors.Is(err, ErrNoContainer) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

// RenameContainer gives a container that does not run another name. The caller holds the lock.
func (s *Store) RenameContainer(c *Container, name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	old := c.Name
	err := unix.Renameat2(unix.AT_FDCWD, s.ContainerDir(old), unix.AT_FDCWD, s.ContainerDir(name), unix.RENAME_NOREPLACE)
	if err == unix.EEXIST {
		err = ErrExists
	}
	if err != nil {
		return fmt.Errorf("rename container %s to %s: %w", old, name, err)
	}
	c.Name = name
	if err := s.UpdateContainer(c); err != nil {
		return fmt.Errorf("rename container %s to %s: %w", old, name, err)
	}
	return syncDir(s.path("containers"))
}

// RemoveContainer removes a container's directory, which nothing uses any more. The caller holds the lock. One for one run may be there
// again after a power cut.
func (s *Store) RemoveContainer(c *Container) error {
	if err := CheckName(c.Name); err != nil {
		return err
	}
	if err := s.discard(s.ContainerDir(c.Name)); err != nil {
		return fmt.Errorf("remove container %s: %w", c.Name, err)
	}
	if c.Remove {
		return nil
	}
	return syncDir(s.path("containers"))
}

// removeTorn removes what a power cut has left of containers for one run. The caller holds the lock.
func (s *Store) removeTorn() error {
	names, err := os.ReadDir(s.path("containers"))
	if err != nil {
		return err
	}
	for _, n := range names {
		if CheckName(n.Name()) != nil {
			continue
		}
		if _, err := s.Container(n.Name()); errors.Is(err, ErrNoContainer) {
			if err := s.discard(s.ContainerDir(n.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}
