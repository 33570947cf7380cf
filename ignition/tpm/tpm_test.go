package tpm

import (
	"bytes"
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/proa-os/proa/internal/testenv"
)

// emulator starts a TPM and connects to it.
func emulator(t *testing.T) Device {
	t.Helper()
	dir := t.TempDir()
	cmd := testenv.Tools(t).Command(context.Background(), "swtpm", "socket", "--tpm2", "--tpmstate", "dir="+dir, "--server", "type=unixio,path="+dir+"/tpm",
		"--flags", "not-need-init,startup-clear")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	for range 500 {
		if c, err := net.Dial("unix", dir+"/tpm"); err == nil {
			t.Cleanup(func() { c.Close() })
			return Device{c}
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("the emulator does not answer")
	return Device{}
}

// What one TPM has sealed it unseals, as often as it is asked: nothing fills it up. Another TPM does not.
func TestSealAndUnseal(t *testing.T) {
	d := emulator(t)
	secret := bytes.Repeat([]byte("s"), MaxSecret)
	public, private, err := d.Seal(secret)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(append(public, private...), secret[:32]) {
		t.Error("the secret is in what is kept")
	}
	for range 10 { // a TPM has room for three objects
		if got, err := d.Unseal(public, private); err != nil || !bytes.Equal(got, secret) {
			t.Fatalf("got %q, %v", got, err)
		}
	}
	if _, err := emulator(t).Unseal(public, private); err == nil || !strings.Contains(err.Error(), "another TPM has sealed it") {
		t.Errorf("another TPM: %v", err)
	}
	damaged := bytes.Clone(private)
	damaged[len(damaged)-1] ^= 1
	for name, tc := range map[string][2][]byte{"damaged": {public, damaged}, "short": {public[:5], private}, "none": {nil, nil}, "swapped": {private, public}} {
		if _, err := d.Unseal(tc[0], tc[1]); err == nil {
			t.Errorf("%s: unsealed", name)
		}
	}
	for _, n := range []int{0, MaxSecret + 1} {
		if _, _, err := d.Seal(make([]byte, n)); err == nil {
			t.Errorf("%d bytes were sealed", n)
		}
	}
}

// mute is a device whose answers are chosen.
type mute struct{ answer []byte }

func (m mute) Write(b []byte) (int, error) { return len(b), nil }
func (m mute) Read(b []byte) (int, error)  { return copy(b, m.answer), nil }

func TestWrongAnswers(t *testing.T) {
	for name, b := range map[string][]byte{
		"nothing": {}, "half a header": {0x80, 1, 0, 0}, "a wrong length": {0x80, 1, 0, 0, 0, 11, 0, 0, 0, 0},
		"no handle": {0x80, 2, 0, 0, 0, 10, 0, 0, 0, 0}, "an error": {0x80, 1, 0, 0, 0, 10, 0, 0, 1, 1},
		"no more": {0x80, 2, 0, 0, 0, 14, 0, 0, 0, 0, 0x80, 0, 0, 0}, "a long field": {0x80, 2, 0, 0, 0, 20, 0, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0},
	} {
		d := Device{mute{b}}
		if _, _, err := d.Seal([]byte("s")); err == nil {
			t.Errorf("%s: sealed", name)
		}
		if _, err := d.Unseal(nil, nil); err == nil {
			t.Errorf("%s: unsealed", name)
		}
	}
}
