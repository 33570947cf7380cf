package vm

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// A Key is a machine's ssh key pair, made for one machine and for nothing else.
type Key struct {
	private ed25519.PrivateKey
	signer  ssh.Signer
}

// NewKey makes an ed25519 key.
func NewKey() (*Key, error) {
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, fmt.Errorf("make ssh key: %w", err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		return nil, fmt.Errorf("make ssh key: %w", err)
	}
	return &Key{private, signer}, nil
}

// AuthorizedKey is the public half as one line for a provisioning config, without a newline.
func (k *Key) AuthorizedKey() string {
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k.signer.PublicKey()))) + " proa-lab"
}

// PrivatePEM is the private half as ssh -i reads it (OpenSSH PROTOCOL.key).
func (k *Key) PrivatePEM() ([]byte, error) {
	block, err := ssh.MarshalPrivateKey(k.private, "proa-lab")
	if err != nil {
		return nil, fmt.Errorf("write ssh key: %w", err)
	}
	return pem.EncodeToMemory(block), nil
}

// ParseKey reads what PrivatePEM wrote.
func ParseKey(b []byte) (*Key, error) {
	raw, err := ssh.ParseRawPrivateKey(b)
	if err != nil {
		return nil, fmt.Errorf("read ssh key: %w", err)
	}
	private, ok := raw.(*ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("read ssh key: expected an ed25519 key, found a %T", raw)
	}
	signer, err := ssh.NewSignerFromKey(*private)
	if err != nil {
		return nil, fmt.Errorf("read ssh key: %w", err)
	}
	return &Key{*private, signer}, nil
}

// handshakeTime bounds one attempt to log in: under TCG a first login takes seconds, and a guest that is not listening
// yet looks like one that never answers.
const handshakeTime = 60 * time.Second

// logins keeps one ssh connection per user, until the machine loses power.
type logins struct {
	addr string
	key  *Key

	shown string // file of the host keys that the machine says are its own, "" to trust the first

	mu      sync.Mutex
	hostKey string
	clients map[string]*ssh.Client
}

// HostKeyError says that the machine shows another host key than it did first: it is another machine, or lost its state.
type HostKeyError struct{ First, Now string }

func (e *HostKeyError) Error() string {
	return fmt.Sprintf("the machine's host key was %s and is %s now: its state is gone, or this is another machine", e.First, e.Now)
}

// hostKeyPort is the virtio port to which a machine writes its host keys: proa-ssh-hostkeys.service.
const hostKeyPort = "io.proa.ssh.hostkeys"

// ForeignKeyError says that another key answers than those that the machine has shown: it is not the machine that answers, or not with its keys.
type ForeignKeyError struct {
	Shown []string
	Now   string
}

func (e *ForeignKeyError) Error() string {
	return fmt.Sprintf("the host key is %s, but the machine has shown %s on port %s: another machine answers, or sshd has other keys", e.Now, strings.Join(e.Shown, " "), hostKeyPort)
}

// checkShown compares a key with those of its type that the machine has shown.
func (l *logins) checkShown(key ssh.PublicKey) error {
	b, err := os.ReadFile(l.shown)
	if err != nil {
		return fmt.Errorf("read host keys: %w", err)
	}
	b = b[:bytes.LastIndexByte(b, '\n')+1] // whole lines
	var shown []string
	for len(b) > 0 {
		var k ssh.PublicKey
		if k, _, _, b, err = ssh.ParseAuthorizedKey(b); err != nil {
			return fmt.Errorf("read host keys of %s: %w", l.shown, err)
		}
		if k.Type() == key.Type() {
			shown = append(shown, ssh.FingerprintSHA256(k))
		}
	}
	now := ssh.FingerprintSHA256(key)
	switch {
	case len(shown) == 0:
		return fmt.Errorf("the machine has not shown its ssh host key on port %s yet", hostKeyPort)
	case !slices.Contains(shown, now):
		return &ForeignKeyError{shown, now}
	}
	return nil
}

func (l *logins) checkHostKey(_ string, _ net.Addr, key ssh.PublicKey) error {
	if l.shown != "" {
		if err := l.checkShown(key); err != nil {
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := ssh.FingerprintSHA256(key)
	if l.hostKey == "" {
		l.hostKey = now
	}
	if l.hostKey != now {
		return &HostKeyError{l.hostKey, now}
	}
	return nil
}

// forget closes all connections; with hostKey, a new host key is welcome.
func (l *logins) forget(hostKey bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for user, c := range l.clients {
		c.Close()
		delete(l.clients, user)
	}
	if hostKey {
		l.hostKey = ""
	}
}

func (l *logins) drop(user string, dead *ssh.Client) {
	dead.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.clients[user] == dead {
		delete(l.clients, user)
	}
}

// client logs in as user, again and again until ctx ends, unless it already is.
func (l *logins) client(ctx context.Context, user string) (*ssh.Client, error) {
	l.mu.Lock()
	c := l.clients[user]
	l.mu.Unlock()
	if c != nil {
		return c, nil
	}
	var last error
	for {
		c, err := l.dial(ctx, user)
		if err == nil {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.clients[user] = c
			return c, nil
		}
		if ctx.Err() == nil || last == nil {
			last = err
		}
		var changed *HostKeyError
		var foreign *ForeignKeyError
		if errors.As(err, &changed) || errors.As(err, &foreign) {
			return nil, fmt.Errorf("log in as %s: %w", user, err)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("log in as %s: %w; the last attempt: %w", user, context.Cause(ctx), last)
		case <-time.After(500 * time.Millisecond):
		}
	}
}

func (l *logins) dial(ctx context.Context, user string) (*ssh.Client, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", l.addr)
	if err != nil {
		return nil, err
	}
	// Ends the handshake when ctx does.
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if err := conn.SetDeadline(time.Now().Add(handshakeTime)); err != nil {
		conn.Close()
		return nil, err
	}
	sc, channels, requests, err := ssh.NewClientConn(conn, l.addr, &ssh.ClientConfig{
		User:              user,
		Auth:              []ssh.AuthMethod{ssh.PublicKeys(l.key.signer)},
		HostKeyCallback:   l.checkHostKey,
		HostKeyAlgorithms: []string{ssh.KeyAlgoED25519},
		ClientVersion:     "SSH-2.0-proa-lab",
	})
	if err != nil {
		conn.Close()
		return nil, err
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		conn.Close()
		return nil, err
	}
	return ssh.NewClient(sc, channels, requests), nil
}

// CommandError is a command that ran and did not succeed, or whose connection broke while it ran.
type CommandError struct {
	User, Command  string
	Stdout, Stderr string
	Err            error // *ssh.ExitError has the status
}

func (e *CommandError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "run %q as %s: %v", e.Command, e.User, e.Err)
	for _, s := range []struct{ name, text string }{{"stdout", e.Stdout}, {"stderr", e.Stderr}} {
		if text := strings.TrimSpace(s.text); text != "" {
			fmt.Fprintf(&b, "\n%s: %s", s.name, text[max(0, len(text)-4096):])
		}
	}
	return b.String()
}

func (e *CommandError) Unwrap() error { return e.Err }

// Status is the command's exit status, -1 when it has none.
func (e *CommandError) Status() int {
	var exit *ssh.ExitError
	if errors.As(e.Err, &exit) {
		return exit.ExitStatus()
	}
	return -1
}

// run runs command as user and returns its standard output. Only logging in is tried again.
func (l *logins) run(ctx context.Context, user, command string, stdin io.Reader) (string, error) {
	session, c, err := l.session(ctx, user)
	if err != nil {
		return "", err
	}
	defer session.Close()
	var stdout, stderr bytes.Buffer
	session.Stdin, session.Stdout, session.Stderr = stdin, &stdout, &stderr
	stop := context.AfterFunc(ctx, func() { l.drop(user, c) })
	defer stop()
	err = session.Run(command)
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err == nil {
		return stdout.String(), nil
	}
	failed := &CommandError{User: user, Command: command, Stdout: stdout.String(), Stderr: stderr.String(), Err: err}
	if failed.Status() < 0 {
		l.drop(user, c)
	}
	return stdout.String(), failed
}

// session opens a session; a remembered connection that turns out to be dead is replaced.
func (l *logins) session(ctx context.Context, user string) (*ssh.Session, *ssh.Client, error) {
	for {
		c, err := l.client(ctx, user)
		if err != nil {
			return nil, nil, err
		}
		// A dead peer does not answer; closing the connection ends the request.
		late := time.AfterFunc(handshakeTime, func() { c.Close() })
		stop := context.AfterFunc(ctx, func() { c.Close() })
		session, err := c.NewSession()
		late.Stop()
		stop()
		if err == nil {
			return session, c, nil
		}
		l.drop(user, c)
		if ctx.Err() != nil {
			return nil, nil, fmt.Errorf("log in as %s: %w", user, context.Cause(ctx))
		}
	}
}

// copyTo writes content to name on the machine, as user, in one step.
func (l *logins) copyTo(ctx context.Context, user, name string, mode fs.FileMode, content []byte) error {
	tmp := path.Join(path.Dir(name), "."+path.Base(name)+".new")
	command := fmt.Sprintf("cat > %[1]s && chmod %[2]o %[1]s && mv -f %[1]s %[3]s", shellQuote(tmp), mode.Perm(), shellQuote(name))
	if _, err := l.run(ctx, user, command, bytes.NewReader(content)); err != nil {
		return fmt.Errorf("copy %d bytes to %s: %w", len(content), name, err)
	}
	return nil
}
