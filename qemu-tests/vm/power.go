package vm

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// PowerOn switches the machine on.
func (m *Machine) PowerOn() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.proc != nil {
		return errors.New("switch on: the machine is on")
	}
	m.cut = false
	return m.boot()
}

// boot starts the firmware. m.mu is held.
func (m *Machine) boot() error {
	m.boots++
	return m.start(m.hw)
}

// start starts a process and who watches it; it goes on with saved memory, if hw has a file of it. m.mu is held.
func (m *Machine) start(hw hardware) error {
	m.console.PowerOn(m.boots)
	m.now = hw
	m.now.memory = ""
	if m.cfg.TPM {
		var err error
		if hw.tpm, err = m.startTPM(); err != nil {
			return err
		}
	}
	p, err := startProcess(m.ctx, m.command, hw, m.console, m.logs[1])
	if err != nil {
		m.off = err
		m.console.PowerOff(err)
		m.wake()
		return err
	}
	m.proc, m.off = p, nil
	m.wake()
	go m.watch(p)
	for name := range m.unplugged {
		if err := setLink(m.ctx, p, name, false); err != nil {
			return err
		}
	}
	return nil
}

// watch waits for the end of p and says what it means. A reset is followed by the next boot.
func (m *Machine) watch(p *process) {
	stop := make(chan struct{})
	used := make(chan time.Duration, 1)
	go func() { used <- followCPU(p.pid, stop) }()
	<-p.done
	close(stop)

	m.ssh.forget(false)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.used += <-used
	m.proc = nil
	cause, err := p.ended()
	if err != nil && cause != "" {
		m.console.Note(fmt.Sprintf("after the end of its guest by %s: %v", cause, err))
	}
	cycle := m.cycle
	m.cycle = false
	switch {
	case m.cut:
		m.off = ErrPowerCut
	case m.ctx.Err() != nil:
		m.off = context.Cause(m.ctx)
	case cycle:
		m.boot()
		return
	case err != nil && cause == "":
		m.off = m.crashed(err)
	case cause == guestReset || cause == hostReset:
		m.boot() // Its failure is the machine's state from here on.
		return
	case cause == guestShutdown:
		m.off = ErrPoweredOff
	default:
		m.off = fmt.Errorf("QEMU ended by %q", cause)
	}
	m.console.PowerOff(m.off)
	m.wake()
}

// crashed adds what to do to a failure of QEMU. KVM that fails late is not trusted again.
func (m *Machine) crashed(err error) error {
	if !errors.Is(err, errInternal) || m.hw.accel != KVM {
		return err
	}
	hint := "run it again"
	if h, herr := thisHost(m.ctx, m.command, m.hw, m.cfg.Dir); herr == nil {
		v := Verdict{BootID: h.bootID(), Use: TCG, Why: "KVM gave up in the middle of a boot"}
		if writeVerdict(h.file, v) == nil {
			hint += ": it will be with TCG"
		}
	}
	return fmt.Errorf("%w under KVM; %s", err, hint)
}

func (m *Machine) wake() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// Boots counts how often the firmware has started.
func (m *Machine) Boots() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.boots
}

// whyOff is nil while the machine is on.
func (m *Machine) whyOff() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.off
}

// WaitBoot waits until the firmware has started n times. A machine that stays off ends the wait.
//
//	n := m.Boots()
//	m.Run(ctx, "root", "systemctl reboot")
//	m.WaitBoot(ctx, n+1)
func (m *Machine) WaitBoot(ctx context.Context, n int) error {
	return m.WaitBootWithin(ctx, n, m.cfg.Timeout)
}

// WaitBootWithin is WaitBoot with a limit, in machine time, of its own.
func (m *Machine) WaitBootWithin(ctx context.Context, n int, limit time.Duration) error {
	ctx, cancel := m.deadline(ctx, limit)
	defer cancel()
	err := m.await(ctx, func() (bool, error) { return m.boots >= n, m.off })
	if err != nil {
		return fmt.Errorf("wait for boot %d of %s: %w\n%s", n, m.cfg.Name, err, m.console.Tail(40))
	}
	return nil
}

// Reboot has the guest reboot itself, as root, and waits for the firmware.
func (m *Machine) Reboot(ctx context.Context) error {
	n := m.Boots()
	_, err := m.Run(ctx, "root", "systemctl reboot")
	var failed *CommandError
	if err != nil && !(errors.As(err, &failed) && failed.Status() < 0) { // The connection may end before the answer.
		return err
	}
	return m.WaitBoot(ctx, n+1)
}

// WaitOff waits until the machine has powered itself off.
func (m *Machine) WaitOff(ctx context.Context) error {
	err := m.wait(ctx, func() (bool, error) {
		if m.off == nil || errors.Is(m.off, ErrPoweredOff) {
			return m.off != nil, nil
		}
		return false, m.off
	})
	if err != nil {
		return fmt.Errorf("wait for %s to power off: %w\n%s", m.cfg.Name, err, m.console.Tail(40))
	}
	return nil
}

// Wait waits, without a deadline of its own, until the machine is off, and returns why: ErrPoweredOff, ErrPowerCut or
// a failure.
func (m *Machine) Wait(ctx context.Context) error {
	return m.await(ctx, func() (bool, error) { return false, m.off })
}

// wait is await with the machine's deadline.
func (m *Machine) wait(ctx context.Context, done func() (bool, error)) error {
	ctx, cancel := m.deadline(ctx, m.cfg.Timeout)
	defer cancel()
	return m.await(ctx, done)
}

// await calls done, with m.mu held, whenever something changes, until it returns true or an error.
func (m *Machine) await(ctx context.Context, done func() (bool, error)) error {
	for {
		m.mu.Lock()
		ok, err := done()
		changed := m.changed
		m.mu.Unlock()
		if ok {
			return nil
		}
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-changed:
		}
	}
}

// Shutdown presses the power button (ACPI) and waits until the guest has powered off.
func (m *Machine) Shutdown(ctx context.Context) error {
	if err := m.execute(ctx, "system_powerdown"); err != nil {
		return err
	}
	return m.WaitOff(ctx)
}

// Reset presses the reset button: the guest gets no warning, and boots again.
func (m *Machine) Reset(ctx context.Context) error {
	n := m.Boots()
	if err := m.execute(ctx, "system_reset"); err != nil {
		return err
	}
	return m.WaitBoot(ctx, n+1)
}

// Pause stops the guest's clock and CPUs.
func (m *Machine) Pause(ctx context.Context) error { return m.execute(ctx, "stop") }

// Continue undoes Pause.
func (m *Machine) Continue(ctx context.Context) error { return m.execute(ctx, "cont") }

// PowerCut ends QEMU on the spot. Writes that the guest's kernel still had in memory are lost. A machine that is off
// stays off.
func (m *Machine) PowerCut() error {
	m.mu.Lock()
	m.cut = true
	p := m.proc
	m.mu.Unlock()
	if p == nil {
		return nil
	}
	if err := p.end(); err != nil {
		return fmt.Errorf("cut power of %s: %w", m.cfg.Name, err)
	}
	return m.await(context.Background(), func() (bool, error) { return m.proc == nil, nil })
}

// PowerCycle cuts the power of a machine that is on and gives it back at once: one boot more.
func (m *Machine) PowerCycle(ctx context.Context) error {
	m.mu.Lock()
	p, off, n := m.proc, m.off, m.boots
	m.cycle = p != nil
	m.mu.Unlock()
	if p == nil {
		return fmt.Errorf("cycle power of %s: %w", m.cfg.Name, off)
	}
	if err := p.end(); err != nil {
		return fmt.Errorf("cycle power of %s: %w", m.cfg.Name, err)
	}
	return m.WaitBoot(ctx, n+1)
}

// Close cuts the power and closes the logs. The folder stays.
func (m *Machine) Close() error {
	return errors.Join(m.PowerCut(), m.console.Err(), m.closeLogs())
}

func (m *Machine) closeLogs() error {
	var errs []error
	for i, f := range m.logs {
		if f != nil {
			errs = append(errs, f.Close())
			m.logs[i] = nil
		}
	}
	return errors.Join(errs...)
}

// Execute runs a QMP command on the machine's QEMU, see QMP.Execute.
func (m *Machine) Execute(ctx context.Context, command string, args, result any) error {
	m.mu.Lock()
	p, off := m.proc, m.off
	m.mu.Unlock()
	if p == nil {
		return fmt.Errorf("execute %s: %w", command, off)
	}
	return p.qmp.Execute(ctx, command, args, result)
}

func (m *Machine) execute(ctx context.Context, command string) error {
	ctx, cancel := m.deadline(ctx, m.cfg.Timeout)
	defer cancel()
	return m.Execute(ctx, command, nil, nil)
}

// CPUTime is the CPU time of all boots so far, a measure of work that other load on the host hardly changes.
func (m *Machine) CPUTime() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.proc == nil {
		return m.used
	}
	return m.used + cpuTime(m.proc.pid)
}

// followCPU returns the last CPU time seen of a process; when it has ended it is too late to ask.
func followCPU(pid int, stop <-chan struct{}) time.Duration {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	var used time.Duration
	for {
		used = max(used, cpuTime(pid))
		select {
		case <-stop:
			return used
		case <-tick.C:
		}
	}
}
