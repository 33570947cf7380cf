// Package platformtest has what platforms are tested with.
package platformtest

import (
	"encoding/binary"
	"strings"
	"testing"
)

// Hypervisor is VMware's side of the backdoor (open-vm-tools: lib/include/guest_msg_def.h): one channel at a time, with cookies, four bytes a call.
type Hypervisor struct {
	T    testing.TB
	Info map[string]string // guestinfo
	// Fault is asked before guestinfo changes, and its error is the call's; nil never has one.
	Fault func(name string) error

	open           bool
	request, reply []byte
	want           int
}

// Call is one IN instruction with its registers. Status 1 in the upper half of CX is success.
func (h *Hypervisor) Call(ax, bx, cx, dx, si, di *uint32) error {
	if *ax != 0x564d5868 || *dx&0xffff != 0x5658 || *cx&0xffff != 0x1e {
		h.T.Errorf("got registers %x %x %x %x %x %x", *ax, *bx, *cx, *dx, *si, *di)
		return nil
	}
	kind := *cx >> 16
	*cx = 0
	if kind != 0 && (!h.open || *dx>>16 != 7 || *si != 0xc00c1e || *di != 0xbeef) {
		return nil // refused
	}
	*cx = 1 << 16
	switch kind {
	case 0:
		if h.open || *bx != 0xc9435052 {
			*cx = 0
		}
		h.open, *dx, *si, *di = true, 7<<16|0x5658, 0xc00c1e, 0xbeef
	case 1:
		h.want, h.request = int(*bx), nil
	case 2:
		h.request = binary.LittleEndian.AppendUint32(h.request, *bx)
		if len(h.request) >= h.want {
			var err error
			h.reply, err = h.answer(string(h.request[:h.want]))
			return err
		}
	case 3:
		*cx, *bx, *dx = 3<<16, uint32(len(h.reply)), 1<<16
	case 4:
		var word [4]byte
		h.reply = h.reply[copy(word[:], h.reply):]
		*bx, *dx = binary.LittleEndian.Uint32(word[:]), 2<<16
	case 6:
		h.open = false
	}
	return nil
}

// Open reports whether a channel is open.
func (h *Hypervisor) Open() bool { return h.open }

func (h *Hypervisor) answer(request string) ([]byte, error) {
	command, rest, _ := strings.Cut(request, " ")
	name, value, _ := strings.Cut(rest, " ")
	if command == "info-set" {
		if h.Fault != nil {
			if err := h.Fault(name); err != nil {
				return nil, err
			}
		}
		h.Info[name] = value
		return []byte("1 "), nil
	}
	if v, ok := h.Info[name]; ok && command == "info-get" {
		return []byte("1 " + v), nil
	}
	return []byte("0 No value found"), nil
}
