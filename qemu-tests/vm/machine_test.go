package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/proa-os/proa/internal/guesttest"
	"github.com/proa-os/proa/internal/testenv"
)

// TestMachine drives a real QEMU: a kernel, and a PID 1 that does what is typed on its console. It has one CPU: under TCG a second one now and then
// runs an instruction that the first has just patched, and the kernel panics at it (int3).
func TestMachine(t *testing.T) {
	testenv.Machines(t)
	dir := t.TempDir()
	kernel := testKernel(t)
	m, err := Start(t.Context(), Config{
		Name: "smoke", Dir: dir, Kernel: kernel, Initrd: guestInitrd(t, dir), MemoryMiB: 256, CPUs: 1,
		KernelArgs: []string{"console=ttyS0,115200", "panic=1", "quiet"}, Timeout: 60 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Log(m.Explain())
		}
	})
	wait := func(re string, boot int) {
		t.Helper()
		line, err := m.WaitConsole(t.Context(), re)
		if err != nil {
			t.Fatal(err)
		}
		if line.Boot != boot || m.Boots() != boot {
			t.Errorf("got %q in boot %d of %d, want boot %d", line.Text, line.Boot, m.Boots(), boot)
		}
	}
	do := func(word string) {
		t.Helper()
		if err := m.Type(word + "\n"); err != nil {
			t.Fatal(err)
		}
	}

	wait("^guest: ready$", 1)
	do("hello")
	wait("^guest: hello$", 1)
	if got := m.Explain(); strings.Count(got, "HLT=") != 1 || !strings.Contains(got, "guest: hello") {
		t.Errorf("got %q, want the CPU and the console", got)
	}

	do("reboot") // A guest that reboots itself is up again in a new QEMU.
	wait("^guest: ready$", 2)
	m.AssertCleanConsole(t)

	do("exit")
	wait(`Kernel panic - not syncing: Attempted to kill init`, 2)
	if err := m.WaitBoot(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	if found := m.scanConsole(AllowPanic("the test ends PID 1")); len(found) > 0 {
		t.Errorf("got %v, want the panic allowed", found)
	}

	if err := m.Reset(t.Context()); err != nil { // In the middle of boot 3.
		t.Fatal(err)
	}
	if got := m.Boots(); got != 4 {
		t.Errorf("got boot %d after a reset, want 4", got)
	}
	if err := m.PowerCycle(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := m.Boots(); got != 5 {
		t.Errorf("got boot %d after a power cycle, want 5", got)
	}
	if err := m.PowerCut(); err != nil {
		t.Fatal(err)
	}
	if _, err := m.WaitConsole(t.Context(), "never"); !errors.Is(err, ErrPowerCut) {
		t.Errorf("got %v, want %v", err, ErrPowerCut)
	}
	if err := m.Type("x"); !errors.Is(err, ErrPowerCut) {
		t.Errorf("got %v, want %v", err, ErrPowerCut)
	}
	if err := m.PowerOn(); err != nil {
		t.Fatal(err)
	}
	wait("^guest: ready$", 6)
	if err := m.PowerOn(); err == nil {
		t.Error("got no error from switching on a machine that is on")
	}

	do("poweroff")
	if err := m.WaitOff(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := m.WaitBoot(t.Context(), 7); !errors.Is(err, ErrPoweredOff) {
		t.Errorf("got %v, want %v", err, ErrPoweredOff)
	}
	t.Logf("accelerator %+v, 6 boots took %.1f s of CPU", m.Accelerator(), m.CPUTime().Seconds())
}

// TestStartReportsQEMU shows that QEMU's own words reach the caller.
func TestStartReportsQEMU(t *testing.T) {
	testenv.Tools(t)
	t.Setenv(AcceleratorEnv, "tcg")
	dir := t.TempDir()
	kernel := filepath.Join(dir, "kernel")
	if err := os.WriteFile(kernel, []byte("not a kernel"), 0o644); err != nil {
		t.Fatal(err)
	}
	m, err := Start(t.Context(), Config{Dir: dir, Kernel: kernel})
	if err == nil {
		m.Close()
		t.Fatal("got a machine without a kernel")
	}
	if !strings.Contains(err.Error(), "start QEMU: it said: ") || !strings.Contains(err.Error(), "invalid kernel") {
		t.Errorf("got %v, want what QEMU said", err)
	}
}

func TestStartEndsWithContext(t *testing.T) {
	testenv.Machines(t)
	t.Setenv(AcceleratorEnv, "tcg")
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	m, err := Start(ctx, Config{Dir: dir, Kernel: testKernel(t), Initrd: guestInitrd(t, dir)})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	cancel()
	if err := m.WaitOff(t.Context()); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the machine off because its context ended", err)
	}
}

// TestQEMUDiesWithTheHarness kills a process that runs a machine, and looks for its QEMU.
func TestQEMUDiesWithTheHarness(t *testing.T) {
	testenv.Machines(t)
	if os.Getenv("PROA_TEST_HARNESS") == "1" {
		m, err := Start(t.Context(), Config{Dir: os.Getenv("PROA_TEST_DIR"), Kernel: os.Getenv("PROA_TEST_HARNESS_KERNEL"), MemoryMiB: 256})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("QEMU is %d\n", m.proc.pid)
		m.Wait(t.Context())
		return
	}
	dir := t.TempDir()
	harness := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestQEMUDiesWithTheHarness$")
	harness.Env = append(os.Environ(), "PROA_TEST_HARNESS=1", "PROA_TEST_DIR="+dir, "PROA_TEST_HARNESS_KERNEL="+testKernel(t), AcceleratorEnv+"=tcg")
	stdout, err := harness.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := harness.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Fscanf(stdout, "QEMU is %d\n", &pid); err != nil {
		t.Fatal(err)
	}
	if name := processName(pid); name != "qemu-system-x86" {
		t.Errorf("got process name %q, want QEMU's", name)
	}
	if err := harness.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	harness.Wait()
	for range 100 {
		if processName(pid) == "" {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Errorf("got QEMU still running as process %d", pid)
}

// processName is empty for a process that has ended, reaped or not.
func processName(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil || strings.Contains(string(b), ") Z ") {
		return ""
	}
	_, after, _ := strings.Cut(string(b), "(")
	name, _, _ := strings.Cut(after, ")")
	return name
}

func TestConfigErrors(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for want, cfg := range map[string]Config{
		"set Dir":          {Disk: file},
		"nothing to boot":  {Dir: "x"},
		"no writes to log": {Dir: "x", Kernel: file, LogWrites: true},
		"no such file":     {Dir: "x", Disk: file + ".none"},
		"with `make image": {Dir: "x", Kernel: file, Initrd: file + ".none"},
	} {
		if _, err := cfg.withDefaults(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got %v, want %q", cfg, err, want)
		}
	}
	cfg, err := Config{Dir: "x", Disk: file, Ignition: []byte("{}"), KernelArgs: []string{"a=b"}}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(cfg.KernelArgs, " "), "no_timer_check tsc=nowatchdog systemd.default_device_timeout_sec=300 a=b ignition.platform.id=qemu"; got != want {
		t.Errorf("got kernel arguments %q, want %q", got, want)
	}
}

// testKernel is Debian's kernel in the tools tree.
func testKernel(t *testing.T) string {
	t.Helper()
	kernel, err := guesttest.Kernel(testenv.Tools(t))
	if err != nil {
		t.Fatal(err)
	}
	return kernel
}

// guestInitrd has testdata/guest as /init, and modules that it loads.
func guestInitrd(t *testing.T, dir string, modules ...string) string {
	t.Helper()
	bin := filepath.Join(dir, "guest")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", bin, "./testdata/guest")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build guest: %v\n%s", err, out)
	}
	init, err := os.ReadFile(bin)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{"init": init}
	list, err := guesttest.Modules(testenv.Tools(t), modules...)
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range list {
		files[fmt.Sprintf("modules/%03d-%s.ko", i, m.Name)] = m.Content
	}
	initrd := filepath.Join(dir, "initrd")
	if err := os.WriteFile(initrd, guesttest.Archive(files), 0o644); err != nil {
		t.Fatal(err)
	}
	return initrd
}
