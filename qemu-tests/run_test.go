package qemutests

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/proa-os/proa/internal/testenv"
	"github.com/proa-os/proa/qemu-tests/terminal"
)

// screen is what a person sees.
type screen struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(b)
}

// wait returns the first match of a group of re, as soon as it is there.
func (s *screen) wait(t *testing.T, re string) string {
	t.Helper()
	r := regexp.MustCompile(re)
	for begin := time.Now(); time.Since(begin) < 10*time.Minute; time.Sleep(100 * time.Millisecond) {
		s.mu.Lock()
		m := r.FindSubmatch(s.text.Bytes())
		s.mu.Unlock()
		if m != nil {
			return string(m[len(m)-1])
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t.Fatalf("nothing on the screen matches %s:\n%s", re, s.text.String())
	return ""
}

// TestRun does as a person does with `make run CONFIG=web.bu`: reads how to get in, works on the console, comes in by the ssh command as it is
// printed, finds what the config has made, and stops the machine with the keys that are named.
func TestRun(t *testing.T) {
	s := begin(t)
	tools := testenv.Tools(t)
	dir := filepath.Join(s.dir, "1.0.0")
	if _, err := s.programs.Build(t.Context(), os.Stderr, dir, "1.0.0", ""); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(s.dir, "web.bu")
	if err := os.WriteFile(config, []byte("variant: proa\nversion: 1.0.0\nstorage: {files: [{path: /etc/web, contents: {inline: from-web.bu}}]}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	in, keyboard, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	defer keyboard.Close()
	out := &screen{}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		ended <- terminal.Run(ctx, terminal.Options{Image: dir, Config: config, Memory: 1024, CPUs: 1, DiskGiB: 8, In: in, Out: out, Messages: out})
	}()
	typed := func(text string) {
		t.Helper()
		if _, err := keyboard.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}

	ssh := strings.Fields(out.wait(t, `get in   ssh (.*)\n`))
	if got := out.wait(t, `stop     (Ctrl-A x)`); got != "Ctrl-A x" {
		t.Errorf("got %q", got)
	}
	out.wait(t, `:/var/home/core\$ `) // the console logs in by itself
	typed("id -un; echo answer-$((40 + 2))\r")
	out.wait(t, `answer-42`)
	typed("run0 sh -c 'echo uid-$(id -u)'\r")
	out.wait(t, `uid-(0)`)

	if b, err := tools.Command(t.Context(), "ssh", append(ssh, "-o", "BatchMode=yes", "id -un; cat /etc/web")...).Output(); err != nil || string(b) != "core\nfrom-web.bu" {
		t.Errorf("ssh %s: got %q, %v, want core and what the config has written", strings.Join(ssh, " "), b, err)
	}
	typed("\x01x")
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("the machine was stopped: got %v", err)
		}
	case <-time.After(time.Minute):
		t.Error("Ctrl-A x stops nothing")
	}
}
