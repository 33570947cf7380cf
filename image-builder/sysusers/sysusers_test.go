package sysusers

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/proa-os/proa/internal/testenv"
)

// imageFile is what the image declares, and the machine too; peopleFile is for the image only.
const (
	imageFile  = "../../manifests/files/usr/lib/sysusers.d/proa.conf"
	peopleFile = "../../manifests/files/usr/lib/proa/people.conf"
)

func TestTables(t *testing.T) {
	a := New()
	if err := a.Add("x.conf", "# accounts\nu  web 33:nogroup  \"Web, a server\"  /srv\ng nogroup 65534\nu! old 34\nm web  old\nu root 0 - /root /bin/sh\n"); err != nil {
		t.Fatal(err)
	}
	got, err := a.Tables()
	if err != nil {
		t.Fatal(err)
	}
	want := Tables{
		Passwd:  "root:x:0:0::/root:/bin/sh\nweb:x:33:65534:Web, a server:/srv:/usr/sbin/nologin\nold:x:34:34::/:/usr/sbin/nologin\n",
		Group:   "root:x:0:\nold:x:34:web\nnogroup:x:65534:\n",
		Shadow:  "root:!unprovisioned:20000::::::\nweb:!*:20000::::::\nold:!*:20000:::::1:\n",
		Gshadow: "root:!*::\nold:!*::web\nnogroup:!*::\n",
	}
	if got != want {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
}

func TestAddRefuses(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"u web -", "pin one"},
		{"u web", "want a type"},
		{"u web 033", "pin one"},
		{"u web /usr/bin/web", "pin one"},
		{"g web 65535", "pin one"},
		{"u web 33\nu web2 33", "number of web"},
		{"u web 33\nu web 34", "twice"},
		{"g web 33\nu web 33", "twice"},
		{"g web 33\ng www 33", "number of web"},
		{"r - 500-900", "no name"},
		{"r x 500-900", `type "r"`},
		{"u a:b 33", "no name"},
		{"u %m 33", "no specifiers"},
		{"u web 33 \"Web", "quote"},
		{"u web 33 \"Web\"x", "quote"},
		{"u web 33 - srv", "want a text, a home and a shell"},
		{"u web 33 a:b", "without a colon"},
		{"u web 33 - - - -", "too many"},
	} {
		if err := New().Add("x.conf", tt.text); err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "x.conf: line") {
			t.Errorf("%q: got %v, want an error with %q", tt.text, err, tt.want)
		}
	}
	for _, text := range []string{"u web 33:nogroup", "m core wheel\nu core 1000", "m core wheel\ng wheel 10"} {
		a := New()
		if err := a.Add("x.conf", text); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Tables(); err == nil || !strings.Contains(err.Error(), "declared") {
			t.Errorf("%q: got %v, want an error that says what is not declared", text, err)
		}
	}
}

func TestUndeclared(t *testing.T) {
	a := New()
	if err := a.Add("x.conf", "u web 33\ng kvm 100\n"); err != nil {
		t.Fatal(err)
	}
	got := a.Undeclared("# u comment -\nu! web -\nu! new - \"New one\" /\ng kvm -\ng other 5\nm web x\n")
	if want := []string{"group other", "user new"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestJudge lets systemd-sysusers make the image's tables in an empty root: they must be ours. Then it must have nothing to do with
// ours, and must add what an older release's tables lack without touching a line of them. On a machine it does not know of people, and
// makes none of them again.
func TestJudge(t *testing.T) {
	tools := testenv.Tools(t)
	a := New()
	var machine, build []string // the files that are read
	for _, name := range []string{imageFile, peopleFile} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Add(name, string(text)); err != nil {
			t.Fatal(err)
		}
		conf, err := filepath.Abs(name)
		if err != nil {
			t.Fatal(err)
		}
		build = append(build, conf)
	}
	machine = build[:1]
	tables, err := a.Tables()
	if err != nil {
		t.Fatal(err)
	}
	ours := map[string]string{"passwd": tables.Passwd, "group": tables.Group, "shadow": tables.Shadow, "gshadow": tables.Gshadow}
	sysusers := func(conf []string, etc map[string]string) map[string]string {
		t.Helper()
		root := t.TempDir()
		if err := os.MkdirAll(filepath.Join(root, "etc"), 0o755); err != nil {
			t.Fatal(err)
		}
		for name, text := range etc {
			if err := os.WriteFile(filepath.Join(root, "etc", name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		cmd := tools.Command(t.Context(), "systemd-sysusers", append([]string{"--root=" + root}, conf...)...)
		cmd.Env = append(cmd.Environ(), fmt.Sprintf("SOURCE_DATE_EPOCH=%d", Day*24*60*60))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("systemd-sysusers: %v\n%s", err, out)
		}
		got := map[string]string{}
		for name := range ours {
			b, err := os.ReadFile(filepath.Join(root, "etc", name))
			if err != nil {
				t.Fatal(err)
			}
			got[name] = string(b)
		}
		return got
	}

	fresh := sysusers(build, nil)
	for name, want := range ours {
		if got := sortLines(fresh[name]); !slices.Equal(got, sortLines(want)) {
			t.Errorf("etc/%s: systemd-sysusers makes\n%s\nwe make\n%s", name, strings.Join(got, "\n"), strings.Join(sortLines(want), "\n"))
		}
	}
	if again := sysusers(machine, ours); fmt.Sprint(again) != fmt.Sprint(ours) {
		t.Errorf("systemd-sysusers changes our tables: got %q", again)
	}

	// The owner has taken core out of wheel, then removed it.
	withdrawn := maps.Clone(ours)
	for _, name := range []string{"group", "gshadow"} {
		withdrawn[name] = regexp.MustCompile(`(?m)^(wheel:.*:)core$`).ReplaceAllString(withdrawn[name], "$1")
	}
	if again := sysusers(machine, withdrawn); withdrawn["group"] == ours["group"] || !maps.Equal(again, withdrawn) {
		t.Errorf("systemd-sysusers puts core back into wheel: got %q", again)
	}
	removed := map[string]string{}
	for name, text := range ours {
		removed[name] = regexp.MustCompile(`(?m)^core:.*\n`).ReplaceAllString(regexp.MustCompile(`(?m):core$`).ReplaceAllString(text, ":"), "")
	}
	if again := sysusers(machine, removed); strings.Contains(removed["passwd"], "core") || !maps.Equal(again, removed) {
		t.Errorf("systemd-sysusers makes core again: got %q", again)
	}

	older := map[string]string{}
	for name, text := range ours {
		lines := strings.SplitAfter(text, "\n")
		lines = slices.DeleteFunc(lines, func(l string) bool { return strings.HasPrefix(l, "proa-fetch:") })
		older[name] = strings.Join(lines, "")
	}
	older["passwd"] += "bob:x:1001:1001::/home/bob:/bin/sh\n"
	older["group"] += "bob:x:1001:\n"
	older["passwd"] = strings.Replace(older["passwd"], "sshd:x:984:", "sshd:x:884:", 1)
	grown := sysusers(machine, older)
	for name, text := range older {
		for line := range strings.Lines(text) {
			if !strings.Contains(grown[name], line) {
				t.Errorf("etc/%s: systemd-sysusers has changed %q", name, line)
			}
		}
		if !strings.Contains(grown[name], "proa-fetch:") {
			t.Errorf("etc/%s: proa-fetch is not there:\n%s", name, grown[name])
		}
	}
	if !strings.Contains(grown["passwd"], "proa-fetch:x:990:990:") {
		t.Errorf("proa-fetch has another number:\n%s", grown["passwd"])
	}
}

func sortLines(s string) []string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	slices.Sort(lines)
	return lines
}

func FuzzAdd(f *testing.F) {
	f.Add("u web 33:nogroup \"Web\" /srv /bin/sh\ng nogroup 65534\nm web nogroup\n")
	f.Fuzz(func(t *testing.T, text string) {
		a := New()
		if a.Add("x.conf", text) != nil {
			return
		}
		tables, err := a.Tables()
		if err != nil {
			return
		}
		for line := range strings.Lines(tables.Passwd) {
			if strings.Count(line, ":") != 6 {
				t.Errorf("%q makes %q", text, line)
			}
		}
		if strings.Count(tables.Passwd, "\n") != len(a.users) || strings.Count(tables.Group, "\n") != len(a.groups) {
			t.Errorf("%q makes %d users and %d groups, and the tables\n%+v", text, len(a.users), len(a.groups), tables)
		}
	})
}
