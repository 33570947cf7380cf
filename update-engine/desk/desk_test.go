package desk

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/proa-os/proa/internal/command"
	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/update-engine/repo"
	"github.com/proa-os/proa/update-engine/repotest"
	"github.com/proa-os/proa/update-engine/server"
)

// A story types commands, at a time that it sets.
type story struct {
	t       *testing.T
	dir     string
	now     time.Time
	out     string
	err     string
	results error
}

func newStory(t *testing.T) *story {
	t.Setenv("PROA_REPO", "")
	t.Setenv("PROA_KEYS", "")
	return &story{t: t, dir: t.TempDir(), now: time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)}
}

// path is a name in the story's folder.
func (s *story) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

// try types a command; {} stands for the story's folder.
func (s *story) try(line string) error {
	s.t.Helper()
	var words []string
	for _, w := range strings.Fields(line) {
		words = append(words, strings.ReplaceAll(w, "{}", s.dir))
	}
	var out, err bytes.Buffer
	s.results = Run(s.t.Context(), Streams{Out: &out, Err: &err, Now: func() time.Time { return s.now }}, words)
	s.out, s.err = out.String(), err.String()
	return s.results
}

// run types a command that must succeed and print all of want.
func (s *story) run(line string, want ...string) {
	s.t.Helper()
	if err := s.try(line); err != nil {
		s.t.Fatalf("release %s: %v\n%s%s", line, err, s.out, s.err)
	}
	for _, w := range want {
		if w = strings.ReplaceAll(w, "{}", s.dir); !strings.Contains(s.out, w) {
			s.t.Fatalf("release %s: no %q in\n%s", line, w, s.out)
		}
	}
}

// same types a command that must succeed, print all of want and leave the story's folder as it was.
func (s *story) same(line string, want ...string) {
	s.t.Helper()
	before := tree(s.t, s.dir)
	s.run(line, want...)
	if after := tree(s.t, s.dir); after != before {
		s.t.Errorf("release %s changed\n%s\nto\n%s", line, before, after)
	}
}

// refused types a command that must fail with an exit code and say all of want.
func (s *story) refused(line string, code int, want ...string) {
	s.t.Helper()
	err := s.try(line)
	if ExitCode(err) != code {
		s.t.Fatalf("release %s: exit code %d, want %d: %v", line, ExitCode(err), code, err)
	}
	for _, w := range want {
		if w = strings.ReplaceAll(w, "{}", s.dir); !strings.Contains(err.Error(), w) {
			s.t.Errorf("release %s: no %q in %v", line, w, err)
		}
	}
}

// key makes a key in a folder of its own, the medium that it stays on, and gives the public one to the desk. It returns the base of its files.
func (s *story) key(role string) string {
	s.t.Helper()
	medium, err := os.MkdirTemp(s.dir, "medium-")
	if err != nil {
		s.t.Fatal(err)
	}
	s.run("keys new --role " + role + " --out " + medium + " --json")
	var made []repo.NewKey
	if err := json.Unmarshal([]byte(s.out), &made); err != nil || len(made) != 1 {
		s.t.Fatalf("%v: %s", err, s.out)
	}
	s.copy(made[0].Public, s.path("public", filepath.Base(made[0].Public)))
	return strings.TrimSuffix(made[0].Private, ".pem")
}

func (s *story) copy(from, to string) {
	s.t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(to), 0o755)
	}
	if err == nil {
		err = os.WriteFile(to, b, 0o600)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// online copies a key to the server that publishes.
func (s *story) online(key string) { s.copy(key+".pem", s.path("online", filepath.Base(key)+".pem")) }

// id is the key id in a key's file name.
func id(key string) string { return key[strings.LastIndexByte(key, '-')+1:] }

// carried lets keys sign a copy of the request, each on its own machine, and brings the copy back.
func (s *story) carried(keys ...string) {
	s.t.Helper()
	s.copy(s.path("repo/staged/request.json"), s.path("stick/request.json"))
	for _, k := range keys {
		s.run("sign --request {}/stick/request.json --key "+k+".pem", "signed with key "+id(k))
	}
	s.run("sign --repo {}/repo --merge {}/stick/request.json", "took over")
}

// A repository's life: keys that never meet, two desks that sign, channels halted and resumed, every role's keys changed twice, and a machine
// that still has the first root.
func TestLifeOfARepository(t *testing.T) {
	s := newStory(t)
	var root, targets []string
	for range 3 {
		root, targets = append(root, s.key("root")), append(targets, s.key("targets"))
	}
	plan, snapshot, timestamp := s.key("plan"), s.key("snapshot"), s.key("timestamp")
	for _, k := range []string{plan, snapshot, timestamp} {
		s.online(k)
	}
	s.run("init --repo {}/repo --keys {}/public --threshold 2", "0 of 2 needed", "next: release sign")
	s.refused("publish --repo {}/repo --keys {}/online", exitMissing, "1.root.json has 0 of 2 needed signatures", "release sign")
	s.refused("sign --repo {}/repo --key "+plan+".pem", exitError, "no key at hand may sign this")
	s.carried(root[0], root[2], targets[0], targets[1])
	s.run("sign --repo {}/repo --merge {}/stick/request.json", "took over 0 signatures")
	s.run("publish --repo {}/repo --keys {}/online", "root 1", "targets 1")
	s.copy(s.path("repo/metadata/1.root.json"), s.path("anchor.json"))

	first, second := repotest.NewBuild(t, "1.0.0"), repotest.NewBuild(t, "1.0.1")
	s.run("stage --fast --repo {}/repo "+first.Dir, "staged release 1.0.0", "% of raw", "full")
	s.refused("stage --repo {}/repo "+first.Dir, exitError, "exists already")
	s.run("sign --repo {}/repo --dry-run", "+ releases/1.0.0/amd64/release.json", first.Release.Root.RootHash.String(), "0 of 2 needed", "nothing was written")
	s.run("sign --repo {}/repo --key "+targets[1]+".pem", "1 of 2 needed")
	s.refused("publish --repo {}/repo --keys {}/online", exitMissing, "1 of 2 needed")
	s.refused("plan --repo {}/repo --keys {}/online --channel stable --version 1.0.0", exitError, "no signed release 1.0.0", "it is staged")
	s.carried(targets[2])
	s.run("publish --repo {}/repo --keys {}/online --channel stable --version 1.0.0", "channel stable has release 1.0.0")
	s.run("verify --repo {}/repo --root {}/anchor.json", "1 payloads applied", "a machine of channel stable gets release 1.0.0", "verified")

	s.run("stage --fast --repo {}/repo "+second.Dir, "1.0.1")
	s.run("sign --repo {}/repo --key "+targets[0]+".pem", "compared with release 1.0.0")
	s.carried(targets[1])
	s.run("publish --repo {}/repo --keys {}/online", "targets 3")
	s.run("plan --repo {}/repo --keys {}/online --channel stable --version 1.0.1 --not-before +36h --urgent", "release 1.0.1, not before 2026-01-03T00:00:00Z, urgent")
	s.run("plan --repo {}/repo --keys {}/online --channel stable --halt", "not before 2026-01-03T00:00:00Z, urgent, halted")
	s.run("plan --repo {}/repo --keys {}/online --channel stable --waves 5@+0h,100%@2026-01-04T00:00:00Z", "halted", "5 % from 2026-01-01T12:00:00Z, 100 % from 2026-01-04T00:00:00Z")
	s.run("plan --repo {}/repo --keys {}/online --channel stable --resume --not-before none --waves none --no-urgent")
	if !strings.HasSuffix(s.out, "channel stable has release 1.0.1\n") {
		t.Errorf("resumed: %s", s.out)
	}
	s.refused("plan --repo {}/repo --keys {}/online --channel stable --version 6.6.6", exitError, "no signed release 6.6.6", "1.0.0 1.0.1")

	for turn := range 2 {
		newRoot, newTargets := s.key("root"), s.key("targets")
		newPlan, newSnapshot, newTimestamp := s.key("plan"), s.key("snapshot"), s.key("timestamp")
		for _, x := range []struct{ role, add, remove string }{
			{"root", newRoot, root[0]}, {"targets", newTargets, targets[0]}, {"snapshot", newSnapshot, snapshot}, {"timestamp", newTimestamp, timestamp}, {"plan", newPlan, plan},
		} {
			s.run("rotate --repo {}/repo --role "+x.role+" --add "+x.add+".pub --remove "+id(x.remove), "+ role "+x.role, "- role "+x.role)
		}
		for _, k := range []string{newPlan, newSnapshot, newTimestamp} {
			s.online(k)
		}
		root, targets = append(root[1:], newRoot), append(targets[1:], newTargets)
		plan, snapshot, timestamp = newPlan, newSnapshot, newTimestamp
		s.carried(root[2], root[1], targets[1], targets[2])
		s.refused("publish --repo {}/repo --keys {}/online", exitMissing, "1 of 2 needed signatures of the root keys before")
		s.carried(root[0])
		s.run("publish --repo {}/repo --keys {}/online", "root "+string(rune('2'+turn)), "plan ")
		s.run("verify --repo {}/repo --root {}/anchor.json", "gets release 1.0.1", "verified")
		s.run("status --repo {}/repo", repo.Short(id(timestamp)), "2 of 3")
	}
	if strings.Contains(s.out, id(root[0])) == false || strings.Contains(s.out, "staged:") {
		t.Errorf("status: %s", s.out)
	}

	s.now = s.now.Add(36 * time.Hour)
	s.refused("verify --repo {}/repo --quick", exitProblems, "timestamp.json: expired")
	s.run("refresh --repo {}/repo --keys {}/online", "good until 2026-01-04T00:00:00Z")
	s.run("verify --repo {}/repo --quick", "gets release 1.0.1", "0 payloads applied")
	s.now = s.now.Add(6 * 24 * time.Hour)
	s.run("refresh --repo {}/repo --keys {}/online", "plan ")
	s.run("verify --repo {}/repo --quick")
}

// Whatever is changed in the folder, verify names the file.
func TestVerifyNamesTheFile(t *testing.T) {
	s := newStory(t)
	s.run("init --repo {}/repo --keys {}/keys")
	s.run("stage --fast --repo {}/repo " + repotest.NewBuild(t, "1.0.1").Dir)
	s.run("publish --repo {}/repo --keys {}/keys --channel stable --version 1.0.1")
	s.run("rotate --repo {}/repo --role root --add " + s.key("root") + ".pub --threshold 1")
	s.run("publish --repo {}/repo --keys {}/keys")
	s.run("verify --repo {}/repo")
	for _, c := range []struct {
		file  string
		quick bool // found even so
		want  string
	}{
		{"metadata/1.root.json", true, ""}, {"metadata/2.root.json", true, ""}, {"metadata/timestamp.json", true, ""}, {"metadata/2.snapshot.json", true, ""},
		{"metadata/2.targets.json", true, ""}, {"metadata/2.plan.json", true, ""},
		{"targets/releases/1.0.1/amd64/*.release.json", true, "expected sha256"}, {"targets/plan/*.stable.json", true, "expected sha256"},
		{"targets/releases/1.0.1/amd64/*.full.payload", false, "full.payload"},
	} {
		found, err := filepath.Glob(s.path("repo", c.file))
		if err != nil || len(found) != 1 {
			t.Fatalf("%s: %v, %v", c.file, found, err)
		}
		good, err := os.ReadFile(found[0])
		if err != nil {
			t.Fatal(err)
		}
		middle := len(good) / 2
		for what, bad := range map[string][]byte{
			"a changed byte":  append(append(bytes.Clone(good[:middle]), good[middle]^1), good[middle+1:]...),
			"the first half":  good[:middle],
			"nothing":         {},
			"no file":         nil,
			"a byte too many": append(bytes.Clone(good), 'x'),
		} {
			if bad == nil && strings.HasPrefix(c.file, "metadata/2.root") {
				continue // the newest root gone is the repository of before, with an anchor of before: nobody can tell
			}
			_ = os.Remove(found[0])
			if bad != nil {
				if err := os.WriteFile(found[0], bad, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			s.refusedSomehow("verify --repo {}/repo", what, found[0], c.want)
			if c.quick || len(bad) != len(good) {
				s.refusedSomehow("verify --repo {}/repo --quick", what, found[0], "")
			}
		}
		if err := os.WriteFile(found[0], good, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s.run("verify --repo {}/repo")
}

// refusedSomehow types a verify that must find something and name the file.
func (s *story) refusedSomehow(line, what, file, want string) {
	s.t.Helper()
	err := s.try(line)
	if err == nil || !strings.Contains(err.Error(), filepath.Base(file)) {
		s.t.Errorf("%s, %s: %s: got %v", file, what, line, err)
	}
	if what == "a changed byte" && err != nil && !strings.Contains(err.Error(), want) {
		s.t.Errorf("%s, %s: got %v, want %q", file, what, err, want)
	}
}

// Offline metadata that expires soon is spoken of by every command, and renewed with the offline keys.
func TestExpiryIsSpokenOf(t *testing.T) {
	s := newStory(t)
	s.run("init --repo {}/repo --keys {}/keys")
	s.run("status --repo {}/repo", "365 days")
	if strings.Contains(s.err, "warning") {
		t.Errorf("a new repository: %s", s.err)
	}
	s.now = s.now.Add(340 * 24 * time.Hour)
	for _, line := range []string{"refresh --repo {}/repo --keys {}/keys", "status --repo {}/repo", "verify --repo {}/repo", "stage --repo {}/repo {}/nothing"} {
		_ = s.try(line)
		for _, want := range []string{"1.root.json expires in 25 days (2027-01-01): run release renew --role root", "1.targets.json expires in 25 days"} {
			if !strings.Contains(s.err, want) {
				t.Errorf("%s: %q is not in %s", line, want, s.err)
			}
		}
	}
	s.run("renew --repo {}/repo --role root", "only the time of expiry", "2.root.json")
	s.run("renew --repo {}/repo --role targets", "no release changes")
	s.run("publish --repo {}/repo --keys {}/keys", "root 2, targets 2")
	s.run("status --repo {}/repo", "365 days")
	if strings.Contains(s.err, "warning") {
		t.Errorf("renewed: %s", s.err)
	}
	s.run("verify --repo {}/repo")
}

// A dry run does all but write.
func TestDryRun(t *testing.T) {
	s := newStory(t)
	build := repotest.NewBuild(t, "1.0.1")
	s.run("keys new --role root --out {}/keys --dry-run", "dry run")
	s.run("init --repo {}/repo --keys {}/keys --dry-run", "dry run")
	if files, _ := os.ReadDir(s.dir); len(files) > 0 {
		t.Fatalf("written: %v", files)
	}
	s.run("init --repo {}/repo --keys {}/keys")
	s.same("stage --fast --repo {}/repo --dry-run "+build.Dir, "nothing was written", "full.payload", "staged/request.json")
	s.run("stage --fast --repo {}/repo " + build.Dir)
	s.same("sign --repo {}/repo --keys {}/keys --dry-run", "0 of 1 needed")
	s.same("publish --repo {}/repo --keys {}/keys --channel stable --version 1.0.1 --dry-run", "metadata/2.targets.json", "metadata/timestamp.json")
	s.same("discard --repo {}/repo --dry-run", "dry run")
	s.run("publish --repo {}/repo --keys {}/keys --channel stable --version 1.0.1")
	s.same("plan --repo {}/repo --keys {}/keys --channel stable --halt --dry-run", "halted", "metadata/3.plan.json")
	s.same("refresh --repo {}/repo --keys {}/keys --dry-run", "metadata/timestamp.json")
	s.same("rotate --repo {}/repo --role root --add "+s.key("root")+".pub --dry-run", "+ role root")
	s.same("renew --repo {}/repo --dry-run", "2.root.json")
}

// tree lists the files below dir with their modes, sizes and hashes.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(p string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() || filepath.Base(p) == ".lock" {
			return err
		}
		content, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err == nil {
			fmt.Fprintf(&b, "%s: %v %d %s\n", p, info.Mode(), len(content), digest.Of(content))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestDiscard(t *testing.T) {
	s := newStory(t)
	s.run("init --repo {}/repo --keys {}/keys")
	s.run("discard --repo {}/repo", "nothing is staged")
	before := tree(t, s.path("repo"))
	build := repotest.NewBuild(t, "1.0.1")
	s.run("stage --fast --repo {}/repo " + build.Dir)
	s.run("discard --repo {}/repo", "discarded")
	if after := tree(t, s.path("repo")); after != before {
		t.Errorf("got\n%s\nwant\n%s", after, before)
	}
	s.run("stage --fast --repo {}/repo "+build.Dir, "1.0.1")
}

func TestArguments(t *testing.T) {
	s := newStory(t)
	for line, want := range map[string]string{
		"bild":                                  "unknown command",
		"stage --repo x":                        "got 0 arguments",
		"stage x":                               "--repo is missing",
		"publish --repo x":                      "--keys is missing",
		"publish --repo x --keys x --version 1": "--channel is missing",
		"plan --repo x --keys x --channel a":    "what changes",
		"plan --repo x --keys x --channel a --halt --resume":      "contradict",
		"plan --repo x --keys x --channel a --not-before monday":  "+36h",
		"plan --repo x --keys x --channel a --waves half":         "5@+0h,100@+24h",
		"plan --repo x --keys x --channel a --waves 50@none":      `--waves "none"`,
		"plan --repo x --keys x --channel a --waves 50@+2h,9@+4h": "not later and larger",
		"rotate --repo x --role admin --threshold 1":              "root|targets",
		"sign":                              "--repo or --request",
		"keys old":                          "keys new",
		"verify --repo https://example.org": "--root is missing",
		"completion csh":                    "unknown shell",
		"status --bad":                      "release help status",
		"":                                  "no command",
	} {
		s.refused(line, exitUsage, want)
	}
	t.Setenv("PROA_REPO", s.path("repo"))
	t.Setenv("PROA_KEYS", s.path("keys"))
	s.run("init")
	s.run("status", "no channel has a release yet")
	s.refused("stage {}", exitError, "release.json")
}

// Every command has a whole manual page, each flag in it with a usage, and --help prints the same.
func TestHelp(t *testing.T) {
	s := newStory(t)
	s.run("help", "rotate", "PROA_REPO", "--dry-run")
	for _, c := range program(Streams{}).Commands {
		s.run("help "+c.Name, "NAME\n", "\nSYNOPSIS\n", "\nDESCRIPTION\n", "\nEXIT STATUS\n", "\nEXAMPLES\n", "--json")
		page := s.out
		c.Flags().VisitAll(func(f *flag.Flag) {
			if f.Usage == "" || !strings.Contains(page, "--"+f.Name) {
				t.Errorf("%s: --%s is not explained", c.Name, f.Name)
			}
		})
		for line := range strings.Lines(page) {
			if len(line) > command.Width+1 && !strings.Contains(line, "release ") {
				t.Errorf("%s: a line of %d characters: %s", c.Name, len(line), line)
			}
		}
		s.run(c.Name + " --help")
		if s.out != page {
			t.Errorf("%s --help is not the page of help %[1]s", c.Name)
		}
	}
}

// The small command that stays refreshes again and again, goes on after an error, and ends when it is told to.
func TestRefreshEvery(t *testing.T) {
	s := newStory(t)
	s.run("init --repo {}/repo --keys {}/keys")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	keys, err := filepath.Glob(s.path("keys", "timestamp-*.pem"))
	if err != nil || len(keys) != 1 {
		t.Fatal(keys, err)
	}
	var out, problems bytes.Buffer
	times := 0
	now := func() time.Time { // it is asked in each round
		switch times++; times {
		case 5:
			_ = os.Rename(keys[0], keys[0]+".away")
		case 10:
			_ = os.Rename(keys[0]+".away", keys[0])
		case 30:
			cancel()
		}
		return s.now
	}
	err = Run(ctx, Streams{Out: &out, Err: &problems, Now: now}, []string{"refresh", "--repo", s.path("repo"), "--keys", s.path("keys"), "--every", "1ms"})
	if err != nil || ctx.Err() != context.Canceled {
		t.Fatalf("%v, %v", err, ctx.Err())
	}
	if n := strings.Count(out.String(), "good until 2026-01-02T12:00:00Z"); n < 3 || !strings.Contains(problems.String(), "0 of 1 needed keys at hand") {
		t.Errorf("%d times, %s", n, problems.String())
	}
	s.run("verify --repo {}/repo")
}

// Over HTTP a repository is read as a machine does.
func TestVerifyURL(t *testing.T) {
	s := newStory(t)
	s.run("init --repo {}/repo --keys {}/keys")
	s.run("stage --fast --repo {}/repo " + repotest.NewBuild(t, "1.0.1").Dir)
	s.run("publish --repo {}/repo --keys {}/keys --channel beta --version 1.0.1")
	root, err := os.OpenRoot(s.path("repo"))
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	web := httptest.NewServer(server.Handler(root))
	defer web.Close()
	s.run("verify --repo "+web.URL+" --root {}/repo/metadata/1.root.json --channel beta", "a machine of channel beta gets release 1.0.1")
	s.refused("verify --repo "+web.URL+" --root {}/repo/metadata/1.root.json", exitError, "plan/stable.json")
	for _, private := range []string{"/.lock", "/staged/request.json", "/metadata/"} {
		r, err := http.Get(web.URL + private)
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		if r.StatusCode != http.StatusNotFound {
			t.Errorf("%s is served: %s", private, r.Status)
		}
	}
}
