package ctl

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/coreos/go-systemd/v22/activation"

	"github.com/proa-os/proa/runtime/nameserver"
	"github.com/proa-os/proa/runtime/wiring"
)

// resolverIdle is how long a responder waits for the next question.
const resolverIdle = 30 * time.Second

// answerNames is the responder of one network: systemd has bound the sockets to its bridge.
func answerNames(ctx context.Context, c *call) error {
	var udp []net.PacketConn
	var tcp []net.Listener
	for _, f := range activation.Files(true) {
		if p, err := net.FilePacketConn(f); err == nil {
			udp = append(udp, p)
		} else if l, err := net.FileListener(f); err == nil {
			tcp = append(tcp, l)
		}
		f.Close()
	}
	if len(udp) == 0 || len(tcp) == 0 {
		return errors.New("want UDP and TCP sockets from systemd: start proa-dns@BRIDGE.socket")
	}
	s := &nameserver.Server{
		Names:   filepath.Join(c.Networks.Run, wiring.NamesFile),
		Machine: func() []netip.Addr { return readResolv("/etc/resolv.conf").servers },
		Idle:    resolverIdle,
	}
	if err := s.Serve(ctx, udp, tcp); err != nil {
		return fmt.Errorf("answer for names: %w", err)
	}
	return nil
}
