package ctl

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/proa-os/proa/runtime/flagset"
	"github.com/proa-os/proa/runtime/image"
	"github.com/proa-os/proa/runtime/ref"
	"github.com/proa-os/proa/runtime/registry"
	"github.com/proa-os/proa/runtime/store"
)

func (e *Env) pull(ctx context.Context, words []string, insecure bool) error {
	if err := exactly(words, "IMAGE"); err != nil {
		return err
	}
	r, err := ref.Parse(words[0])
	if err != nil {
		return err
	}
	s, err := e.open()
	if err != nil {
		return err
	}
	rec, err := e.pullImage(ctx, s, r, insecure)
	if err != nil {
		return err
	}
	fmt.Fprintln(e.Out, rec.Top)
	return nil
}

// pullImage has the image fetched by a process without privileges, and imports what that brings.
func (e *Env) pullImage(ctx context.Context, s *store.Store, r ref.Ref, insecure bool) (*store.Record, error) {
	uid, gid, err := e.fetchUser()
	if err != nil {
		return nil, err
	}
	unlock, err := s.Lock() // removes what an interrupted pull left
	if err != nil {
		return nil, err
	}
	dir, remove, err := s.FetchDir(uid, gid)
	unlock()
	if err != nil {
		return nil, err
	}
	defer remove()
	have, err := s.Layers()
	if err != nil {
		return nil, err
	}
	top, err := e.runFetcher(ctx, dir, uid, gid, r, insecure, have)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", dir.Fd()))
	if err != nil {
		return nil, err
	}
	defer root.Close()
	if unlock, err = s.Lock(); err != nil {
		return nil, err
	}
	defer unlock()
	return s.Import(ctx, root, top, r)
}

// fetchUser returns who fetches: a user of its own when root asks, else whoever asks.
func (e *Env) fetchUser() (uid, gid int, err error) {
	if os.Geteuid() != 0 {
		return os.Geteuid(), os.Getegid(), nil
	}
	u, err := user.Lookup(e.FetchUser)
	if err != nil {
		return 0, 0, fmt.Errorf("find the user that fetches: %w", err)
	}
	if uid, err = strconv.Atoi(u.Uid); err == nil {
		gid, err = strconv.Atoi(u.Gid)
	}
	return uid, gid, err
}

// A message is one line of the fetcher's standard output.
type message struct {
	Progress *registry.Event `json:"progress,omitempty"`
	Digest   *image.Digest   `json:"digest,omitempty"` // the last one
	Error    string          `json:"error,omitempty"`  // or this
}

// runFetcher executes "containerctl fetch". The child has another user, no groups, no capabilities and no way to new ones, an
// environment of proxies only, and of this process's files the directory.
func (e *Env) runFetcher(ctx context.Context, dir *os.File, uid, gid int, r ref.Ref, insecure bool, have []image.Digest) (image.Digest, error) {
	args := []string{"fetch"}
	if insecure {
		args = append(args, "--tls-verify=false")
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe", append(args, r.String())...)
	cmd.Env = proxies()
	cmd.Dir = "/"
	cmd.ExtraFiles = []*os.File{dir}
	var stdin bytes.Buffer
	for _, d := range have {
		fmt.Fprintln(&stdin, d)
	}
	cmd.Stdin = &stdin
	var stderr bytes.Buffer
	cmd.Stderr = &limitWriter{w: &stderr, left: 16 << 10}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid), Groups: []uint32{}}
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return image.Digest{}, err
	}
	if err := cmd.Start(); err != nil {
		return image.Digest{}, fmt.Errorf("start fetcher: %w", err)
	}
	last, perr := e.showProgress(out)
	if err := cmd.Wait(); err != nil || perr != nil || last.Digest == nil {
		if last.Error != "" {
			return image.Digest{}, errors.New(last.Error)
		}
		return image.Digest{}, fmt.Errorf("fetch %s: %w: %s", r, errors.Join(err, perr), strings.TrimSpace(stderr.String()))
	}
	return *last.Digest, nil
}

// showProgress reads the fetcher's messages and shows them on a terminal.
func (e *Env) showProgress(r io.Reader) (message, error) {
	out, _ := e.Err.(*os.File)
	show := out != nil && term.IsTerminal(int(out.Fd()))
	done, total := make(map[image.Digest]int64), make(map[image.Digest]int64)
	var last message
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		last = message{}
		if err := json.Unmarshal(sc.Bytes(), &last); err != nil {
			return last, fmt.Errorf("read fetcher's message: %w", err)
		}
		if p := last.Progress; p != nil && show {
			done[p.Layer], total[p.Layer] = p.Done, p.Total
			fmt.Fprintf(out, "\r\x1b[Kfetching: %s of %s, %d layers", size(sum(done)), size(sum(total)), len(done))
		}
	}
	if show && len(done) > 0 {
		fmt.Fprint(out, "\r\x1b[K")
	}
	return last, sc.Err()
}

func sum(m map[image.Digest]int64) int64 {
	var n int64
	for _, v := range m {
		n += v
	}
	return n
}

// proxies are all of the environment that the fetcher gets.
func proxies() []string {
	env := []string{"PATH=/usr/bin"}
	for _, n := range []string{"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR"} {
		if v, ok := os.LookupEnv(n); ok {
			env = append(env, n+"="+v)
		}
	}
	return env
}

type limitWriter struct {
	w    io.Writer
	left int
}

func (l *limitWriter) Write(p []byte) (int, error) {
	n := min(len(p), l.left)
	l.left -= n
	l.w.Write(p[:n])
	return len(p), nil
}

// fetchFlags are those of the hidden command fetch.
type fetchFlags struct{ tlsVerify bool }

func (f *fetchFlags) flags(s *flagset.Set) {
	f.tlsVerify = true
	s.Bool(&f.tlsVerify, "tls-verify", "=false: plain HTTP")
}

// fetch is the unprivileged side of pull. diffIDs of present layers come on standard input, one a line.
func (e *Env) fetch(ctx context.Context, words []string, f *fetchFlags) error {
	if err := exactly(words, "IMAGE"); err != nil {
		return err
	}
	enc := json.NewEncoder(e.Out)
	top, err := e.fetchInto(ctx, words[0], !f.tlsVerify, func(ev registry.Event) { enc.Encode(message{Progress: &ev}) })
	if err != nil {
		enc.Encode(message{Error: err.Error()})
		return err
	}
	return enc.Encode(message{Digest: &top})
}

func (e *Env) fetchInto(ctx context.Context, name string, insecure bool, progress func(registry.Event)) (image.Digest, error) {
	if os.Geteuid() == 0 {
		return image.Digest{}, errors.New("refuse to talk to a network as root: this command is for pull")
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return image.Digest{}, err
	}
	const dirFD = 3
	dir, err := os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", dirFD))
	if err != nil {
		return image.Digest{}, fmt.Errorf("open fetch directory: %w", err)
	}
	defer dir.Close()
	r, err := ref.Parse(name)
	if err != nil {
		return image.Digest{}, err
	}
	have := make(map[image.Digest]bool)
	sc := bufio.NewScanner(e.In)
	for sc.Scan() {
		d, err := image.ParseDigest(sc.Text())
		if err != nil {
			return image.Digest{}, err
		}
		have[d] = true
	}
	return registry.Fetch(ctx, registry.Options{Ref: r, Dir: dir, Insecure: insecure, Have: have, Progress: progress})
}
