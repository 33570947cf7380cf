package vm

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// sshd answers on l: whoever has key may run shell commands.
func sshd(t *testing.T, l net.Listener, hostKey, key *Key) {
	config := &ssh.ServerConfig{PublicKeyCallback: func(c ssh.ConnMetadata, k ssh.PublicKey) (*ssh.Permissions, error) {
		if c.User() != "core" || !bytes.Equal(k.Marshal(), key.signer.PublicKey().Marshal()) {
			return nil, errors.New("unknown")
		}
		return nil, nil
	}}
	config.AddHostKey(hostKey.signer)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { conn.Close() })
			go func() {
				_, channels, requests, err := ssh.NewServerConn(conn, config)
				if err != nil {
					return
				}
				go ssh.DiscardRequests(requests)
				for c := range channels {
					go serveSession(c, conn)
				}
			}()
		}
	}()
}

func serveSession(c ssh.NewChannel, conn net.Conn) {
	ch, requests, err := c.Accept()
	if err != nil {
		return
	}
	defer ch.Close()
	for r := range requests {
		if r.Type != "exec" {
			r.Reply(false, nil)
			continue
		}
		var command struct{ Line string }
		if ssh.Unmarshal(r.Payload, &command) != nil {
			return
		}
		r.Reply(true, nil)
		if command.Line == "lose power" {
			conn.Close()
			return
		}
		cmd := exec.Command("sh", "-c", command.Line)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = ch, ch, ch.Stderr()
		cmd.Run()
		ch.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{uint32(cmd.ProcessState.ExitCode())}))
		return
	}
}

func newKey(t *testing.T) *Key {
	t.Helper()
	k, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func listen(t *testing.T, addr string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestRun(t *testing.T) {
	key := newKey(t)
	l := listen(t, "127.0.0.1:0")
	sshd(t, l, newKey(t), key)
	m := &logins{addr: l.Addr().String(), key: key, clients: map[string]*ssh.Client{}}

	out, err := m.run(t.Context(), "core", "echo hello; echo no >&2", nil)
	if err != nil || out != "hello\n" {
		t.Errorf("got %q, %v, want hello", out, err)
	}

	out, err = m.run(t.Context(), "core", "echo some; echo why >&2; exit 3", nil)
	var failed *CommandError
	if !errors.As(err, &failed) || failed.Status() != 3 || out != "some\n" {
		t.Errorf("got %q, %v, want status 3", out, err)
	}
	for _, want := range []string{`as core`, "exit 3", "stdout: some", "stderr: why"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want it to contain %q", err, want)
		}
	}

	if _, err = m.run(t.Context(), "core", "lose power", nil); !errors.As(err, &failed) || failed.Status() != -1 {
		t.Errorf("got %v, want a command without a status", err)
	}
	if _, err := m.run(t.Context(), "core", "true", nil); err != nil {
		t.Errorf("got %v, want a new connection", err)
	}

	name := filepath.Join(t.TempDir(), "it's a file")
	if err := m.copyTo(t.Context(), "core", name, 0o750, []byte("content\x00")); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(name)
	if err != nil || string(got) != "content\x00" {
		t.Errorf("got %q, %v", got, err)
	}
	if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o750 {
		t.Errorf("got %v, %v, want mode 0750", info.Mode(), err)
	}
}

func TestRunWaitsForTheServer(t *testing.T) {
	key := newKey(t)
	l := listen(t, "127.0.0.1:0")
	addr := l.Addr().String()
	l.Close()
	m := &logins{addr: addr, key: key, clients: map[string]*ssh.Client{}}
	go func() {
		time.Sleep(200 * time.Millisecond)
		if l, err := net.Listen("tcp", addr); err == nil {
			sshd(t, l, newKey(t), key)
		}
	}()
	if _, err := m.run(t.Context(), "core", "true", nil); err != nil {
		t.Error(err)
	}
}

func TestRunGivesUp(t *testing.T) {
	key := newKey(t)
	silent := listen(t, "127.0.0.1:0") // Accepts, as QEMU does for a guest that is not listening, and says nothing.
	defer silent.Close()
	refusing := listen(t, "127.0.0.1:0")
	sshd(t, refusing, newKey(t), newKey(t))
	for addr, want := range map[string]string{
		silent.Addr().String():   "the last attempt",
		refusing.Addr().String(): "unable to authenticate",
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		m := &logins{addr: addr, key: key, clients: map[string]*ssh.Client{}}
		_, err := m.run(ctx, "core", "true", nil)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want a deadline error with %q", err, want)
		}
	}
}

func TestRunEndsWithContext(t *testing.T) {
	key := newKey(t)
	l := listen(t, "127.0.0.1:0")
	sshd(t, l, newKey(t), key)
	m := &logins{addr: l.Addr().String(), key: key, clients: map[string]*ssh.Client{}}
	if _, err := m.run(t.Context(), "core", "true", nil); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := m.run(ctx, "core", "sleep 5", nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want a deadline error", err)
	}
}

func TestHostKeyIsRemembered(t *testing.T) {
	key := newKey(t)
	l := listen(t, "127.0.0.1:0")
	sshd(t, l, newKey(t), key)
	m := &logins{addr: l.Addr().String(), key: key, clients: map[string]*ssh.Client{}}
	if _, err := m.run(t.Context(), "core", "true", nil); err != nil {
		t.Fatal(err)
	}
	other := listen(t, "127.0.0.1:0")
	sshd(t, other, newKey(t), key)
	m.forget(false)
	m.addr = other.Addr().String()
	var changed *HostKeyError
	if _, err := m.run(t.Context(), "core", "true", nil); !errors.As(err, &changed) {
		t.Errorf("got %v, want a HostKeyError", err)
	}
	m.forget(true)
	if _, err := m.run(t.Context(), "core", "true", nil); err != nil {
		t.Errorf("got %v, want the new key accepted", err)
	}
}

// A machine with a port for its host keys is believed what it says there, and no other key is trusted; until it says one nobody is.
func TestHostKeyIsShown(t *testing.T) {
	key, own, other := newKey(t), newKey(t), newKey(t)
	line := func(k *Key) string { return string(ssh.MarshalAuthorizedKey(k.signer.PublicKey())) }
	for name, c := range map[string]struct {
		shown   string
		trusted bool
		says    string
	}{
		"shown":              {line(own), true, ""},
		"one of two":         {line(other) + line(own), true, ""},
		"of another machine": {line(other), false, "another machine answers"},
		"nothing":            {"", false, "has not shown its ssh host key"},
		"half a line":        {strings.TrimSpace(line(own)), false, "has not shown its ssh host key"},
		"something else":     {"no such key\n", false, "read host keys"},
	} {
		t.Run(name, func(t *testing.T) {
			l := listen(t, "127.0.0.1:0")
			sshd(t, l, own, key)
			file := filepath.Join(t.TempDir(), "hostkeys")
			if err := os.WriteFile(file, []byte(c.shown), 0o600); err != nil {
				t.Fatal(err)
			}
			m := &logins{addr: l.Addr().String(), key: key, shown: file, clients: map[string]*ssh.Client{}}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := m.run(ctx, "core", "true", nil)
			var foreign *ForeignKeyError
			if c.trusted != (err == nil) || err != nil && !strings.Contains(err.Error(), c.says) || errors.As(err, &foreign) != (name == "of another machine") {
				t.Errorf("got %v, want trusted %v, or %q", err, c.trusted, c.says)
			}
		})
	}
}

// What is not shown yet is waited for.
func TestHostKeyIsWaitedFor(t *testing.T) {
	key, own := newKey(t), newKey(t)
	l := listen(t, "127.0.0.1:0")
	sshd(t, l, own, key)
	file := filepath.Join(t.TempDir(), "hostkeys")
	time.AfterFunc(200*time.Millisecond, func() { os.WriteFile(file, ssh.MarshalAuthorizedKey(own.signer.PublicKey()), 0o600) })
	m := &logins{addr: l.Addr().String(), key: key, shown: file, clients: map[string]*ssh.Client{}}
	if _, err := m.run(t.Context(), "core", "true", nil); err != nil {
		t.Error(err)
	}
}

func TestKeyPEM(t *testing.T) {
	k := newKey(t)
	b, err := k.PrivatePEM()
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseKey(b)
	if err != nil || got.AuthorizedKey() != k.AuthorizedKey() {
		t.Errorf("got %v, %v, want the same key", got, err)
	}
	if !strings.HasPrefix(k.AuthorizedKey(), "ssh-ed25519 ") || strings.Contains(k.AuthorizedKey(), "\n") {
		t.Errorf("got %q, want one line", k.AuthorizedKey())
	}
	if _, err := ParseKey([]byte("x")); err == nil {
		t.Error("got no error for a broken key")
	}
}
