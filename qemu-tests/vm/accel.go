package vm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/proa-os/proa/internal/tooltree"
)

// An Accelerator is how QEMU runs guest code.
type Accelerator string

const (
	KVM Accelerator = "kvm"
	TCG Accelerator = "tcg"
)

// AcceleratorEnv overrules the choice of accelerator: "kvm" or "tcg".
const AcceleratorEnv = "PROA_ACCEL"

// probeTime is how long a guest gets under KVM to reach its first process, on the clock. It needs about four seconds.
const probeTime = 45 * time.Second

// probeRE is the first line that proves that firmware, loader and kernel have run.
var probeRE = regexp.MustCompile(`Run /\S+ as init process|systemd\[1\]: `)

// Verdict is what is known about KVM on a host. It holds until the host boots again.
type Verdict struct {
	BootID string      `json:"boot_id"` // /proc/sys/kernel/random/boot_id
	Use    Accelerator `json:"use"`
	Why    string      `json:"why"`
}

// host is what chooseAccelerator asks; a test answers in its place.
type host struct {
	override string             // value of AcceleratorEnv
	bootID   func() string      // "" when unknown: nothing is remembered
	openKVM  func() error       // whether this user may use /dev/kvm
	file     string             // where the verdict is kept
	probe    func() (err error) // whether the guest comes up under KVM
}

// chooseAccelerator returns KVM only where a guest has been seen to come up in it. A device that opens proves nothing: nested
// hosts exist where the guest dies or hangs just behind the firmware.
func chooseAccelerator(h host) (Verdict, error) {
	switch h.override {
	case "":
	case string(KVM), string(TCG):
		return Verdict{Use: Accelerator(h.override), Why: "set by " + AcceleratorEnv}, nil
	default:
		return Verdict{}, fmt.Errorf("choose accelerator: %s=%s: expected kvm, tcg or nothing", AcceleratorEnv, h.override)
	}
	if err := h.openKVM(); err != nil {
		return Verdict{Use: TCG, Why: fmt.Sprintf("no KVM: %v", err)}, nil
	}
	id := h.bootID()
	if v, err := readVerdict(h.file); err == nil && id != "" && v.BootID == id {
		return v, nil
	}
	v := Verdict{BootID: id, Use: KVM, Why: "a guest came up in it"}
	if err := h.probe(); err != nil {
		reason, _, _ := strings.Cut(err.Error(), "\n")
		v.Use, v.Why = TCG, fmt.Sprintf("KVM does not work: %s", reason)
	}
	return v, writeVerdict(h.file, v)
}

func readVerdict(file string) (Verdict, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return Verdict{}, err
	}
	var v Verdict
	if err := json.Unmarshal(b, &v); err != nil {
		return Verdict{}, err
	}
	if v.Use != KVM && v.Use != TCG {
		return Verdict{}, fmt.Errorf("read %s: accelerator %q", file, v.Use)
	}
	return v, nil
}

func writeVerdict(file string, v Verdict) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("remember accelerator: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return fmt.Errorf("remember accelerator: %w", err)
	}
	tmp := fmt.Sprintf("%s.%d", file, os.Getpid())
	if err := os.WriteFile(tmp, append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("remember accelerator: %w", err)
	}
	if err := os.Rename(tmp, file); err != nil {
		return fmt.Errorf("remember accelerator: %w", err)
	}
	return nil
}

// thisHost asks the real host; the probe starts hw with nothing written to its disk.
func thisHost(ctx context.Context, cmd command, hw hardware, dir string) (host, error) {
	cache, err := tooltree.CacheDir()
	if err != nil {
		return host{}, fmt.Errorf("choose accelerator: %w", err)
	}
	return host{
		override: os.Getenv(AcceleratorEnv),
		bootID: func() string {
			b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
			return strings.TrimSpace(string(b))
		},
		openKVM: func() error {
			f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
			if err != nil {
				return err
			}
			return f.Close()
		},
		file:  filepath.Join(cache, "accelerator.json"),
		probe: func() error { return probeKVM(ctx, cmd, hw, dir, probeTime) },
	}, nil
}

// probeKVM starts the machine hw under KVM and waits, for limit on the clock, for its first process. Its console and QEMU's
// words are left in dir/kvm-probe.log.
func probeKVM(ctx context.Context, cmd command, hw hardware, dir string, limit time.Duration) error {
	log, err := os.Create(filepath.Join(dir, "kvm-probe.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	hw.accel, hw.snapshot, hw.writeLog, hw.forwards, hw.nics = KVM, true, "", nil, nil
	if hw.vars != "" {
		vars := filepath.Join(dir, "kvm-probe-vars.fd")
		if err := copyFile(vars, hw.vars); err != nil {
			return err
		}
		defer os.Remove(vars)
		hw.vars = vars
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("the guest did not come up within %s", limit))
	defer cancel()
	console := NewConsole(log)
	p, err := startProcess(ctx, cmd, hw, console, log)
	if err != nil {
		return err
	}
	go func() {
		<-p.done
		_, err := p.ended()
		if err == nil {
			err = errors.New("the guest ended before its first process")
		}
		console.PowerOff(err)
	}()
	_, err = console.WaitFor(ctx, probeRE)
	p.kill()
	<-p.done
	return err
}
