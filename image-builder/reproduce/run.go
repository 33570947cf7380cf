package reproduce

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/proa-os/proa/internal/digest"
)

// Options say what Run works on.
type Options struct {
	Version   string // semver of the release
	Module    string // the checkout
	CacheDir  string // with the packages
	First     string // artifacts of a build that is there already, to compare the second one with; "" makes one
	Dir       string // of the first build
	Elsewhere string // directory for the second build, which any user may enter
	Progress  io.Writer
}

// nobody is the unprivileged user of the second build.
const nobody = 65534

// A Report says what was compared.
type Report struct {
	First      string      `json:"first"` // directories of the artifacts; they are kept if there is a difference
	Second     string      `json:"second"`
	Files      []File      `json:"files"`      // of the first build
	Difference *Difference `json:"difference"` // nil if every artifact is the same
}

// A File is an artifact.
type File struct {
	Name   string        `json:"name"`
	Size   int64         `json:"size"` // bytes
	SHA256 digest.SHA256 `json:"sha256"`
}

// Print writes what a person wants to see.
func (r *Report) Print(w io.Writer) error {
	if r.Difference != nil {
		_, err := fmt.Fprintf(w, "NOT reproducible: %v\n  first build   %s\n  second build  %s\n", r.Difference, r.First, r.Second)
		return err
	}
	for _, f := range r.Files {
		fmt.Fprintf(w, "  %s  %s\n", f.SHA256, f.Name)
	}
	_, err := fmt.Fprintf(w, "reproducible: %d artifacts are the same in both builds\n", len(r.Files))
	return err
}

// list returns the artifacts in dir with their sums.
func list(dir string) ([]File, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var all []File
	for _, e := range entries {
		f, err := os.Open(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		sum, n, err := digest.OfReader(f)
		f.Close()
		if err != nil {
			return nil, err
		}
		all = append(all, File{e.Name(), n, sum})
	}
	return all, nil
}

// Run builds twice and compares.
func Run(ctx context.Context, o Options) (*Report, error) {
	for _, dir := range []*string{&o.Module, &o.CacheDir, &o.Dir, &o.Elsewhere} {
		abs, err := filepath.Abs(*dir) // the builds run elsewhere
		if err != nil {
			return nil, fmt.Errorf("reproduce: %w", err)
		}
		*dir = abs
	}
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("reproduce: %w", err)
	}
	first, err := os.MkdirTemp(o.Dir, "first-")
	if err != nil {
		return nil, fmt.Errorf("reproduce: %w", err)
	}
	second, err := os.MkdirTemp(o.Elsewhere, "proa-reproduce-")
	if err != nil {
		return nil, fmt.Errorf("reproduce: %w", err)
	}
	keep := false
	defer func() {
		if !keep {
			remove(first)
			remove(second)
		}
	}()
	builds, err := o.prepare(ctx, first, second)
	if err != nil {
		return nil, fmt.Errorf("reproduce: %w", err)
	}
	for _, b := range builds {
		fmt.Fprintf(o.Progress, "== the %s build: %s\n", b.name, b.how)
		start := time.Now()
		if err := b.run(ctx, o); err != nil {
			return nil, fmt.Errorf("reproduce: the %s build: %w", b.name, err)
		}
		fmt.Fprintf(o.Progress, "== the %s build took %.0f s\n", b.name, time.Since(start).Seconds())
	}
	r := &Report{First: o.First, Second: builds[len(builds)-1].out}
	if r.First == "" {
		r.First = builds[0].out
	}
	if r.Difference, err = Compare(r.First, r.Second); err != nil {
		return nil, err
	}
	keep = r.Difference != nil
	if r.Files, err = list(r.First); err != nil {
		return nil, fmt.Errorf("reproduce: %w", err)
	}
	return r, nil
}

// build is one of the two.
type build struct {
	name, how string
	checkout  string
	out       string
	umask     string
	env       []string
	user      *syscall.Credential
}

func (o *Options) prepare(ctx context.Context, first, second string) ([]*build, error) {
	files, err := sources(ctx, o.Module)
	if err != nil {
		return nil, err
	}
	a := &build{name: "first", how: "as you", checkout: filepath.Join(first, "checkout"), out: filepath.Join(first, "built"), umask: "022",
		env: []string{"TZ=UTC", "PROA_CACHE=" + o.CacheDir}}
	b := &build{name: "second", how: "another place, time zone, locale and umask", umask: "077",
		checkout: filepath.Join(second, "a much longer path to the", "checkout"), out: filepath.Join(second, "built")}
	builds := []*build{b}
	if o.First == "" {
		if err := copyCheckout(o.Module, a.checkout, files, time.Now()); err != nil {
			return nil, err
		}
		builds = []*build{a, b}
	}
	if err := copyCheckout(o.Module, b.checkout, files, time.Date(2019, 2, 3, 4, 5, 6, 0, time.UTC)); err != nil {
		return nil, err
	}
	dirs := map[string]string{"HOME": "home", "GOCACHE": "gocache", "PROA_CACHE": "packages", "TMPDIR": "tmp"}
	b.env = []string{"TZ=Pacific/Auckland", "LC_ALL=tr_TR.UTF-8", "LANG=tr_TR.UTF-8", "USER=nobody", "LOGNAME=nobody", "GOTOOLCHAIN=local"}
	for name, dir := range dirs {
		if err := os.Mkdir(filepath.Join(second, dir), 0o755); err != nil {
			return nil, err
		}
		b.env = append(b.env, name+"="+filepath.Join(second, dir))
	}
	if err := linkAll(filepath.Join(o.CacheDir, "debs"), filepath.Join(second, "packages", "debs")); err != nil {
		return nil, err
	}
	goDirs, err := goEnv(ctx, "GOROOT", "GOMODCACHE")
	if err != nil {
		return nil, err
	}
	other := os.Getuid() == 0
	if closed := closedTo(goDirs[0]); other && closed != "" {
		fmt.Fprintf(o.Progress, "== NOT CHECKED as another user: nobody but root may enter %s, and Go is below it\n", closed)
		other = false
	}
	modules, err := b.modules(ctx, goDirs[1], second, other)
	if err != nil {
		return nil, err
	}
	b.env = append(b.env, modules...)
	if other {
		b.how += fmt.Sprintf(", as user %d", nobody)
		b.user = &syscall.Credential{Uid: nobody, Gid: nobody}
		if err := errors.Join(os.Chmod(second, 0o755), handOver(second)); err != nil {
			return nil, err
		}
	}
	return builds, nil
}

// run builds with the builder of the build's own checkout.
func (b *build) run(ctx context.Context, o Options) error {
	// Only a shell can set the umask of one child.
	args := []string{"-c", "umask " + b.umask + ` && exec go run ./image-builder/cmd/image-builder build --no-cache "$@"`, "sh", "--version", o.Version, "--out", b.out}
	cmd := exec.CommandContext(ctx, "sh", args...)
	cmd.Dir = b.checkout
	cmd.Env = append(os.Environ(), b.env...)
	cmd.Env = append(cmd.Env, "PWD="+b.checkout, "CGO_ENABLED=0")
	cmd.Stdout, cmd.Stderr = o.Progress, o.Progress
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: b.user}
	return cmd.Run()
}

// goEnv returns values of go env.
func goEnv(ctx context.Context, names ...string) ([]string, error) {
	out, err := exec.CommandContext(ctx, "go", append([]string{"env"}, names...)...).Output()
	if err != nil {
		return nil, fmt.Errorf("ask go for %s: %w", strings.Join(names, " and "), err)
	}
	values := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(values) != len(names) {
		return nil, fmt.Errorf("ask go for %s: got %q", strings.Join(names, " and "), values)
	}
	return values, nil
}

// closedTo returns the directory on the way to dir, or dir, that other users may not enter, or "".
func closedTo(dir string) string {
	for d := dir; ; d = filepath.Dir(d) {
		if fi, err := os.Stat(d); err != nil || fi.Mode().Perm()&0o001 == 0 {
			return d
		}
		if d == filepath.Dir(d) {
			return ""
		}
	}
}

// modules returns the environment by which the second build finds the Go modules: the caller's cache, or for another user, who may not
// be able to read that, a new one that is filled from it.
func (b *build) modules(ctx context.Context, cache, second string, other bool) ([]string, error) {
	if !other {
		return []string{"GOMODCACHE=" + cache}, nil
	}
	own := filepath.Join(second, "modules")
	env := []string{"GOMODCACHE=" + own, "GOFLAGS=-modcacherw", "GOSUMDB=off"} // go.sum still rules
	cmd := exec.CommandContext(ctx, "go", "list", "-deps", "./...")
	cmd.Dir = b.checkout
	cmd.Env = append(os.Environ(), append(env, "GOPROXY=file://"+filepath.Join(cache, "cache", "download"))...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("copy the Go modules: %w\n%s", err, strings.TrimSpace(stderr.String()))
	}
	return append(env, "GOPROXY=off"), nil
}

// remove removes a tree in which directories may be read-only.
func remove(dir string) {
	filepath.WalkDir(dir, func(name string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			os.Chmod(name, 0o755)
		}
		return nil
	})
	os.RemoveAll(dir)
}

// handOver gives everything below dir to the second build's user, but for the packages, which it only reads.
func handOver(dir string) error {
	return filepath.WalkDir(dir, func(name string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if strings.HasSuffix(name, ".deb") && d.Type().IsRegular() {
			return nil
		}
		return os.Lchown(name, nobody, nobody)
	})
}
