package ctl

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/proa-os/proa/runtime/store"
)

// journalctl is one that notes its arguments and prints three entries.
const journalctl = `#!/bin/sh
echo "$@" > "$(dirname "$0")/arguments"
cat <<'END'
{"__REALTIME_TIMESTAMP":"1700000000123456","MESSAGE":"plain","PROA_EVENT":"start","PROA_CONTAINER":"web","PROA_IMAGE":"a/b:1"}
{"__REALTIME_TIMESTAMP":"1700000001000000","MESSAGE":[98,255,98],"PROA_EVENT":"die","PROA_CONTAINER":"web","PROA_EXIT_CODE":"137"}
{"__REALTIME_TIMESTAMP":"1700000002000000","MESSAGE":["first","second"],"PROA_EVENT":"start","PROA_CONTAINER":"db"}
END
`

func journaled(t *testing.T) (*Env, func() string) {
	t.Helper()
	e := testEnv(t.TempDir())
	if err := os.WriteFile(e.Journal, []byte(journalctl), 0o755); err != nil {
		t.Fatal(err)
	}
	add(t, e, &store.Container{Name: "web", Restart: "no"})
	return e, func() string {
		b, _ := os.ReadFile(filepath.Join(filepath.Dir(e.Journal), "arguments"))
		return string(b)
	}
}

func TestLogs(t *testing.T) {
	e, arguments := journaled(t)
	out, code := inside(t, e, "logs", "web", "-f", "--tail", "7", "--since", "2023-11-14T22:13:20Z")
	if out != "plain\nb\xffb\nfirst\n" || code != 0 {
		t.Errorf("got %q, %d", out, code)
	}
	for _, want := range []string{"_SYSTEMD_UNIT=proa-web.service", "SYSLOG_IDENTIFIER=web", "--follow", "--lines=7", "--since=@1700000000.000000"} {
		if !strings.Contains(arguments(), want) {
			t.Errorf("journalctl was not told %s: %s", want, arguments())
		}
	}
	if out, _ := inside(t, e, "logs", "-t", "web"); !strings.HasPrefix(out, "2023-11-14T22:13:20.123456Z plain\n") {
		t.Errorf("got %q", out)
	}
	for _, args := range [][]string{{"--tail", "few"}, {"--since", "tomorrow-ish"}} {
		if out, code := inside(t, e, append([]string{"logs", "web"}, args...)...); code != 1 || !strings.Contains(out, "want") {
			t.Errorf("%q: %d %s", args, code, out)
		}
	}
}

func TestEvents(t *testing.T) {
	e, arguments := journaled(t)
	out, code := inside(t, e, "events", "--since", "1h", "--until", "now", "--filter", "container=web", "--json")
	if strings.Count(out, "\n") != 2 || !strings.Contains(out, `"exit_code":137`) || code != 0 {
		t.Errorf("got %q, %d", out, code)
	}
	if a := arguments(); !strings.Contains(a, "PROA_EVENT=die") || strings.Contains(a, "--follow") {
		t.Errorf("journalctl was told %s", a)
	}
	if out, _ := inside(t, e, "events", "--filter", "color=red"); !strings.Contains(out, "want KEY=VALUE with one of the keys") {
		t.Errorf("got %q", out)
	}
	// An event cannot forge fields.
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: e.JournalSocket})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	e.event(&store.Container{Name: "web", Image: "a:1"}, "health", "bad\nPRIORITY=0\x1b[")
	b := make([]byte, 4096)
	n, err := l.Read(b)
	if want := "MESSAGE=bad PRIORITY=0\ufffd[\nPRIORITY=4\nSYSLOG_IDENTIFIER=containerctl\nPROA_EVENT=health\nPROA_CONTAINER=web\nPROA_IMAGE=a:1\n"; err != nil || string(b[:n]) != want {
		t.Errorf("got %q, %v, want %q", b[:n], err, want)
	}
}

func TestWhen(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	for in, want := range map[string]string{"10m": "@999400.000000", "1700000000.5": "@1700000000.5", "1970-01-01T00:00:01Z": "@1.000000", "today": "today"} {
		if got, err := when(in, now); err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", in, got, err, want)
		}
	}
}

func TestFormat(t *testing.T) {
	v := map[string]any{"name": "web", "labels": map[string]string{"a.b": "c"}, "created_at": 7, "exit": nil}
	var out strings.Builder
	if err := formatEach(&out, `{{.Name}}\t{{ json .Labels }} {{index .labels "a.b"}} {{.CreatedAt}} {{.exit.code}}.`, []any{v}, nil); err != nil || out.String() != "web\t{\"a.b\":\"c\"} c 7 .\n" {
		t.Errorf("got %q, %v", &out, err)
	}
	if err := formatEach(&out, `{{range .x}}{{end}}`, []any{v}, nil); err == nil {
		t.Error("a template that is none of ours is taken")
	}
}
