package stage

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/proa-os/proa/ignition/loader"
)

// The stage restarts a machine that boots without its arguments, once, and lets one go on that has them.
func TestKernelArguments(t *testing.T) {
	m, o, dir := machine(t, `{"ignition":{"version":"3.3.0"},"kernelArguments":{"shouldExist":["a=b"],"shouldNotExist":["gone"]}}`)
	box := loader.Machine{Proc: dir + "/proc", Sys: dir + "/nosys", Pending: dir + "/run/written", ESP: func() (string, func() error, error) {
		return dir + "/esp", func() error { return nil }, nil
	}}
	line := func(text string) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(dir+"/proc", 0o755), os.WriteFile(dir+"/proc/cmdline", []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.MkdirAll(dir+"/esp/grub", 0o755), os.WriteFile(dir+"/esp/grub/grub.cfg", []byte("/grub/ignition.env"), 0o644)); err != nil {
		t.Fatal(err)
	}
	line("proa.roothash=x quiet")
	o.Stage = "fetch-offline"
	if err := Run(t.Context(), m, o); err != nil {
		t.Fatal(err)
	}
	restarts := 0
	restart := func(_ context.Context, why string) error {
		restarts++
		if !strings.Contains(why, "a=b") {
			t.Errorf("says %q", why)
		}
		return nil
	}
	if err := arguments(t.Context(), o, box, restart); !errors.Is(err, errRestarting) || restarts != 1 {
		t.Errorf("got %v, %d restarts", err, restarts)
	}
	line("proa.roothash=x quiet ignition.kargs=1 a=b")
	if err := arguments(t.Context(), o, box, restart); err != nil || restarts != 1 {
		t.Errorf("got %v, %d restarts", err, restarts)
	}
	line("proa.roothash=x gone")
	err := arguments(t.Context(), o, box, restart)
	if err == nil || !strings.Contains(err.Error(), ":1:51: kernelArguments: kernel argument cannot be taken away: gone: expected an argument that provisioning has added") {
		t.Errorf("got %v", err)
	}
}
