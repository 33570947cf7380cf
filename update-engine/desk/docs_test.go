package desk

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/proa-os/proa/internal/registrytest"
	"github.com/proa-os/proa/update-engine/config"
	"github.com/proa-os/proa/update-engine/repotest"
	"github.com/proa-os/proa/update-engine/stick"
)

// A reader of docs/releasing.md types its commands, one block after the other, in a folder of its own. Where the text cannot know a
// name (a key's, a medium's), the reader puts in the one at hand, as the text says.
type reader struct {
	*story
	registry string // the reader's
	typed    int
}

// TestReleasingDoc types every command of docs/releasing.md, in the order of the text.
func TestReleasingDoc(t *testing.T) {
	doc, err := os.ReadFile("../../docs/releasing.md")
	if err != nil {
		t.Fatal(err)
	}
	makefile, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(doc), -1)
	if len(blocks) < 5 {
		t.Fatalf("%d blocks of commands", len(blocks))
	}
	registry, err := registrytest.Start("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer registry.Close()
	r := &reader{story: newStory(t), registry: "oci+http://" + registry.Addr}
	t.Chdir(r.dir)
	for _, b := range blocks {
		for line := range strings.Lines(b[1]) {
			line, _, _ = strings.Cut(line, "#")
			for c := range strings.SplitSeq(line, "&&") {
				if c = strings.TrimSpace(c); c != "" {
					r.typed++
					r.types(c, string(makefile))
				}
			}
		}
	}
	r.run("verify")
	t.Logf("%d commands", r.typed)

	example := regexp.MustCompile("`({\"server\".*})`").FindSubmatch(doc)
	if example == nil {
		t.Fatal("no example of a machine's configuration")
	}
	if c, err := config.Parse(example[1]); err != nil || c.Channel != "stable" {
		t.Errorf("the machine's configuration: %+v, %v", c, err)
	}
}

// types does one command.
func (r *reader) types(line, makefile string) {
	r.t.Helper()
	if strings.Contains(line, "...") {
		r.t.Fatalf("nobody can type this: %s", line)
	}
	name, args, _ := strings.Cut(line, " ")
	switch name {
	case "export":
		for _, v := range strings.Fields(args) {
			key, value, _ := strings.Cut(v, "=")
			r.t.Setenv(key, value)
		}
	case "go", "PATH=$PWD:$PATH": // how the program was built and is found is not this test's business
	case "make":
		r.makes(args, makefile)
	case "cp":
		line = strings.NewReplacer("/media/", r.path("media")+"/", "/mnt/", r.path("mnt")+"/").Replace(line)
		cmd := exec.CommandContext(r.t.Context(), "sh", "-c", line)
		if out, err := cmd.CombinedOutput(); err != nil {
			r.t.Fatalf("%s: %v: %s", line, err, out)
		}
	case "mkfs.vfat":
		if !strings.HasPrefix(args, "-n "+stick.Label+" ") {
			r.t.Errorf("%s: machines look for the label %s", line, stick.Label)
		}
	case "mount": // the stick is a folder here
		if err := os.MkdirAll(r.path("mnt"), 0o755); err != nil {
			r.t.Fatal(err)
		}
	case "umount":
		r.run("verify --repo " + r.path("mnt"))
	case "release":
		r.releases(args)
	default:
		r.t.Fatalf("a command that nobody has tried: %s", line)
	}
}

// makes does what a target leaves behind: an image is a small build with the name of the real one.
func (r *reader) makes(args, makefile string) {
	r.t.Helper()
	target := strings.Fields(args)[0]
	if !regexp.MustCompile(`(?m)^` + target + `:.*##`).MatchString(makefile) {
		r.t.Errorf("make %s: the Makefile has no such target", target)
	}
	if _, version, ok := strings.Cut(args, "VERSION="); ok && target == "image" {
		if err := os.CopyFS(r.path("out", version), os.DirFS(repotest.NewBuild(r.t, version).Dir)); err != nil {
			r.t.Fatal(err)
		}
	}
}

// releases types a command of the program, once for each key where the text means each.
func (r *reader) releases(args string) {
	r.t.Helper()
	args = strings.NewReplacer("/media/", r.path("media")+"/", "oci://registry.example.org", r.registry).Replace(args)
	switch {
	case strings.HasPrefix(args, "keys new"):
		r.newKeys(args)
	case strings.HasPrefix(args, "sign --request"):
		r.signs(args)
	case strings.HasPrefix(args, "sign --merge"):
		r.run(args, "took over")
	case strings.HasPrefix(args, "rotate"):
		r.rotates(args)
	case strings.Contains(args, "--every"):
		r.serves(args)
	default:
		r.run(args)
	}
}

// newKeys makes the first medium's keys of root and targets on a second and a third one, too, and new keys of all online roles.
func (r *reader) newKeys(args string) {
	r.t.Helper()
	media := []string{"first"}
	if strings.Contains(args, "/first") {
		media = []string{"first", "second", "third"}
	}
	for _, m := range media {
		r.run(strings.Replace(args, "/first", "/"+m, 1))
	}
	if strings.Contains(args, "--role snapshot --out new") {
		for _, role := range []string{"timestamp", "plan"} {
			r.run(strings.Replace(args, "snapshot", role, 1))
		}
	}
}

// signs takes a copy of the request to every key that may sign it; at least as many must as are needed.
func (r *reader) signs(args string) {
	r.t.Helper()
	signed := 0
	for _, key := range r.glob("media/*/*.pem") {
		words := strings.Fields(args)
		words[slices.Index(words, "--key")+1] = key
		if i := slices.Index(words, "--root"); i > 0 {
			words[i+1] = r.path("1.root.json")
		}
		err := r.try(strings.Join(words, " "))
		if err == nil {
			signed++
		} else if !strings.Contains(err.Error(), "no key at hand may sign this") {
			r.t.Fatalf("release %s: %v", strings.Join(words, " "), err)
		}
	}
	if signed < 2 {
		r.t.Fatalf("%d keys may sign: %s", signed, r.out)
	}
}

// rotates puts a new key in the place of the oldest one; the names of both are the reader's.
func (r *reader) rotates(args string) {
	r.t.Helper()
	words := strings.Fields(args)
	role := words[slices.Index(words, "--role")+1]
	where := map[bool]string{true: "online", false: "media/first"}[role == "snapshot" || role == "timestamp" || role == "plan"]
	old := r.glob(where + "/" + role + "-*.pem")[0]
	add := append(r.glob("media/fourth/"+role+"-*.pub"), r.glob("new/"+role+"-*.pub")...)
	if len(add) != 1 {
		r.t.Fatalf("the text makes no new key of role %s: %q", role, add)
	}
	words[slices.Index(words, "--add")+1] = add[0]
	words[slices.Index(words, "--remove")+1] = id(strings.TrimSuffix(old, ".pem"))
	r.run(strings.Join(words, " "), "+ role "+role, "- role "+role)
}

// serves runs a command that stays until it has done its work once.
func (r *reader) serves(args string) {
	r.t.Helper()
	ctx, cancel := context.WithCancel(r.t.Context())
	defer cancel()
	out := &once{then: cancel}
	if err := Run(ctx, Streams{Out: out, Err: &out.Buffer, Now: func() time.Time { return r.now }}, strings.Fields(args)); err != nil || !strings.Contains(out.String(), "good until") {
		r.t.Fatalf("release %s: %v\n%s", args, err, out)
	}
}

// once calls then after the first write.
type once struct {
	bytes.Buffer
	then func()
}

func (o *once) Write(p []byte) (int, error) {
	n, err := o.Buffer.Write(p)
	if bytes.Contains(o.Bytes(), []byte("good until")) {
		o.then()
	}
	return n, err
}

func (r *reader) glob(pattern string) []string {
	r.t.Helper()
	found, err := filepath.Glob(r.path(pattern))
	if err != nil {
		r.t.Fatal(err)
	}
	return found
}
