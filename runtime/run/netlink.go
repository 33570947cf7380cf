package run

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// netlink is a socket of rtnetlink(7), of the network namespace that the thread was in when it was made.
type netlink struct{ fd int }

func openNetlink() (*netlink, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	return &netlink{fd}, nil
}

func (n *netlink) close() {
	if n != nil {
		unix.Close(n.fd)
	}
}

// attribute is struct rtattr with its value.
func attribute(kind uint16, value []byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(unix.SizeofRtAttr+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// attributes reads what attribute writes, one behind the other.
func attributes(b []byte) map[uint16][]byte {
	out := make(map[uint16][]byte)
	for len(b) >= unix.SizeofRtAttr {
		size := int(binary.NativeEndian.Uint16(b))
		if size < unix.SizeofRtAttr || size > len(b) {
			break
		}
		out[binary.NativeEndian.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER)] = b[unix.SizeofRtAttr:size]
		b = b[min((size+3)&^3, len(b)):]
	}
	return out
}

// ask sends a request and returns the bodies of the answers.
func (n *netlink) ask(kind uint16, flags int, body ...[]byte) ([][]byte, error) {
	msg := make([]byte, unix.SizeofNlMsghdr)
	for _, b := range body {
		msg = append(msg, b...)
	}
	binary.NativeEndian.PutUint32(msg, uint32(len(msg)))
	binary.NativeEndian.PutUint16(msg[4:], kind)
	binary.NativeEndian.PutUint16(msg[6:], uint16(unix.NLM_F_REQUEST|flags))
	if err := unix.Sendto(n.fd, msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, err
	}
	var out [][]byte
	buf := make([]byte, 1<<17)
	for {
		size, from, err := unix.Recvfrom(n.fd, buf, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		if a, ok := from.(*unix.SockaddrNetlink); !ok || a.Pid != 0 {
			continue // not the kernel
		}
		for b := buf[:size]; len(b) >= unix.SizeofNlMsghdr; {
			length := int(binary.NativeEndian.Uint32(b))
			if length < unix.SizeofNlMsghdr || length > len(b) {
				return nil, unix.EBADMSG
			}
			payload := b[unix.SizeofNlMsghdr:length]
			switch binary.NativeEndian.Uint16(b[4:]) {
			case unix.NLMSG_DONE:
				return out, nil
			case unix.NLMSG_ERROR:
				if len(payload) < 4 {
					return nil, unix.EBADMSG
				}
				if e := int32(binary.NativeEndian.Uint32(payload)); e != 0 {
					return nil, unix.Errno(-e)
				}
				return out, nil
			}
			out = append(out, append([]byte{}, payload...))
			if flags&(unix.NLM_F_DUMP|unix.NLM_F_ACK) == 0 {
				return out, nil
			}
			b = b[min((length+3)&^3, len(b)):]
		}
	}
}
