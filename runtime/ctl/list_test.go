package ctl

import (
	"strings"
	"testing"
	"time"

	"github.com/proa-os/proa/runtime/network"
	"github.com/proa-os/proa/runtime/store"
)

// TestLists: ps, images and inspect leave out and print what docker's would.
func TestLists(t *testing.T) {
	m := bareMachine(t)
	e := testEnv(m.dir)
	at := func(s string) time.Time {
		v, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	add(t, e, &store.Container{Name: "web", Image: "index.docker.io/library/nginx:1", Created: at("2026-01-01T00:00:00Z"), Network: "bridge", Networks: []network.Attachment{{Network: "shop"}},
		Publish: []network.Port{{HostPort: 8080, Port: 80, Protocol: "tcp"}}, Labels: map[string]string{"tier": "front"}, Restart: "always", Args: []string{"serve"}, Memory: 1 << 20})
	add(t, e, &store.Container{Name: "db", Image: "example.org/db:2", Created: at("2026-01-02T00:00:00Z"), Network: "none", Volumes: []store.Volume{{Name: "data", Target: "/var/db"}}, Restart: "no"})
	add(t, e, &store.Container{Name: "job", Image: "example.org/db:2", Created: at("2026-01-03T00:00:00Z"), Network: "host", Restart: "no"})
	for _, c := range []struct{ args, want string }{
		{"ps", ""}, {"ps -a", "db job web"}, {"ps -l", "job"}, {"ps -n 2", "job db"}, {"ps -a --no-trunc -f name=b", "db job web"}, {"ps -af name=we", "web"}, {"ps -af id=d", "db"},
		{"ps -af label=tier", "web"}, {"ps -af label=tier=back", ""}, {"ps -af network=shop", "web"}, {"ps -af network=none -f network=host", "db job"},
		{"ps -af volume=data", "db"}, {"ps -af volume=/var/db", "db"}, {"ps -af publish=8080", "web"}, {"ps -af publish=8080/udp", ""}, {"ps -af before=db", "web"}, {"ps -af since=db", "job"},
		{"ps -af ancestor=nginx:1", "web"}, {"ps -f status=created", "db job web"}, {"ps -af before=job -f since=web", "db"},
	} {
		args := strings.Fields(c.args)
		out, code := inside(t, e, append(args, "-q")...)
		if got := strings.Join(strings.Fields(out), " "); got != c.want || code != 0 {
			t.Errorf("%s: got %q, want %q", c.args, got, c.want)
		}
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"ps", "-a", "-f", "name=web", "--format", `{{.Names}} {{.ID}} {{.State}} {{.Ports}} {{.Label "tier"}} {{.Command}}`}, "web web created *:8080->80/tcp front serve\n"},
		{[]string{"ps", "-a", "-f", "name=db", "--format", `table {{.Names}}\t{{.Status}}`}, "NAMES  STATUS\ndb     created\n"},
		{[]string{"inspect", "-f", "{{.State.Status}} {{.State.Running}} {{.State.ExitCode}} {{.Config.Image}} {{.HostConfig.RestartPolicy.Name}} {{.HostConfig.Memory}}", "web"}, "created false 0 index.docker.io/library/nginx:1 always 1048576\n"},
		{[]string{"inspect", "-f", `{{json .labels}}{{.exit.code}}`, "web"}, "{\"tier\":\"front\"}\n"},
	} {
		if out, code := inside(t, e, c.args...); out != c.want || code != 0 {
			t.Errorf("%q: got %q, want %q", c.args, out, c.want)
		}
	}
	for _, args := range [][]string{{"ps", "-a", "--format", "{{.Color}}"}, {"inspect", "-f", "{{.Color}}", "web"}} {
		if out, code := inside(t, e, args...); code != 1 || !strings.Contains(out, `there is no field "Color": want one of `) {
			t.Errorf("%q: %d %q", args, code, out)
		}
	}
	if out, code := inside(t, e, "ps", "-f", "before=nobody"); code != 1 || !strings.Contains(out, "no such container") {
		t.Errorf("%d %q", code, out)
	}
}

func TestMatchImage(t *testing.T) {
	for _, c := range []struct {
		pattern, image string
		want           bool
	}{
		{"nginx", "index.docker.io/library/nginx:1", true}, {"nginx:1", "index.docker.io/library/nginx:1", true}, {"nginx:2", "index.docker.io/library/nginx:1", false},
		{"ng*", "index.docker.io/library/nginx:1", true}, {"docker.io/library/nginx", "index.docker.io/library/nginx:1", true}, {"example.org/*/a", "example.org/x/a:1", true},
		{"x/a", "example.org/x/a:1", true}, {"a", "example.org/x/a:1", false}, {"example.org/x/a:*", "example.org/x/a:1", true},
	} {
		if got, err := matchImage(c.pattern, c.image); err != nil || got != c.want {
			t.Errorf("%s of %s: %v, %v", c.pattern, c.image, got, err)
		}
	}
	if _, err := matchImage("[", "a:1"); err == nil {
		t.Error("a bad pattern is taken")
	}
}
