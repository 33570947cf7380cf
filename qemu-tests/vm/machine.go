package vm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/proa-os/proa/internal/tcg"
	"github.com/proa-os/proa/internal/tooltree"
)

// Why a machine is off.
var (
	ErrPoweredOff = errors.New("the machine has powered itself off")
	ErrPowerCut   = errors.New("the harness has cut the power")
)

// Machine is a running or switched-off machine. Its methods may be called from several goroutines, except those that
// switch it on and off.
type Machine struct {
	cfg     Config
	ctx     context.Context // ends the machine's life
	command command
	tools   *tooltree.Tree
	hw      hardware // of the next boot
	verdict Verdict
	console *Console
	logs    [2]*os.File // console.log, qemu.log
	ssh     *logins

	mu      sync.Mutex
	proc    *process // nil while off
	cut     bool     // the harness ends proc
	cycle   bool     // and starts the next one
	boots   int
	used    time.Duration // CPU time of the processes before proc
	off     error         // why it is off, nil while on
	changed chan struct{} // closed and replaced when boots or off change
	scanned int           // console lines AssertClean has seen

	unplugged map[string]bool // QEMU's names of network cards without a cable

	now  hardware            // of proc
	kept map[string]hardware // of the snapshots by name
}

// Start makes the machine's folder and disk and switches it on. It runs until Close, or until ctx ends.
func Start(ctx context.Context, cfg Config) (*Machine, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	tree, err := tooltree.Open()
	if err != nil {
		return nil, err
	}
	m := &Machine{
		cfg: cfg, ctx: ctx, tools: tree, changed: make(chan struct{}), unplugged: map[string]bool{}, kept: map[string]hardware{}, off: errors.New("the machine was never on"),
		command: func(args []string) *exec.Cmd { return tree.Command(ctx, "qemu-system-x86_64", args...) },
	}
	if err := m.prepare(tree); err != nil {
		return nil, fmt.Errorf("prepare machine %s: %w", cfg.Name, err)
	}
	if err := m.choose(ctx); err != nil {
		m.closeLogs()
		return nil, err
	}
	on := m.PowerOn
	if cfg.Resume != nil {
		on = func() error { return m.resume(cfg.Resume) }
	}
	if err := on(); err != nil {
		return nil, errors.Join(err, m.PowerCut(), m.closeLogs())
	}
	return m, nil
}

// prepare makes everything that stays over power cuts.
func (m *Machine) prepare(tree *tooltree.Tree) error {
	cfg := m.cfg
	if err := os.MkdirAll(cfg.Dir, 0o755); err != nil {
		return err
	}
	m.hw = hardware{
		name: cfg.Name, memoryMiB: cfg.MemoryMiB, cpus: cfg.CPUs,
		dataDirs: []string{tree.Path("usr/share/qemu"), tree.Path("usr/share/seabios")},
		kernel:   cfg.Kernel, initrd: cfg.Initrd, kernelArgs: cfg.KernelArgs, given: pairs(cfg.Credentials), nics: cfg.NICs,
	}
	if cfg.Disk != "" {
		if err := m.prepareDisk(tree); err != nil {
			return err
		}
		if cfg.LogWrites {
			if err := m.logWrites(); err != nil {
				return err
			}
		}
	}
	if err := m.makeDisks(); err != nil {
		return err
	}
	if cfg.VirtioPorts {
		m.hw.journal, m.hw.hostKeys = filepath.Join(cfg.Dir, "journal.json"), filepath.Join(cfg.Dir, "hostkeys")
	}
	if cfg.Ignition != nil {
		m.hw.ignition = filepath.Join(cfg.Dir, "config.ign")
		if err := os.WriteFile(m.hw.ignition, cfg.Ignition, 0o600); err != nil {
			return err
		}
	}
	ports := append([]int{22}, slices.DeleteFunc(slices.Clone(cfg.Ports), func(p int) bool { return p == 22 })...)
	for _, guest := range ports {
		host, err := freePort(m.hw.forwards)
		if err != nil {
			return err
		}
		m.hw.forwards = append(m.hw.forwards, Forward{Host: host, Guest: guest})
	}
	m.ssh = &logins{addr: m.Addr(22), key: cfg.Key, shown: m.hw.hostKeys, clients: map[string]*ssh.Client{}}
	for i, name := range []string{"console.log", "qemu.log"} {
		f, err := os.Create(filepath.Join(cfg.Dir, name))
		if err != nil {
			m.closeLogs()
			return err
		}
		m.logs[i] = f
	}
	m.console = NewConsole(m.logs[0])
	return nil
}

func (m *Machine) prepareDisk(tree *tooltree.Tree) error {
	m.hw.disk, m.hw.bus, m.hw.sectorSize = m.Disk(), m.cfg.Bus, m.cfg.SectorSize
	state := []string{m.hw.disk}
	if m.cfg.Firmware == UEFI && m.cfg.Kernel == "" {
		m.hw.code = tree.Path("usr/share/OVMF/OVMF_CODE_4M.fd")
		m.hw.vars = filepath.Join(m.cfg.Dir, "vars.fd")
		state = append(state, m.hw.vars)
	}
	missing := func(name string) bool { _, err := os.Stat(name); return err != nil }
	if m.cfg.KeepDisk && !slices.ContainsFunc(state, missing) {
		return nil
	}
	if err := CopySparse(m.hw.disk, m.cfg.Disk, m.cfg.DiskSize); err != nil {
		return err
	}
	if m.hw.vars == "" {
		return nil
	}
	return copyFile(m.hw.vars, tree.Path("usr/share/OVMF/OVMF_VARS_4M.fd"))
}

// choose settles the accelerator, once for the machine's life.
func (m *Machine) choose(ctx context.Context) error {
	h, err := thisHost(ctx, m.command, m.hw, m.cfg.Dir)
	if err != nil {
		return err
	}
	if m.verdict, err = chooseAccelerator(h); err != nil {
		return err
	}
	m.hw.accel = m.verdict.Use
	if m.hw.accel == TCG {
		m.hw.kernelArgs = slices.Concat(m.hw.kernelArgs, tcg.KernelArgs())
	}
	m.console.Note(fmt.Sprintf("accelerator %s: %s", m.verdict.Use, m.verdict.Why))
	return ctx.Err()
}

// freePort finds a port of the loopback interface below those that the kernel hands out by itself, so that nobody
// takes it while the machine reboots.
func freePort(taken []Forward) (int, error) {
	for range 100 {
		port := 20000 + rand.IntN(10000)
		if slices.ContainsFunc(taken, func(f Forward) bool { return f.Host == port }) {
			continue
		}
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			return port, l.Close()
		}
	}
	return 0, errors.New("find a free port between 20000 and 30000: 100 attempts failed; too many machines run")
}

// Dir is the machine's folder.
func (m *Machine) Dir() string { return m.cfg.Dir }

// Disk is the machine's raw disk. It may be read and written while the machine is off.
func (m *Machine) Disk() string { return filepath.Join(m.cfg.Dir, "disk.raw") }

// Accelerator is what runs the machine, and why.
func (m *Machine) Accelerator() Verdict { return m.verdict }

// Console is the serial console.
func (m *Machine) Console() *Console { return m.console }

// Port is the port of 127.0.0.1 that reaches the guest's TCP port, 0 if it is not forwarded.
func (m *Machine) Port(guest int) int {
	for _, f := range m.hw.forwards {
		if f.Guest == guest {
			return f.Host
		}
	}
	return 0
}

// Addr is the address on the host that reaches the guest's TCP port.
func (m *Machine) Addr(guest int) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(m.Port(guest)))
}

// Type sends s to the serial console, as typed.
func (m *Machine) Type(s string) error {
	m.mu.Lock()
	p := m.proc
	m.mu.Unlock()
	if p == nil {
		return fmt.Errorf("type on the console: %w", m.whyOff())
	}
	if _, err := io.WriteString(p.serial, s); err != nil {
		return fmt.Errorf("type on the console: %w", err)
	}
	return nil
}

// WaitConsole returns the next console line that re matches, see Console.WaitFor, within the machine's timeout.
func (m *Machine) WaitConsole(ctx context.Context, re string) (Line, error) {
	r, err := regexp.Compile(re)
	if err != nil {
		return Line{}, fmt.Errorf("wait for the console: %w", err)
	}
	ctx, cancel := m.deadline(ctx, m.cfg.Timeout)
	defer cancel()
	return m.console.WaitFor(ctx, r)
}

// Run runs a shell command as user by ssh and returns its standard output. It waits for the machine to let the
// user in, within the machine's timeout; the command itself is run once. The error is a *CommandError if it ran.
func (m *Machine) Run(ctx context.Context, user, command string) (string, error) {
	ctx, cancel := m.deadline(ctx, m.cfg.Timeout)
	defer cancel()
	begin := time.Now()
	out, err := m.ssh.run(ctx, user, command, nil)
	result := "ok"
	var failed *CommandError
	switch {
	case errors.As(err, &failed):
		result = failed.Err.Error()
	case err != nil:
		result = "did not run"
	}
	m.console.Note(fmt.Sprintf("%s$ %s: %s, %.1f s", user, command, result, time.Since(begin).Seconds()))
	return out, err
}

// CopyTo writes content to the file name on the machine, as user, in one step.
func (m *Machine) CopyTo(ctx context.Context, user, name string, mode fs.FileMode, content []byte) error {
	ctx, cancel := m.deadline(ctx, m.cfg.Timeout)
	defer cancel()
	return m.ssh.copyTo(ctx, user, name, mode, content)
}

// SSH logs in as user. The client is shared and ends with the boot; the caller does not close it.
func (m *Machine) SSH(ctx context.Context, user string) (*ssh.Client, error) {
	ctx, cancel := m.deadline(ctx, m.cfg.Timeout)
	defer cancel()
	return m.ssh.client(ctx, user)
}

// Configure gives a machine that is off another provisioning config for its next boots.
func (m *Machine) Configure(ignition []byte) error {
	if m.whyOff() == nil || m.hw.ignition == "" {
		return errors.New("configure: the machine is on, or never had a config")
	}
	return os.WriteFile(m.hw.ignition, ignition, 0o600)
}

// Journal is what the machine has written to that port of its VirtioPorts in this boot: entries as journalctl -o json has them.
func (m *Machine) Journal() (string, error) {
	b, err := os.ReadFile(m.hw.journal)
	return string(b), err
}

// HostKeys is what the machine has written to that port of its VirtioPorts in this boot: lines as in ssh_host_*_key.pub.
func (m *Machine) HostKeys() (string, error) {
	b, err := os.ReadFile(m.hw.hostKeys)
	return string(b), err
}

// ForgetHostKey accepts a new ssh host key at the next login: the story has wiped the state.
func (m *Machine) ForgetHostKey() { m.ssh.forget(true) }

// deadline is ctx that ends after limit of the machine's time.
func (m *Machine) deadline(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	return withMachineTime(ctx, limit, func() int {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.proc == nil {
			return 0
		}
		return m.proc.pid
	})
}

// GrowDisk makes the disk of a machine that is off size bytes large.
func (m *Machine) GrowDisk(size int64) error {
	if m.whyOff() == nil || m.hw.disk == "" {
		return errors.New("grow disk: the machine is on, or has no disk")
	}
	info, err := os.Stat(m.hw.disk)
	if err != nil {
		return fmt.Errorf("grow disk: %w", err)
	}
	if size < info.Size() || size%int64(m.hw.sectorSize) != 0 {
		return fmt.Errorf("grow disk %s from %d to %d bytes: expected more, in sectors of %d", m.hw.disk, info.Size(), size, m.hw.sectorSize)
	}
	if err := os.Truncate(m.hw.disk, size); err != nil {
		return fmt.Errorf("grow disk: %w", err)
	}
	m.console.Note(fmt.Sprintf("the disk has %d bytes now", size))
	return nil
}

// RemoveDisk deletes the disk of a machine that is off with its snapshots and write log, and keeps the logs for people.
func (m *Machine) RemoveDisk() error {
	if m.whyOff() == nil {
		return errors.New("remove disk: the machine is on; close it before")
	}
	large, err := filepath.Glob(m.snapshotDir("*"))
	if err != nil {
		return fmt.Errorf("remove disk: %w", err)
	}
	for _, d := range m.hw.more {
		large = append(large, d.file)
	}
	for _, name := range append(large, m.Disk(), m.writeBase(), filepath.Join(m.cfg.Dir, "writes.log")) {
		if err := os.RemoveAll(name); err != nil {
			return fmt.Errorf("remove disk: %w", err)
		}
	}
	return nil
}
