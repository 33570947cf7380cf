package dmverity

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/internal/digest"
)

func target() Target {
	t := Target{Device: "254:3", DataBlocks: 1423, RootHash: digest.Of([]byte("root"))}
	for i := range t.Salt {
		t.Salt[i] = byte(i)
	}
	return t
}

func TestParameters(t *testing.T) {
	want := "1 254:3 254:3 4096 4096 1423 1424 sha256 4813494d137e1631bba301d5acab6e7bb7aa74ce1185d456565ef51d737677b2 " +
		"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f 1 panic_on_corruption"
	if got := target().parameters(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// The layout of linux/dm-ioctl.h, field by field.
func TestRequest(t *testing.T) {
	params := target().parameters()
	r := newRequest("root-a", UUID(target().RootHash), unix.DM_READONLY_FLAG).withTarget("verity", 11384, params)
	u32 := func(off int) uint32 { return binary.NativeEndian.Uint32(r[off:]) }
	text := func(off, size int) string { s, _, _ := strings.Cut(string(r[off:off+size]), "\x00"); return s }

	if len(r)%8 != 0 || int(u32(12)) != len(r) || len(r) < 352+len(params)+1 {
		t.Errorf("%d bytes, says %d, parameters have %d", len(r), u32(12), len(params))
	}
	for name, got := range map[string][2]uint32{
		"version": {u32(0), 4}, "data start": {u32(16), 312}, "targets": {u32(20), 1}, "flags": {u32(28), 1},
		"first sector": {u32(312), 0}, "sectors": {u32(320), 11384}, "next": {u32(332), uint32(len(r) - 312)},
	} {
		if got[0] != got[1] {
			t.Errorf("%s: got %d, want %d", name, got[0], got[1])
		}
	}
	for got, want := range map[string]string{
		text(48, 128):         "root-a",
		text(176, 129):        "PROA-VERITY-" + target().RootHash.String(),
		text(336, 16):         "verity",
		text(352, len(r)-352): params,
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// What is too long for a field is cut, never written over the next one, and always ends with a zero.
func TestRequestLong(t *testing.T) {
	r := newRequest(strings.Repeat("n", 500), strings.Repeat("u", 500), 0)
	if len(r) != 312 || r[48+127] != 0 || r[176+128] != 0 || !bytes.Equal(r[305:], make([]byte, 7)) {
		t.Errorf("% x", []byte(r))
	}
}
