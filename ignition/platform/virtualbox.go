package platform

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Requests and results of /dev/vboxguest (kernel: include/uapi/linux/vboxguest.h, vbox_vmmdev_types.h, vbox_err.h).
const (
	vboxVersion    = 0xc02c5600
	vboxConnect    = 0xc09c5604
	vboxDisconnect = 0xc01c5605
	vboxCall       = 0xc0005607 // the size of the message is added

	vboxHeader = 24 // size in, version, type, result, size out, reserved
	vboxNumber = 40 // where a call's parameters begin, 16 bytes each: type, size, address

	propertyGet, propertyDelete = 1, 4

	linearOut, linearIn, wide, word = 4, 5, 2, 1

	vboxOverflow, vboxNotFound, vboxDenied = -41, -78, -38
)

const vboxProperty = "/Ignition/Config"

// virtualboxConfig reads a guest property. Its encoding is upstream's provision for later: none is known.
func virtualboxConfig(ctx context.Context, s *session) (raw []byte, err error) {
	err = s.properties(ctx, func(c *vbox) error {
		encoding, err := c.property(vboxProperty + "/Encoding")
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if len(encoding) > 0 {
			return fmt.Errorf("read guest property %s/Encoding: expected none, found %.20q", vboxProperty, encoding)
		}
		raw, err = c.property(vboxProperty)
		return err
	})
	return raw, err
}

func removeVirtualBox(ctx context.Context, s *session) error {
	return s.properties(ctx, func(c *vbox) error {
		return errors.Join(c.delete(vboxProperty+"/Encoding"), c.delete(vboxProperty))
	})
}

// vbox is a connection to the service of guest properties.
type vbox struct {
	do     func(request uintptr, message []byte) error
	client uint32
}

func (s *session) properties(ctx context.Context, use func(*vbox) error) error {
	c := &vbox{do: s.Guest.VBox}
	if c.do == nil {
		if err := s.Load(ctx, "vboxguest"); err != nil {
			return err
		}
		f, err := os.OpenFile("/dev/vboxguest", os.O_RDWR, 0)
		if err != nil {
			return fmt.Errorf("open VirtualBox's device: %w; is this machine VirtualBox?", err)
		}
		defer f.Close()
		c.do = func(request uintptr, message []byte) error {
			if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(unsafe.Pointer(&message[0]))); errno != 0 {
				return errno
			}
			return nil
		}
	}
	version := vboxMessage(20, 20)
	binary.NativeEndian.PutUint32(version[24:], 0x10000)
	binary.NativeEndian.PutUint32(version[28:], 0x10000)
	if _, err := c.send(vboxVersion, version); err != nil {
		return err
	}
	connect := vboxMessage(132, 4)
	connect = connect[:156]
	binary.NativeEndian.PutUint32(connect[24:], 2) // a service that exists on this host
	copy(connect[28:], "VBoxGuestPropSvc")
	if _, err := c.send(vboxConnect, connect); err != nil {
		return err
	}
	c.client = binary.NativeEndian.Uint32(connect[24:])
	err := use(c)
	disconnect := vboxMessage(4, 0)
	binary.NativeEndian.PutUint32(disconnect[24:], c.client)
	_, derr := c.send(vboxDisconnect, disconnect)
	return errors.Join(err, derr)
}

// vboxMessage has a header for so many bytes in and out behind it.
func vboxMessage(in, out int) []byte {
	m := make([]byte, vboxHeader+max(in, out))
	binary.NativeEndian.PutUint32(m, uint32(vboxHeader+in))
	binary.NativeEndian.PutUint32(m[4:], 0x10001)
	binary.NativeEndian.PutUint32(m[16:], uint32(vboxHeader+out))
	return m
}

// send returns the result in the header, which is an error unless listed in allowed.
func (c *vbox) send(request uintptr, m []byte, allowed ...int32) (int32, error) {
	if err := c.do(request, m); err != nil {
		return 0, fmt.Errorf("talk to VirtualBox: %w", err)
	}
	result := int32(binary.NativeEndian.Uint32(m[12:]))
	if result >= 0 {
		return result, nil
	}
	for _, a := range allowed {
		if result == a {
			return result, nil
		}
	}
	if result == vboxDenied {
		return result, errors.New("talk to VirtualBox: permission denied; is the guest property read-only?")
	}
	return result, fmt.Errorf("talk to VirtualBox: error %d", result)
}

// call calls a function of the service; value is where a property goes.
func (c *vbox) call(function uint32, name string, value []byte) (result int32, size uint32, err error) {
	count := 1
	if value != nil {
		count = 4
	}
	m := vboxMessage(16+16*count, 16+16*count)
	put := binary.NativeEndian.PutUint32
	put(m[24:], c.client)
	put(m[28:], function)
	put(m[32:], 10_000) // milliseconds
	m[36] = 1           // interruptible
	binary.NativeEndian.PutUint16(m[38:], uint16(count))
	text := append([]byte(name), 0)
	var pin runtime.Pinner
	defer pin.Unpin()
	pointer := func(n int, kind uint32, b []byte) {
		pin.Pin(&b[0])
		p := m[vboxNumber+16*n:]
		put(p, kind)
		put(p[4:], uint32(len(b)))
		binary.NativeEndian.PutUint64(p[8:], uint64(uintptr(unsafe.Pointer(&b[0]))))
	}
	pointer(0, linearIn, text)
	if value != nil {
		pointer(1, linearOut, value)
		put(m[vboxNumber+32:], wide)
		put(m[vboxNumber+48:], word)
	}
	if result, err = c.send(vboxCall+uintptr(len(m))<<16, m, vboxOverflow, vboxNotFound); err == nil && value != nil {
		size = binary.NativeEndian.Uint32(m[vboxNumber+52:])
	}
	return result, size, err
}

// property returns a property's value: "<data> NUL <flags> NUL" without what follows the first NUL.
func (c *vbox) property(name string) ([]byte, error) {
	value := make([]byte, 1)
	for range 3 {
		result, size, err := c.call(propertyGet, name, value)
		switch {
		case err != nil:
			return nil, err
		case result == vboxNotFound:
			return nil, fs.ErrNotExist
		case result == vboxOverflow && size > 0 && size <= 64<<20:
			value = make([]byte, size)
			continue
		case result == vboxOverflow:
			return nil, &tooLarge{}
		}
		data, _, ok := bytes.Cut(value[:min(int(size), len(value))], []byte{0})
		if !ok {
			return nil, fmt.Errorf("read guest property %s: expected a NUL at its end, found none", name)
		}
		return data, nil
	}
	return nil, fmt.Errorf("read guest property %s: its size keeps changing", name)
}

func (c *vbox) delete(name string) error {
	_, _, err := c.call(propertyDelete, name, nil)
	return err
}
