package ctl

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/runtime/flagset"
	"github.com/proa-os/proa/runtime/image"
	"github.com/proa-os/proa/runtime/store"
)

// inside runs command lines in this process, on a machine in a directory, and returns what they print and their exit code.
func inside(t *testing.T, e *Env, args ...string) (string, int) {
	t.Helper()
	var out, errs bytes.Buffer
	e.Out, e.Err = &out, &errs
	code := e.Main(t.Context(), args)
	return out.String() + errs.String(), code
}

// add puts a container into the store, of an image without layers if it says none.
func add(t *testing.T, e *Env, k *store.Container) {
	t.Helper()
	s, err := e.open()
	if err != nil {
		t.Fatal(err)
	}
	if k.Manifest == (image.Digest{}) {
		put := func(b []byte) digest.SHA256 {
			d := digest.Of(b)
			if err := os.WriteFile(filepath.Join(e.Store, "blobs/sha256", d.String()), b, 0o600); err != nil {
				t.Fatal(err)
			}
			return d
		}
		config := fmt.Appendf(nil, `{"os":"linux","architecture":%q,"rootfs":{"diff_ids":[]}}`, runtime.GOARCH)
		k.Manifest = image.Digest(put(fmt.Appendf(nil, `{"schemaVersion":2,"config":{"digest":"sha256:%s","size":%d},"layers":[]}`, put(config), len(config))))
	}
	if err := s.AddContainer(k); err != nil {
		t.Fatal(err)
	}
}

func TestWords(t *testing.T) {
	e := testEnv(t.TempDir())
	add(t, e, &store.Container{Name: "web", Restart: "no"})
	if out, code := inside(t, e, "words", "containers"); out != "web\n" || code != 0 {
		t.Errorf("got %q, %d", out, code)
	}
	if out, code := inside(t, e, "rm", "wbe"); code != 1 || !strings.Contains(out, "wbe: no such container: did you mean web?") {
		t.Errorf("got %q, %d", out, code)
	}
	if out, _ := inside(t, e, "completion", "bash"); !strings.Contains(out, "$(containerctl words containers 2>/dev/null)") {
		t.Errorf("completion lists no containers:\n%s", out)
	}
}

// TestGroup: a verb may be a word with verbs of its own.
func TestGroup(t *testing.T) {
	e := testEnv(t.TempDir())
	did := ""
	p := e.program()
	p.Commands = e.commands(p.Name, []verb{{name: "net", what: "networks", verbs: []verb{
		{name: "add", args: "NAME", what: "add one", min: 1, max: 1, setup: func(s *flagset.Set) action {
			var loud bool
			s.Bool(&loud, "l,loud", "say it")
			return func(_ context.Context, c *call) error {
				did = fmt.Sprint(c.args, loud, c.store != nil)
				return nil
			}
		}},
	}}})
	var out bytes.Buffer
	e.Out = &out
	if err := p.Run(t.Context(), &out, []string{"net", "add", "-l", "x"}); err != nil || did != "[x] true true" {
		t.Errorf("did %q, %v", did, err)
	}
	for _, args := range [][]string{{"net"}, {"net", "add", "--help"}, {"net", "help", "add"}} {
		out.Reset()
		if err := p.Run(t.Context(), &out, args); err != nil || !strings.Contains(out.String(), "containerctl net") || !strings.Contains(out.String(), "add one") {
			t.Errorf("%q: %v\n%s", args, err, &out)
		}
	}
	if err := p.Run(t.Context(), &out, []string{"net", "ad"}); err == nil || !strings.Contains(err.Error(), "did you mean add?") {
		t.Errorf("got %v", err)
	}
}
