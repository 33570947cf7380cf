package arch

import (
	"bytes"
	"debug/elf"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"github.com/proa-os/proa/internal/gpt"
)

// TestTable: no field is forgotten, and no two architectures share a value that tells them apart.
func TestTable(t *testing.T) {
	seen := make(map[string]string)
	for _, a := range table() {
		v := reflect.ValueOf(a)
		for i := range v.NumField() {
			name := v.Type().Field(i).Name
			if v.Field(i).IsZero() {
				t.Errorf("%s: no %s", a.Debian, name)
			}
			key := name + " " + v.Field(i).String()
			if v.Field(i).Kind() == reflect.String && seen[key] != "" {
				t.Errorf("%s and %s have the same %s", a.Debian, seen[key], key)
			}
			seen[key] = a.Debian
		}
		if got, err := Of(a.Debian); err != nil || got != a {
			t.Errorf("Of(%s): got %+v, %v", a.Debian, got, err)
		}
		if got, err := OfRoot(a.RootType); err != nil || got != a {
			t.Errorf("OfRoot(%s): got %+v, %v", a.RootType, got, err)
		}
	}
}

func TestNames(t *testing.T) {
	a, err := Of("arm64")
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join([]string{a.LibDir(), a.Stub(), a.BootLoader(), a.RemovableLoader()}, " ")
	want := "usr/lib/aarch64-linux-gnu usr/lib/systemd/boot/efi/linuxaa64.efi.stub usr/lib/systemd/boot/efi/systemd-bootaa64.efi EFI/BOOT/BOOTAA64.EFI"
	if got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if a.HasBIOS() {
		t.Error("arm64 has a BIOS")
	}
}

// Package gpt, whose tests run programs of the tools tree, cannot be imported by what the tools tree stands on.
func TestRootTypes(t *testing.T) {
	for debian, want := range map[string]gpt.GUID{"amd64": gpt.TypeRootAMD64, "arm64": gpt.TypeRootARM64} {
		if a, err := Of(debian); err != nil || a.RootType != string(want) {
			t.Errorf("%s: got %s, %v, want %s", debian, a.RootType, err, want)
		}
	}
}

func TestUnknown(t *testing.T) {
	if _, err := Of("x86_64"); err == nil || !strings.Contains(err.Error(), "is not one of amd64, arm64") {
		t.Errorf("got %v, want an error that lists what there is", err)
	}
}

// TestHost compares with what the kernel and the test program itself say.
func TestHost(t *testing.T) {
	a, err := Host()
	if err != nil {
		t.Fatal(err)
	}
	f, err := elf.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if f.Machine != elf.Machine(a.Machine) {
		t.Errorf("this program is for %v, the table says %v", f.Machine, elf.Machine(a.Machine))
	}
	var u syscall.Utsname
	if err := syscall.Uname(&u); err != nil {
		t.Fatal(err)
	}
	var b []byte
	for _, c := range u.Machine {
		b = append(b, byte(c))
	}
	if b, _, _ = bytes.Cut(b, []byte{0}); string(b) != a.Uname {
		t.Errorf("the kernel says %s, the table %s", b, a.Uname)
	}
}
