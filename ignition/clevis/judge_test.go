package clevis

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/proa-os/proa/ignition/jose"
	"github.com/proa-os/proa/ignition/pin"
	"github.com/proa-os/proa/ignition/tpm"
	"github.com/proa-os/proa/internal/testenv"
	"github.com/proa-os/proa/internal/tooltree"
)

// judges are Debian's clevis, tang and a TPM.
type judges struct {
	*testing.T
	room *tooltree.Room
	dir  string
	url  string
	thp  string
}

func newJudges(t *testing.T) *judges {
	t.Helper()
	if os.Getuid() != 0 {
		testenv.Missing(t, "by Debian's clevis: a room needs root")
	}
	tree := testenv.Judges(t)
	j := &judges{T: t, dir: t.TempDir()}
	var err error
	if j.room, err = tree.Enter(tooltree.RoomOptions{Binds: []string{j.dir}, Network: true}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(j.room.Close)
	j.startTang()
	return j
}

// startTang has tangd answer each connection, as inetd would.
func (j *judges) startTang() {
	j.Helper()
	keys := filepath.Join(j.dir, "keys")
	if err := os.Mkdir(keys, 0o700); err != nil {
		j.Fatal(err)
	}
	for _, alg := range []string{"ES512", "ECMR"} {
		j.run("", "jose", "jwk", "gen", "-i", `{"alg":"`+alg+`"}`, "-o", filepath.Join(keys, alg+".jwk"))
	}
	j.thp = j.run("", "jose", "jwk", "thp", "-a", "S256", "-i", filepath.Join(keys, "ES512.jwk"))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		j.Fatal(err)
	}
	j.Cleanup(func() { l.Close() })
	j.url = "http://" + l.Addr().String()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f, err := c.(*net.TCPConn).File()
			c.Close()
			if err != nil {
				return
			}
			cmd := j.room.Command(context.Background(), "/usr/libexec/tangd", keys)
			cmd.Stdin, cmd.Stdout = f, f
			if j.room.Start(cmd) == nil {
				go func() { _ = cmd.Wait() }()
			}
			f.Close()
		}
	}()
}

// run runs a program in the room.
func (j *judges) run(stdin, program string, args ...string) string {
	j.Helper()
	cmd := j.room.Command(j.Context(), program, args...)
	cmd.Stdin = strings.NewReader(stdin)
	cmd.Env = append(cmd.Env, "LC_ALL=C", "TPM2TOOLS_TCTI=swtpm:path="+j.dir+"/tpm")
	out, err := j.room.Output(cmd)
	if err != nil {
		j.Fatalf("%s %s: %v", program, strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out))
}

// startTPM starts a TPM, and returns it as a device that connects for each command: the emulator has one client at a time.
func (j *judges) startTPM() TPM {
	j.Helper()
	cmd := testenv.Tools(j.T).Command(context.Background(), "swtpm", "socket", "--tpm2", "--tpmstate", "dir="+j.dir, "--server", "type=unixio,path="+j.dir+"/tpm",
		"--ctrl", "type=unixio,path="+j.dir+"/tpm.ctrl", "--flags", "not-need-init,startup-clear")
	if err := cmd.Start(); err != nil {
		j.Fatal(err)
	}
	j.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return &dialer{path: j.dir + "/tpm"}
}

type dialer struct{ path string }

func (d *dialer) with(f func(tpm.Device) error) error {
	var err error
	for range 500 {
		var c net.Conn
		if c, err = net.Dial("unix", d.path); err == nil {
			defer c.Close()
			return f(tpm.Device{ReadWriter: c})
		}
		time.Sleep(10 * time.Millisecond)
	}
	return err
}

func (d *dialer) Seal(secret []byte) (public, private []byte, err error) {
	err = d.with(func(t tpm.Device) error {
		public, private, err = t.Seal(secret)
		return err
	})
	return public, private, err
}

func (d *dialer) Unseal(public, private []byte) (secret []byte, err error) {
	err = d.with(func(t tpm.Device) error {
		secret, err = t.Unseal(public, private)
		return err
	})
	return secret, err
}

// What we lock clevis opens, and what clevis locks we open, with Debian's tang, a TPM, and any of them.
func TestJudgedByClevis(t *testing.T) {
	j := newJudges(t)
	k := &Locker{TPM: j.startTPM()}
	one := fmt.Sprintf(`{"url":"%s","thp":"%s"}`, j.url, j.thp)
	advertisement := j.run("", "curl", "-sf", j.url+"/adv")
	for _, tc := range []struct{ name, pin, config string }{
		{"tang", "tang", one},
		{"tang, offline", "tang", fmt.Sprintf(`{"url":"%s","adv":%s}`, j.url, advertisement)},
		{"tpm2", "tpm2", `{}`},
		{"all of three", "sss", fmt.Sprintf(`{"t":3,"pins":{"tang":[%s,%s],"tpm2":{}}}`, one, one)},
		{"one of two", "sss", fmt.Sprintf(`{"t":1,"pins":{"tang":[%s],"tpm2":[{}]}}`, one)},
		{"nested", "sss", fmt.Sprintf(`{"t":2,"pins":{"sss":{"t":1,"pins":{"tang":[%s]}},"tang":%s}}`, one, one)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			j := *j
			j.T = t
			p, err := pin.Parse(tc.pin, tc.config)
			if err != nil {
				t.Fatal(err)
			}
			ours, err := k.Lock(t.Context(), p, []byte("from us"))
			if err != nil {
				t.Fatal(err)
			}
			if got := j.run(ours.String(), "clevis", "decrypt"); got != "from us" {
				t.Errorf("clevis opens ours as %q", got)
			}
			theirs, err := jose.ParseSealed(j.run("from them", "clevis", "encrypt", tc.pin, tc.config))
			if err != nil {
				t.Fatal(err)
			}
			if got, err := k.Open(t.Context(), theirs); err != nil || string(got) != "from them" {
				t.Errorf("we open theirs as %q, %v", got, err)
			}
		})
	}
}
