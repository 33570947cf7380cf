// Package tpm has a TPM 2.0 seal small secrets, so that no other TPM opens them.
//
// What is sealed is bound to nothing but the TPM: no PCRs (they change with every update of the system) and no password. The parent is the
// primary key that tpm2_createprimary(1) makes in the owner's hierarchy by default, an ECC one, so that clevis finds it too; a TPM makes the
// same one each time and nothing is stored in it.
//
// Six commands of the specification (TPM 2.0 Library, part 3): CreatePrimary, Create, Load, Unseal, FlushContext, and none else. The
// device is the kernel's resource manager, /dev/tpmrm0: a command is one write, its answer one read. Secrets pass the bus to the TPM in
// the clear, as they do with clevis.
package tpm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// MaxSecret is the most that a TPM seals, in bytes (MAX_SYM_DATA).
const MaxSecret = 128

// Values of part 2 of the specification.
const (
	tagNoSessions = 0x8001
	tagSessions   = 0x8002

	commandCreatePrimary = 0x131
	commandCreate        = 0x153
	commandLoad          = 0x157
	commandUnseal        = 0x15e
	commandFlush         = 0x165

	hierarchyOwner = 0x40000001
	sessionNone    = 0x40000009 // TPM_RS_PW: a password, here the empty one

	algAES, algKeyedHash, algSHA256, algNull, algECC, algCFB, curveP256 = 0x6, 0x8, 0xb, 0x10, 0x23, 0x43, 0x3

	fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, noDA, restricted, decrypt = 1 << 1, 1 << 4, 1 << 5, 1 << 6, 1 << 10, 1 << 16, 1 << 17
)

// maxAnswer is the largest that a TPM makes.
const maxAnswer = 4096

// A Device takes commands, and has the answer to the last one.
type Device struct{ io.ReadWriter }

// Seal seals a secret. The answer is a TPM2B_PUBLIC and a TPM2B_PRIVATE, both with their size before them.
func (d Device) Seal(secret []byte) (public, private []byte, err error) {
	if len(secret) == 0 || len(secret) > MaxSecret {
		return nil, nil, fmt.Errorf("seal secret: expected 1 to %d bytes, found %d", MaxSecret, len(secret))
	}
	err = d.withParent(func(parent uint32) error {
		var c message
		c.handle(parent)
		c.password()
		c.sized(func(c *message) { // TPM2B_SENSITIVE_CREATE: no password, the secret
			c.bytes(nil)
			c.bytes(secret)
		})
		c.sized(func(c *message) { // TPM2B_PUBLIC
			c.number16(algKeyedHash, algSHA256)
			c.number32(fixedTPM | fixedParent | userWithAuth | noDA)
			c.bytes(nil) // no policy
			c.number16(algNull)
			c.bytes(nil)
		})
		c.bytes(nil)  // outsideInfo
		c.number32(0) // no PCRs
		a, err := d.do("Create", tagSessions, commandCreate, c)
		if err != nil {
			return err
		}
		a.take(4) // parameterSize
		private, public = a.sizedWhole(), a.sizedWhole()
		return a.err
	})
	return public, private, err
}

// Unseal opens what Seal has made with the same TPM.
func (d Device) Unseal(public, private []byte) (secret []byte, err error) {
	err = d.withParent(func(parent uint32) error {
		var c message
		c.handle(parent)
		c.password()
		c.b = append(append(c.b, private...), public...)
		a, err := d.do("Load", tagSessions, commandLoad, c)
		if err != nil {
			return fmt.Errorf("%w (another TPM has sealed it, or this one was cleared)", err)
		}
		loaded := a.handle()
		if a.err != nil {
			return a.err
		}
		defer d.flush(loaded)
		c = message{}
		c.handle(loaded)
		c.password()
		if a, err = d.do("Unseal", tagSessions, commandUnseal, c); err != nil {
			return err
		}
		a.take(4)
		if secret = a.sized(); len(secret) == 0 && a.err == nil {
			return errors.New("read the TPM's answer: there is no secret in it")
		}
		return a.err
	})
	return secret, err
}

// withParent makes the primary key for the length of f.
func (d Device) withParent(f func(parent uint32) error) error {
	var c message
	c.handle(hierarchyOwner)
	c.password()
	c.sized(func(c *message) { // no password, no data
		c.bytes(nil)
		c.bytes(nil)
	})
	c.sized(func(c *message) {
		c.number16(algECC, algSHA256)
		c.number32(fixedTPM | fixedParent | sensitiveDataOrigin | userWithAuth | restricted | decrypt)
		c.bytes(nil)
		c.number16(algAES, 128, algCFB) // of what it protects
		c.number16(algNull, curveP256, algNull)
		c.bytes(nil) // unique: x and y
		c.bytes(nil)
	})
	c.bytes(nil)
	c.number32(0)
	a, err := d.do("CreatePrimary", tagSessions, commandCreatePrimary, c)
	if err != nil {
		return err
	}
	parent := a.handle()
	if a.err != nil {
		return a.err
	}
	defer d.flush(parent)
	return f(parent)
}

// flush makes room in the TPM. The resource manager would do it when the device is closed.
func (d Device) flush(handle uint32) {
	var c message
	c.number32(handle)
	_, _ = d.do("FlushContext", tagNoSessions, commandFlush, c)
}

// do sends a command, again while the TPM asks for that, and reads its answer, from behind its header.
func (d Device) do(name string, tag uint16, code uint32, c message) (*answer, error) {
	const yielded, testing, retry = 0x908, 0x90a, 0x922 // TPM_RC_*
	pause := 10 * time.Millisecond
	for {
		b, rc, err := d.send(tag, code, c)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		switch {
		case rc == 0:
			return &answer{b: b}, nil
		case rc != yielded && rc != testing && rc != retry || pause > time.Second:
			return nil, fmt.Errorf("%s: the TPM answers with code %#x", name, rc)
		}
		time.Sleep(pause)
		pause *= 2
	}
}

func (d Device) send(tag uint16, code uint32, c message) (parameters []byte, rc uint32, err error) {
	const header = 10
	b := binary.BigEndian.AppendUint16(nil, tag)
	b = binary.BigEndian.AppendUint32(b, uint32(header+len(c.b)))
	b = binary.BigEndian.AppendUint32(b, code)
	if _, err := d.Write(append(b, c.b...)); err != nil {
		return nil, 0, fmt.Errorf("send command to the TPM: %w", err)
	}
	b = make([]byte, maxAnswer)
	n, err := d.Read(b)
	if err != nil {
		return nil, 0, fmt.Errorf("read the TPM's answer: %w", err)
	}
	if n < header || int(binary.BigEndian.Uint32(b[2:])) != n {
		return nil, 0, fmt.Errorf("read the TPM's answer: expected a header and as much as it says, found %d bytes", n)
	}
	return b[header:n], binary.BigEndian.Uint32(b[6:]), nil
}

// message is a command in the making.
type message struct{ b []byte }

func (m *message) number16(list ...uint16) {
	for _, n := range list {
		m.b = binary.BigEndian.AppendUint16(m.b, n)
	}
}

func (m *message) number32(n uint32) { m.b = binary.BigEndian.AppendUint32(m.b, n) }

func (m *message) handle(h uint32) { m.number32(h) }

// bytes are a TPM2B: the size, then they.
func (m *message) bytes(b []byte) {
	m.number16(uint16(len(b)))
	m.b = append(m.b, b...)
}

// sized is a TPM2B of a structure.
func (m *message) sized(f func(*message)) {
	var inner message
	f(&inner)
	m.bytes(inner.b)
}

// password is an authorization area with the empty password.
func (m *message) password() {
	m.number32(9) // bytes of the area
	m.number32(sessionNone)
	m.bytes(nil) // nonce
	m.b = append(m.b, 0)
	m.bytes(nil)
}

// answer is read from its front; an error stays.
type answer struct {
	b   []byte
	err error
}

func (a *answer) take(n int) []byte {
	if a.err == nil && len(a.b) < n {
		a.err = errors.New("read the TPM's answer: it is too short")
	}
	if a.err != nil {
		return nil
	}
	b := a.b[:n]
	a.b = a.b[n:]
	return b
}

func (a *answer) handle() uint32 {
	if b := a.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

// sizedWhole returns a TPM2B with its size.
func (a *answer) sizedWhole() []byte {
	if len(a.b) < 2 {
		return a.take(2)
	}
	return a.take(2 + int(binary.BigEndian.Uint16(a.b)))
}

func (a *answer) sized() []byte {
	if b := a.sizedWhole(); len(b) >= 2 {
		return b[2:]
	}
	return nil
}
