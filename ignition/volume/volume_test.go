package volume

import (
	"bytes"
	"context"
	"crypto/elliptic"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/proa-os/proa/ignition/clevis"
	"github.com/proa-os/proa/ignition/pin"
	"github.com/proa-os/proa/ignition/tang/tangtest"
	"github.com/proa-os/proa/internal/testenv"
	"github.com/proa-os/proa/internal/tooltree"
)

// lab is a volume in a file, cryptsetup of the tools, and a tang server that can be away.
type lab struct {
	Cryptsetup
	device string
	server *tangtest.Server
	url    string
	away   atomic.Bool
}

const passphrase = "the first key"

func newLab(t *testing.T) *lab {
	t.Helper()
	tools := testenv.Tools(t)
	l := &lab{device: t.TempDir() + "/volume"}
	l.Cryptsetup = func(ctx context.Context, stdin, key []byte, args ...string) ([]byte, error) {
		cmd := tools.Command(ctx, "cryptsetup", args...)
		cmd.Stdin = bytes.NewReader(stdin)
		if key != nil {
			r, w, err := os.Pipe()
			if err != nil {
				return nil, err
			}
			defer r.Close()
			cmd.ExtraFiles = []*os.File{r}
			if _, err := w.Write(key); err != nil {
				return nil, err
			}
			w.Close()
		}
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, stderr.String())
		}
		return out, err
	}
	if err := os.WriteFile(l.device, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(l.device, 20<<20); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Cryptsetup(t.Context(), []byte(passphrase), nil, "luksFormat", "--batch-mode", "--type", "luks2", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file", "-", l.device); err != nil {
		t.Fatal(err)
	}
	var err error
	if l.server, err = tangtest.New(elliptic.P521()); err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if l.away.Load() {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		l.server.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	l.url = s.URL
	return l
}

func (l *lab) config() string {
	return fmt.Sprintf(`{"url":"%s","thp":"%s"}`, l.url, l.server.Thumbprint())
}

func (l *lab) pin(t *testing.T) pin.Pin {
	t.Helper()
	p, err := pin.Parse("tang", l.config())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// opens reports whether a key opens a volume.
func (l *lab) opens(t *testing.T, key []byte) bool {
	t.Helper()
	_, err := l.Cryptsetup(t.Context(), key, nil, "luksOpen", "--test-passphrase", "--key-file", "-", l.device)
	return err == nil
}

// A bound volume is opened by its old key and by the locked one; a second binding takes another slot.
func TestBind(t *testing.T) {
	l := newLab(t)
	k := new(clevis.Locker)
	for n := range 2 {
		if err := l.Bind(t.Context(), k, l.device, l.pin(t), []byte(passphrase)); err != nil {
			t.Fatal(err)
		}
		locks, err := l.Locks(t.Context(), l.device)
		if err != nil || len(locks) != n+1 || locks[n].Slots[0] != fmt.Sprint(n+1) {
			t.Fatalf("got %+v, %v", locks, err)
		}
		key, err := First(t.Context(), k, locks[n:])
		if err != nil || !l.opens(t, key) || !l.opens(t, []byte(passphrase)) {
			t.Errorf("the locked key %q, %v", key, err)
		}
		if got := clevis.Describe(locks[n].Lock); !strings.HasPrefix(got, `tang "`+l.url) {
			t.Errorf("described as %s", got)
		}
	}
	if err := l.Bind(t.Context(), k, l.device, l.pin(t), []byte("another key")); err == nil || !strings.Contains(err.Error(), "bind "+l.device) {
		t.Errorf("bound with a wrong key: %v", err)
	}
	l.away.Store(true)
	if err := l.Bind(t.Context(), k, l.device, l.pin(t), []byte(passphrase)); err == nil || !strings.Contains(err.Error(), "502") {
		t.Errorf("bound without the server: %v", err)
	}
	if m, err := l.dump(t.Context(), l.device); err != nil || len(m.KeySlots) != 3 || len(m.Tokens) != 2 {
		t.Errorf("what failed has left something: %v, %v", m, err)
	}
}

// ask is who opens the volume: it reads until the other hangs up.
func ask(t *testing.T, path string) <-chan []byte {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	answer := make(chan []byte, 1)
	go func() {
		defer c.Close()
		b, _ := io.ReadAll(c)
		answer <- b
	}()
	return answer
}

// At boot: the one who asks gets the key as soon as the server is there, and nothing when the time is over; the log says which server did not
// answer, once.
func TestAnswer(t *testing.T) {
	l := newLab(t)
	if err := l.Bind(t.Context(), new(clevis.Locker), l.device, l.pin(t), []byte(passphrase)); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	old := syscall.Umask(0o077)
	err := l.Prepare(t.Context(), l.device, dir)
	syscall.Umask(old)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir + "/" + locksFile); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("who answers cannot read the locks: %v, %v", info, err)
	}
	socket, err := net.Listen("unix", dir+"/box.sock")
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	f, err := socket.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for name, tc := range map[string]struct {
		back  time.Duration // the server
		total time.Duration
		want  bool
	}{"there": {0, time.Minute, true}, "late": {500 * time.Millisecond, time.Minute, true}, "gone": {time.Hour, 700 * time.Millisecond, false}} {
		var log bytes.Buffer
		l.away.Store(tc.back > 0)
		timer := time.AfterFunc(tc.back, func() { l.away.Store(false) })
		answer := ask(t, dir+"/box.sock")
		err := Answer(t.Context(), int(f.Fd()), new(clevis.Locker), dir, tc.total, slog.New(slog.NewTextHandler(&log, nil)))
		timer.Stop()
		key := <-answer
		if (err == nil) != tc.want || tc.want && !l.opens(t, key) || !tc.want && len(key) > 0 {
			t.Errorf("%s: got %q, %v", name, key, err)
		}
		if !tc.want && (!strings.Contains(err.Error(), l.url) || !strings.Contains(err.Error(), "502") || !strings.Contains(err.Error(), "gave up after")) {
			t.Errorf("%s: %v", name, err)
		}
		if n := strings.Count(log.String(), "no key yet"); (n == 1) != (tc.back > 0) {
			t.Errorf("%s: logged\n%s", name, log.String())
		}
	}
}

func TestPrepareRefuses(t *testing.T) {
	l := newLab(t)
	if err := l.Prepare(t.Context(), l.device, t.TempDir()); err == nil || !strings.Contains(err.Error(), "no token of type clevis") {
		t.Errorf("got %v", err)
	}
	if err := l.Prepare(t.Context(), os.DevNull, t.TempDir()); err == nil {
		t.Error("prepared something that is no volume")
	}
}

func TestDevice(t *testing.T) {
	name := t.TempDir() + "/crypttab"
	if err := os.WriteFile(name, []byte("# comment\n\nbox UUID=0f1e2d3c-4b5a-4978-8695-a4b3c2d1e0f1 /run/clevis/box.sock luks\npath /dev/vdb -\nlabel PARTLABEL=x\nwrong SERIAL=x\nshort\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for volume, want := range map[string]string{"box": "/dev/disk/by-uuid/0f1e2d3c-4b5a-4978-8695-a4b3c2d1e0f1", "path": "/dev/vdb", "label": "/dev/disk/by-partlabel/x"} {
		if got, err := Device(name, volume); err != nil || got != want {
			t.Errorf("%s: got %s, %v", volume, got, err)
		}
	}
	for _, volume := range []string{"wrong", "short", "other", "#"} {
		if got, err := Device(name, volume); err == nil {
			t.Errorf("%s: got %s", volume, got)
		}
	}
}

// Debian's clevis lists and opens what we bind, and we open what it binds.
func TestJudgedByClevis(t *testing.T) {
	if os.Getuid() != 0 {
		testenv.Missing(t, "by Debian's clevis: a room needs root")
	}
	t.Setenv("TMPDIR", "/var/tmp") // the room has a /dev of its own, and files of tests may be in /dev/shm
	l := newLab(t)
	room, err := testenv.Judges(t).Enter(tooltree.RoomOptions{Binds: []string{l.device}, Network: true})
	if err != nil {
		t.Fatal(err)
	}
	defer room.Close()
	run := func(stdin, program string, args ...string) string {
		t.Helper()
		cmd := room.Command(t.Context(), program, args...)
		cmd.Stdin = strings.NewReader(stdin)
		cmd.Env = append(cmd.Env, "LC_ALL=C")
		out, err := room.Output(cmd)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(out))
	}
	if err := l.Bind(t.Context(), new(clevis.Locker), l.device, l.pin(t), []byte(passphrase)); err != nil {
		t.Fatal(err)
	}
	if got, want := run("", "clevis", "luks", "list", "-d", l.device), fmt.Sprintf(`1: tang '{"url":"%s"}'`, l.url); got != want {
		t.Errorf("clevis lists %s, want %s", got, want)
	}
	if key := run("", "clevis", "luks", "pass", "-d", l.device, "-s", "1"); !l.opens(t, []byte(key)) {
		t.Errorf("clevis finds the key %q, which does not open", key)
	}
	run(passphrase, "clevis", "luks", "bind", "-y", "-k", "-", "-d", l.device, "sss", `{"t":1,"pins":{"tang":[`+l.config()+`]}}`)
	locks, err := l.Locks(t.Context(), l.device)
	if err != nil || len(locks) != 2 {
		t.Fatalf("got %v, %v", locks, err)
	}
	if key, err := First(t.Context(), new(clevis.Locker), locks[1:]); err != nil || !l.opens(t, key) {
		t.Errorf("clevis has bound it, and the key is %q, %v", key, err)
	}
}
