package kargs

import (
	"errors"
	"strings"
	"testing"

	"github.com/proa-os/proa/internal/cmdline"
)

const signed = "proa.roothash=aa proa.hashoffset=4096 console=tty0 panic=10 quiet"

func TestDecide(t *testing.T) {
	tests := []struct {
		name, line     string
		want, unwanted []string
		words          string // "-": nothing to do
		err            string
	}{
		{"nothing asked for", signed, nil, nil, "-", ""},
		{"one to add", signed, []string{"mitigations=off"}, nil, "mitigations=off", ""},
		{"there already", signed, []string{"quiet", "console=tty0"}, nil, "-", ""},
		{"another value", signed, []string{"console=ttyS1", "console=ttyS1"}, nil, "console=ttyS1", ""},
		{"as it was written", signed + " ignition.kargs=2 a=b c ignition.platform.id=qemu", []string{"a=b", "c"}, []string{"gone"}, "-", ""},
		{"order counts", signed + " ignition.kargs=2 c a=b", []string{"a=b", "c"}, nil, "a=b c", ""},
		{"no longer asked for", signed + " ignition.kargs=1 a", nil, []string{"a"}, "", ""},
		{"a marker that lies", signed + " ignition.kargs=9 a", []string{"a"}, nil, "-", ""},
		{"of the boot program", signed, nil, []string{"quiet"}, "", "cannot be taken away"},
		{"the root hash", signed, []string{"proa.roothash=bb"}, nil, "", "protected kernel argument"},
		{"without the root hash", signed, nil, []string{"proa.roothash=aa"}, "", "protected kernel argument"},
		{"process 1", signed, []string{"init=/bin/sh"}, nil, "", "protected kernel argument"},
		{"the kernel's other spelling", signed, []string{"DM-MOD.create=x"}, nil, "", "protected kernel argument"},
		{"two words", signed, []string{"a init=/bin/sh"}, nil, "", "invalid kernel argument"},
		{"quotes", signed, []string{`a="b c"`}, nil, "", "invalid kernel argument"},
		{"empty", signed, []string{""}, nil, "", "invalid kernel argument"},
		{"too long", signed, []string{"a=" + strings.Repeat("x", 2000)}, nil, "", "too many kernel arguments"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := Decide(cmdline.Parse(tt.line), tt.want, tt.unwanted)
			var r *Refusal
			if tt.err != "" {
				if !errors.As(err, &r) || !strings.Contains(r.What, tt.err) || r.Next == "" {
					t.Errorf("got %v, want %s", err, tt.err)
				}
				return
			}
			if err != nil || c.Needed != (tt.words != "-") || c.Needed && strings.Join(c.Words, " ") != tt.words {
				t.Errorf("got %+v, %v", c, err)
			}
		})
	}
}

func TestProtected(t *testing.T) {
	for _, key := range []string{"proa.try", "root", "rootflags", "init", "rdinit", "dm_mod.create", "dm-verity.require_signatures", "ignition.config.url", "module.sig_enforce", "module.sig-enforce", "panic", "--", "systemd.unit", "systemd.confirm_spawn", "2", "3", "4", "5", "-b", "-s"} {
		if !Protected(key) {
			t.Errorf("%s may be set", key)
		}
	}
	for _, key := range []string{"console", "mitigations", "lockdown", "audit", "nosmt", "systemd.log_level", "rootless", "intel_iommu"} {
		if Protected(key) {
			t.Errorf("%s may not be set", key)
		}
	}
}
