package generator

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/proa-os/proa/runtime/quadlet"
)

// machine has two directories of declarations, as /run and /etc, and an empty one for units.
func machine(t *testing.T, files map[string]string) (e *Env, out string) {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{"run", "etc", "units", "out"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, ok := strings.CutPrefix(text, "-> "); ok {
			err = os.Symlink(target, path)
		} else {
			err = os.WriteFile(path, []byte(text), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "kmsg"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	return &Env{Dirs: []string{filepath.Join(dir, "run"), filepath.Join(dir, "etc"), filepath.Join(dir, "none")}, UnitDirs: []string{filepath.Join(dir, "units")},
		Kmsg: filepath.Join(dir, "kmsg"), Out: new(bytes.Buffer), Err: new(bytes.Buffer)}, filepath.Join(dir, "out")
}

func container(image string) string { return "[Container]\nImage=" + image + "\n" }

// units are the generated ones, with the image that each starts, and the links.
func units(t *testing.T, out string) map[string]string {
	t.Helper()
	got := make(map[string]string)
	err := filepath.Walk(out, func(path string, info os.FileInfo, err error) error {
		name, _ := filepath.Rel(out, path)
		switch {
		case err != nil || info.IsDir():
			return err
		case info.Mode()&os.ModeSymlink != 0:
			got[name], err = os.Readlink(path)
			return err
		}
		text, err := os.ReadFile(path)
		got[name] = "?"
		for line := range strings.Lines(string(text)) {
			if f := strings.Fields(line); strings.HasPrefix(line, "ExecStart="+quadlet.Generator) {
				got[name] = "fails"
			} else if strings.HasPrefix(line, "ExecStart=") {
				got[name] = f[len(f)-1]
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestGenerate(t *testing.T) {
	e, out := machine(t, map[string]string{
		"etc/web.container":                  container("etc") + "[Install]\nWantedBy=multi-user.target\n",
		"run/web.container":                  container("run") + "[Install]\nWantedBy=multi-user.target\n",
		"etc/gone.container":                 container("etc"),
		"run/gone.container":                 "-> /dev/null",
		"etc/sub/deep/deep.container":        container("deep"),
		"etc/users/private.container":        container("private"),
		"etc/job@.container":                 container("job"),
		"etc/job@one.container":              "-> job@.container",
		"etc/job@.container.d/10.conf":       container("all"),
		"etc/job@one.container.d/10.conf":    container("one"),
		"etc/app-a.container":                container("a"),
		"etc/app-.container.d/20.conf":       container("app"),
		"run/app-a.container.d/30.conf":      container("last"),
		"run/app-a.container.d/README":       "[Container]\nImage=readme\n",
		"etc/container.d/40.conf":            "[Container]\nLabel=x=y\n",
		"etc/loop/loop":                      "-> ..",
		"etc/bad.container":                  "[Container]\nImage=a\nNoSuchKey=1\n[Install]\nWantedBy=multi-user.target\n",
		"etc/dangling.container":             "-> nowhere",
		"etc/dir.container/inner.container":  container("inner"),
		"etc/ours.container":                 container("a"),
		"units/ours.service":                 "",
		"etc/clash.container":                container("a") + "[Install]\nAlias=web.service\n",
		"etc/README.md":                      "",
		"etc/.container":                     "",
		"etc/utf8.container":                 "[Container]\nImage=\xff\n",
		"etc/evil\n[Service].container":      container("a"),
		"etc/evil\x1b[31m/evil.container":    container("a"),
		"etc/huge.container":                 container("a") + strings.Repeat("#", quadlet.MaxSize),
		"etc/data.volume":                    "",
		"etc/uses.container":                 container("u") + "Volume=data.volume:/d\n",
		"etc/linked":                         "-> ../elsewhere",
		"elsewhere/linked.container":         container("linked"),
		"etc/masked.container.d/10.conf":     "-> /dev/null",
		"etc/masked.container":               container("masked"),
		"etc/dropfail.container.d/10.conf":   "[Container]\nFoo=1\n",
		"etc/dropfail.container":             container("a"),
		"etc/kubernetes.kube":                "[Kube]\nYaml=x\n",
		"etc/web.container.d/50-nothing.txt": "",
	})
	if err := syscall.Mkfifo(filepath.Join(e.Dirs[1], "pipe.container"), 0o644); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if code := e.Main([]string{out, out, out}); code != 1 {
		t.Errorf("exit status %d, want 1: there are errors", code)
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("took %v", d)
	}
	want := map[string]string{
		"web.service": "run", "multi-user.target.wants/web.service": "../web.service", "deep.service": "deep", "job@.service": "all", "job@one.service": "one",
		"app-a.service": "last", "bad.service": "fails", "multi-user.target.wants/bad.service": "../bad.service", "dangling.service": "fails", "dir.service": "fails",
		"clash.service": "a", "utf8.service": "fails", "huge.service": "fails", "data-volume.service": "systemd-data", "uses.service": "u", "linked.service": "linked",
		"masked.service": "masked", "dropfail.service": "fails", "kubernetes.service": "fails", "pipe.service": "fails",
	}
	got := units(t, out)
	for name := range want {
		if got[name] != want[name] {
			t.Errorf("%s: got %q, want %q", name, got[name], want[name])
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("unexpected %s: %q", name, got[name])
		}
	}
	log, err := os.ReadFile(e.Kmsg)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`etc/bad.container:3: unknown key "NoSuchKey" in [Container]`, "etc/dangling.container: cannot be read: no such file", "etc/dir.container: is a directory",
		"etc/pipe.container: is no regular file", "etc/huge.container: has 1048", "ours.service is the system's own", `etc/dropfail.container.d/10.conf:2: unknown key "Foo"`,
		"clash.container: [Install]: symlink", "evil?[31m/evil.container: makes no unit", "evil?[Service].container: makes no unit", "utf8.container:2: is not UTF-8", "is not carried out: Kubernetes",
	} {
		if !strings.Contains(string(log), "\n<3>quadlet-generator: ") || !strings.Contains(string(log), want) {
			t.Errorf("no %q in the log:\n%s", want, log)
		}
	}
	for line := range strings.Lines(string(log)) {
		if !strings.HasPrefix(line, "<3>quadlet-generator: ") || len(line) > 976 {
			t.Errorf("line %q", line)
		}
	}
}

func TestNothingDeclared(t *testing.T) {
	e, out := machine(t, nil)
	if code := e.Main([]string{out}); code != 0 {
		t.Errorf("exit status %d", code)
	}
	if got := units(t, out); len(got) != 0 {
		t.Errorf("got %v", got)
	}
}

// People's commands see a file with those beside it and the machine's, and speak of that file only.
func TestCheck(t *testing.T) {
	e, _ := machine(t, map[string]string{
		"etc/data.volume": "", "etc/web.container": container("a") + "Volume=data.volume:/d\n", "etc/bad.container": container("a") + "X=1\n",
		"home/mine.container": container("a") + "Volume=data.volume:/d\nNetwork=own.network\n", "home/own.network": "", "home/wrong.container": container("a") + "Volum=/d\n",
	})
	etc, home := e.Dirs[1], filepath.Join(e.Dirs[1], "../home")
	for _, tc := range []struct {
		args []string
		code int
		out  []string
		err  []string
	}{
		{[]string{"--check", etc + "/web.container"}, 0, nil, nil},
		{[]string{"--check"}, 1, nil, []string{etc + `/bad.container:3: unknown key "X" in [Container]`}},
		{[]string{"--check", home + "/mine.container"}, 0, nil, nil},
		{[]string{"--check", home}, 1, nil, []string{`home/wrong.container:3: unknown key "Volum" in [Container]: did you mean Volume=?`}},
		{[]string{"--dryrun", home + "/mine.container"}, 0, []string{"---mine.service---", "Requires=own-network.service", "--volume systemd-data:/d"}, nil},
		{[]string{"--dryrun", home}, 1, []string{"---mine.service---", "---own-network.service---", "wrong.container (has errors)"}, []string{"Volum"}},
		{[]string{"--check", home + "/missing.container"}, 1, nil, []string{"no such file"}},
		{[]string{"--check", e.Kmsg}, 1, nil, []string{"is no declaration"}},
		{[]string{"--fail", etc + "/bad.container"}, 1, nil, []string{`unknown key "X"`}},
		{[]string{"--fail", etc + "/web.container"}, 1, nil, []string{"has no errors any more: systemctl daemon-reload"}},
		{[]string{"--help"}, 0, []string{"Usage:"}, nil},
		{[]string{"--nonsense"}, 2, nil, []string{"Usage:"}},
	} {
		var out, errs bytes.Buffer
		e.Out, e.Err = &out, &errs
		code := e.Main(tc.args)
		said := fmt.Sprintf("%v: exit %d\n%s\n%s", tc.args, code, &out, &errs)
		if code != tc.code || len(tc.err) == 0 && errs.Len() > 0 || len(tc.out) == 0 && out.Len() > 0 {
			t.Errorf("want exit %d: %s", tc.code, said)
		}
		for _, w := range tc.out {
			if !strings.Contains(out.String(), w) {
				t.Errorf("no %q on standard output of %s", w, said)
			}
		}
		for _, w := range tc.err {
			if !strings.Contains(errs.String(), w) {
				t.Errorf("no %q on standard error of %s", w, said)
			}
		}
	}
}
