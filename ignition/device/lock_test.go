package device

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/proa-os/proa/ignition/pin"
	"github.com/proa-os/proa/ignition/plan"
	"github.com/proa-os/proa/ignition/source"
)

// keyed is a machine whose volume knows its keys.
type keyed struct {
	*files
	keys map[string]bool // "lock" is the one that servers open
}

func (k *keyed) Run(ctx context.Context, input []byte, program string, args ...string) error {
	if err := k.files.Run(ctx, input, program, args...); err != nil || program != "cryptsetup" {
		return err
	}
	key := string(input)
	switch args[0] {
	case "luksFormat":
		k.keys = map[string]bool{key: true}
	case "luksOpen", "luksRemoveKey":
		if !k.keys[key] {
			return errors.New("no key available with this passphrase")
		}
		if args[0] == "luksRemoveKey" {
			delete(k.keys, key)
		}
	}
	return nil
}

// Wherever the power is cut, in the end the volume has the locked key and no other, and the machine has none.
func TestPowerCutWhileLocking(t *testing.T) {
	const storage = `{"luks":[{"name":"box","device":"/dev/vdc","clevis":{"tang":[{"url":"http://tang","thumbprint":"oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U"}]}}]}`
	for n, done := 0, false; !done; n++ {
		m, root := prepare(t, true)
		k := &keyed{files: m}
		devices, _, _ := plan.Split(planOf(t, storage))
		left, last := n, ""
		o := Options{Root: root, Fetch: (&source.Fetcher{Offline: true}).Fetch,
			Fault: func(step string) error {
				if last = step; left == 0 {
					return errors.New("power cut")
				}
				left--
				return nil
			},
			Bind: func(_ context.Context, _ string, _ pin.Pin, existing []byte) error {
				if !k.keys[string(existing)] {
					return errors.New("no key available with this passphrase")
				}
				k.keys["lock"] = true
				return nil
			},
			Unlock: func(_ context.Context, _, name string, _ ...string) error {
				if !k.keys["lock"] {
					return errors.New("no lock")
				}
				m.create("mapper!"+name, 16*mib)
				return nil
			}}
		done = Run(t.Context(), k, devices, o) == nil
		if done && n < 10 {
			t.Errorf("only %d steps", n)
		}
		m.boot()
		o.Fault = nil
		if err := Run(t.Context(), k, devices, o); err != nil {
			t.Fatalf("cut before %q: %v", last, err)
		}
		if got := slices.Collect(maps.Keys(k.keys)); fmt.Sprint(got) != "[lock]" {
			t.Errorf("cut before %q: the volume has the keys %.40q", last, got)
		}
		if _, err := root.Stat("etc/luks/box"); err == nil {
			t.Errorf("cut before %q: the machine still has the key", last)
		}
		b, err := root.ReadFile("etc/crypttab")
		if err != nil || strings.Count(string(b), "/run/clevis/box.sock") != 1 {
			t.Errorf("cut before %q: crypttab is %q, %v", last, b, err)
		}
		if _, err := root.Stat("etc/systemd/system/systemd-cryptsetup@box.service.d/clevis.conf"); err != nil {
			t.Errorf("cut before %q: %v", last, err)
		}
	}
}
