package scope

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Types of messages and of header fields.
const (
	typeCall   = 1
	typeReply  = 2
	typeError  = 3
	typeSignal = 4

	fieldPath        = 1
	fieldInterface   = 2
	fieldMember      = 3
	fieldErrorName   = 4
	fieldReplySerial = 5
	fieldDestination = 6
	fieldSignature   = 8
)

// An encoder writes values in little endian, each aligned to its size.
type encoder struct{ b []byte }

func (e *encoder) align(n int) {
	for len(e.b)%n != 0 {
		e.b = append(e.b, 0)
	}
}

func (e *encoder) uint32(v uint32) {
	e.align(4)
	e.b = binary.LittleEndian.AppendUint32(e.b, v)
}

func (e *encoder) uint64(v uint64) {
	e.align(8)
	e.b = binary.LittleEndian.AppendUint64(e.b, v)
}

func (e *encoder) string(s string) {
	e.uint32(uint32(len(s)))
	e.b = append(append(e.b, s...), 0)
}

func (e *encoder) signature(s string) {
	e.b = append(append(append(e.b, byte(len(s))), s...), 0)
}

// array writes the length of what each writes, whose elements are aligned to n.
func (e *encoder) array(n int, each func()) {
	e.uint32(0)
	at := len(e.b) - 4
	e.align(n)
	from := len(e.b)
	each()
	binary.LittleEndian.PutUint32(e.b[at:], uint32(len(e.b)-from))
}

// variant writes a value with its type in front.
func (e *encoder) variant(v any) {
	switch v := v.(type) {
	case string:
		e.signature("s")
		e.string(v)
	case bool:
		e.signature("b")
		n := uint32(0)
		if v {
			n = 1
		}
		e.uint32(n)
	case uint64:
		e.signature("t")
		e.uint64(v)
	case int64:
		e.signature("x")
		e.uint64(uint64(v))
	case int32:
		e.signature("i")
		e.uint32(uint32(v))
	case uint32:
		e.signature("u")
		e.uint32(v)
	case []string:
		e.signature("as")
		e.array(4, func() {
			for _, s := range v {
				e.string(s)
			}
		})
	case []uint32:
		e.signature("au")
		e.array(4, func() {
			for _, n := range v {
				e.uint32(n)
			}
		})
	case []byte:
		e.signature("ay")
		e.array(1, func() { e.b = append(e.b, v...) })
	default:
		panic(fmt.Sprintf("scope: no D-Bus type for %T", v))
	}
}

// properties writes an array of (name, variant).
func (e *encoder) properties(list []Property) {
	e.array(8, func() {
		for _, p := range list {
			e.align(8)
			e.string(p.Name)
			e.variant(p.Value)
		}
	})
}

// call is a complete message of a method call.
func call(serial uint32, dest, path, iface, member, signature string, body []byte) []byte {
	e := &encoder{b: []byte{'l', typeCall, 0, 1}}
	e.uint32(uint32(len(body)))
	e.uint32(serial)
	e.array(8, func() {
		for _, f := range []struct {
			code  byte
			kind  string
			value string
		}{{fieldPath, "o", path}, {fieldInterface, "s", iface}, {fieldMember, "s", member}, {fieldDestination, "s", dest}, {fieldSignature, "g", signature}} {
			if f.value == "" {
				continue
			}
			e.align(8)
			e.b = append(e.b, f.code)
			e.signature(f.kind)
			if f.kind == "g" {
				e.signature(f.value)
			} else {
				e.string(f.value)
			}
		}
	})
	e.align(8)
	return append(e.b, body...)
}

// A message is what comes in, as far as it is of interest.
type message struct {
	kind                    byte
	reply                   uint32
	path, member, errorName string
	body                    *decoder
}

const (
	headSize   = 16 // up to and with the length of the header fields
	maxMessage = 1 << 20
)

var errShort = errors.New("a message of the bus ends too early")

// sizes returns the lengths of the header fields, padded, and of the body from the first bytes of a message.
func sizes(head []byte) (fields, body int, order binary.ByteOrder, err error) {
	order = binary.LittleEndian
	switch head[0] {
	case 'l':
	case 'B':
		order = binary.BigEndian
	default:
		return 0, 0, nil, fmt.Errorf("a message of the bus has byte order %q", head[0])
	}
	b, f := order.Uint32(head[4:]), order.Uint32(head[12:])
	if b > maxMessage || f > maxMessage {
		return 0, 0, nil, fmt.Errorf("a message of the bus has %d bytes", uint64(b)+uint64(f))
	}
	return (int(f) + 7) &^ 7, int(b), order, nil
}

// parse reads a message, whose first headSize bytes are head.
func parse(head, rest []byte) (message, error) {
	fields, _, order, err := sizes(head)
	if err != nil {
		return message{}, err
	}
	m := message{kind: head[1], body: &decoder{b: rest[fields:], order: order}}
	d := &decoder{b: append(append([]byte{}, head...), rest[:int(order.Uint32(head[12:]))]...), at: headSize, order: order}
	for d.at < len(d.b) {
		d.align(8)
		code := d.byte()
		switch kind := d.signature(); kind {
		case "s", "o":
			v := d.string()
			switch code {
			case fieldPath:
				m.path = v
			case fieldMember:
				m.member = v
			case fieldErrorName:
				m.errorName = v
			}
		case "u":
			v := d.uint32()
			if code == fieldReplySerial {
				m.reply = v
			}
		case "g":
			d.signature()
		default:
			return m, fmt.Errorf("a message of the bus has a header field of type %q", kind)
		}
		if d.bad {
			return m, errShort
		}
	}
	return m, nil
}

// A decoder reads what an encoder writes. After an error it is bad and returns zeros.
type decoder struct {
	b     []byte
	at    int
	order binary.ByteOrder
	bad   bool
}

func (d *decoder) take(n int) []byte {
	if d.bad || n < 0 || n > len(d.b)-d.at {
		d.bad, d.at = true, len(d.b)
		return make([]byte, min(max(n, 0), 8))
	}
	d.at += n
	return d.b[d.at-n : d.at]
}

func (d *decoder) align(n int) { d.take((n - d.at%n) % n) }
func (d *decoder) byte() byte  { return d.take(1)[0] }

func (d *decoder) uint32() uint32 {
	d.align(4)
	return d.order.Uint32(d.take(4))
}

func (d *decoder) string() string {
	n := d.uint32()
	if n > maxMessage {
		d.bad = true
		return ""
	}
	s := string(d.take(int(n)))
	d.take(1)
	return s
}

func (d *decoder) signature() string {
	s := string(d.take(int(d.byte())))
	d.take(1)
	return s
}
