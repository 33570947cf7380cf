package platform

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/ignition/config"
	"github.com/proa-os/proa/ignition/retry"
	"github.com/proa-os/proa/ignition/source"
)

// Guest is channels to hypervisors. Tests give fakes that speak the hypervisor's side.
type Guest struct {
	Backdoor func(*Registers) error                                        // VMware's I/O port
	KVP      func() (KVPChannel, error)                                    // Hyper-V's key-value pairs
	VBox     func(request uintptr, message []byte) error                   // VirtualBox's device
	VSock    func(ctx context.Context, cid, port uint32) (net.Conn, error) // the hypervisor's sockets
}

// guestPlace is a place with one item, which a function reads. Its label is what errors call it.
type guestPlace struct {
	label string
	read  func(ctx context.Context, s *session) ([]byte, error)
}

func (g guestPlace) get(ctx context.Context, s *session, _ string) ([]byte, error) {
	return g.read(ctx, s)
}

func (g guestPlace) name(s *session, _ string) string {
	if g.label == "" {
		return configFile(s)
	}
	return g.label
}

func configFile(s *session) string {
	if name := s.Getenv("IGNITION_CONFIG_FILE"); name != "" {
		return name
	}
	return "config.ign"
}

// fileConfig is upstream's platform for tests: $IGNITION_CONFIG_FILE, or config.ign in the working directory.
func fileConfig(_ context.Context, s *session) ([]byte, error) {
	f, err := os.Open(configFile(s))
	if err != nil {
		return nil, fmt.Errorf("open config: %v; set IGNITION_CONFIG_FILE", err) // missing is an error here
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, config.MaxSize+1))
}

// qemuConfig reads QEMU's firmware configuration device (kernel: Documentation/ABI/testing/sysfs-firmware-qemu_fw_cfg). Machines without
// one (s390x, ppc64le) get a virtio disk of serial number "ignition".
func qemuConfig(ctx context.Context, s *session) ([]byte, error) {
	const device = "firmware/qemu_fw_cfg"
	if _, err := s.Sys.Stat(device); errors.Is(err, fs.ErrNotExist) {
		if err := s.Load(ctx, "qemu_fw_cfg"); err != nil {
			return nil, err
		}
		if _, err := s.Sys.Stat(device); err != nil {
			return nil, fmt.Errorf("find the firmware configuration device: expected /sys/%s, found nothing; is this machine QEMU?", device)
		}
	}
	f, err := s.Sys.Open(device + "/by_name/opt/com.coreos/config/raw")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, config.MaxSize+1))
}

// bluefieldConfig reads what a host wrote into the boot stream of its NVIDIA BlueField card.
func bluefieldConfig(ctx context.Context, s *session) ([]byte, error) {
	const fifo = "bus/platform/devices/MLNXBF04:00/bootfifo"
	if err := s.Load(ctx, "mlxbf_bootctl"); err != nil {
		return nil, err
	}
	f, err := s.Sys.Open(fifo)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := limited(f)
	return []byte(strings.Trim(string(raw), "\x00")), err
}

// appleConfig asks an HTTP server on the host by a vsock.
func appleConfig(ctx context.Context, s *session) ([]byte, error) {
	dial := s.Guest.VSock
	if dial == nil {
		if err := s.Load(ctx, "vmw_vsock_virtio_transport"); err != nil {
			return nil, err
		}
		dial = dialVSock
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, ResponseHeaderTimeout: answerTime,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, 2, 1024) }}}
	var raw []byte
	err := retry.Do(ctx, s.total, func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://host/", nil)
		if err != nil {
			return err
		}
		req.Header.Set("Accept", "application/json")
		resp, err := client.Do(req)
		if err != nil {
			return retry.Temporary(source.NoAnswer("the host", source.WithoutURL(err)))
		}
		defer resp.Body.Close()
		switch {
		case resp.StatusCode == http.StatusNotFound:
			return fs.ErrNotExist
		case resp.StatusCode != http.StatusOK:
			return &source.StatusError{Code: resp.StatusCode}
		}
		raw, err = limited(resp.Body)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("ask the host by vsock: %w", err)
	}
	return raw, nil
}

func dialVSock(_ context.Context, cid, port uint32) (net.Conn, error) {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open vsock: %w", err)
	}
	if err := unix.Connect(fd, &unix.SockaddrVM{CID: cid, Port: port}); err != nil {
		return nil, errors.Join(fmt.Errorf("connect to vsock %d:%d: %w", cid, port, err), unix.Close(fd))
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return &vsockConn{File: os.NewFile(uintptr(fd), "vsock")}, nil
}

// vsockConn is a file as net/http wants it.
type vsockConn struct{ *os.File }

type vsockAddr struct{}

func (vsockAddr) Network() string { return "vsock" }
func (vsockAddr) String() string  { return "vsock" }

func (*vsockConn) LocalAddr() net.Addr  { return vsockAddr{} }
func (*vsockConn) RemoteAddr() net.Addr { return vsockAddr{} }

// commandLineDrive is the medium that ignition.config.device= and ignition.config.path= name.
type commandLineDrive struct{}

func (commandLineDrive) words(s *session) (device, path string, err error) {
	if device, err = argument(s.CommandLine, "ignition.config.device"); err != nil {
		return "", "", err
	}
	if path, err = argument(s.CommandLine, "ignition.config.path"); err == nil && path == "" {
		path = "/config.ign"
	}
	return device, path, err
}

func (c commandLineDrive) name(s *session, _ string) string {
	device, path, _ := c.words(s)
	return drive{device: device}.name(s, path)
}

func (c commandLineDrive) get(ctx context.Context, s *session, _ string) ([]byte, error) {
	device, path, err := c.words(s)
	if err != nil || device == "" {
		return nil, errors.Join(err, fs.ErrNotExist)
	}
	raw, err := drive{device: device}.get(ctx, s, path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("find %s on %s: no such file; correct ignition.config.path=", path, device)
	}
	return raw, err
}

// dhcpServer is CloudStack's virtual router: it gives leases and metadata. networkd's lease names it.
type dhcpServer struct{}

func (dhcpServer) name(_ *session, path string) string { return "http://DHCP server" + path }

func (d dhcpServer) get(ctx context.Context, s *session, path string) ([]byte, error) {
	if s.offline {
		return nil, source.ErrNeedNetwork
	}
	for {
		if address := leaseServer(s); address != "" {
			return service{base: "http://" + address}.get(ctx, s, path)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("find the DHCP server: no lease in /run/systemd/netif/leases after %s", s.total)
		case <-time.After(lookAgain):
		}
	}
}

// leaseServer returns SERVER_ADDRESS of the first lease; empty if there is none yet.
func leaseServer(s *session) string {
	leases, err := fs.ReadDir(s.Run.FS(), "systemd/netif/leases")
	if err != nil {
		return ""
	}
	for _, l := range leases {
		b, err := s.Run.ReadFile("systemd/netif/leases/" + l.Name())
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			address, ok := strings.CutPrefix(strings.TrimSpace(line), "SERVER_ADDRESS=")
			if ip := net.ParseIP(address); ok && ip != nil && ip.To4() != nil {
				return address
			}
		}
	}
	return ""
}
