package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strings"

	"github.com/proa-os/proa/ignition/config"
)

// A Machine is what platforms read from; tests give a directory for the kernel's file systems.
type Machine struct {
	Sys    *os.Root                                       // /sys
	Getenv func(string) string                            // os.Getenv
	Load   func(ctx context.Context, module string) error // loads a kernel module
}

// ThisMachine opens the real one.
func ThisMachine() (*Machine, error) {
	sys, err := os.OpenRoot("/sys")
	if err != nil {
		return nil, err
	}
	return &Machine{Sys: sys, Getenv: os.Getenv, Load: modprobe}, nil
}

// A Platform is one way to give a machine its config. Config returns the bytes and what errors call them, or
// fs.ErrNotExist when the platform works and has no config for this machine.
type Platform struct {
	ID     string
	Config func(ctx context.Context, m *Machine) (name string, raw []byte, err error)
}

// platforms is the table: a platform is a line here and a function.
func platforms() []Platform {
	return []Platform{
		{ID: "file", Config: fileConfig},
		{ID: "qemu", Config: qemuConfig},
	}
}

// Lookup finds a platform by the id that upstream gives it.
func Lookup(id string) (Platform, error) {
	var ids []string
	for _, p := range platforms() {
		if p.ID == id {
			return p, nil
		}
		ids = append(ids, p.ID)
	}
	return Platform{}, fmt.Errorf("find platform %q: expected %s; set the kernel argument ignition.platform.id= to one of them", id, strings.Join(ids, " or "))
}

// PlatformArgument returns the value of ignition.platform.id= in a kernel command line. A platform is never guessed:
// on the wrong one, somebody else could configure the machine. Different values are an error.
func PlatformArgument(commandLine string) (string, error) {
	var id string
	for _, word := range strings.Fields(commandLine) {
		v, ok := strings.CutPrefix(word, "ignition.platform.id=")
		switch {
		case !ok || v == "":
		case id != "" && id != v:
			return "", fmt.Errorf("read the kernel command line: expected one ignition.platform.id=, found %q and %q; remove one of them", id, v)
		default:
			id = v
		}
	}
	if id == "" {
		return "", errors.New("read the kernel command line: expected ignition.platform.id=, found none; add it")
	}
	return id, nil
}

// fileConfig is upstream's platform for tests: $IGNITION_CONFIG_FILE, or config.ign in the working directory.
func fileConfig(_ context.Context, m *Machine) (string, []byte, error) {
	name := m.Getenv("IGNITION_CONFIG_FILE")
	if name == "" {
		name = "config.ign"
	}
	f, err := os.Open(name)
	if err != nil {
		return name, nil, fmt.Errorf("open config: %v; set IGNITION_CONFIG_FILE", err) // missing is an error here
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, config.MaxSize+1))
	return name, raw, err
}

// qemuConfig reads QEMU's firmware configuration device (kernel: Documentation/ABI/testing/sysfs-firmware-qemu_fw_cfg).
func qemuConfig(ctx context.Context, m *Machine) (string, []byte, error) {
	const (
		device = "firmware/qemu_fw_cfg"
		key    = "opt/com.coreos/config"
		name   = "fw_cfg " + key
	)
	if _, err := m.Sys.Stat(device); errors.Is(err, fs.ErrNotExist) {
		if err := m.Load(ctx, "qemu_fw_cfg"); err != nil {
			return name, nil, err
		}
		if _, err := m.Sys.Stat(device); err != nil {
			return name, nil, fmt.Errorf("find the firmware configuration device: expected /sys/%s, found nothing; is this machine QEMU?", device)
		}
	}
	f, err := m.Sys.Open(device + "/by_name/" + key + "/raw")
	if err != nil {
		return name, nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, config.MaxSize+1))
	return name, raw, err
}

func modprobe(ctx context.Context, module string) error {
	if out, err := exec.CommandContext(ctx, "/sbin/modprobe", "-b", module).CombinedOutput(); err != nil {
		return fmt.Errorf("load kernel module %s: %w: %s", module, err, strings.TrimSpace(string(out)))
	}
	return nil
}
