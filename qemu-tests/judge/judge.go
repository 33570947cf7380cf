package judge

import (
	"context"
	_ "embed"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

// Options say what to hold against what.
type Options struct {
	Runtime    string // the program that is judged
	Runc, Crun string // a checkout or a git directory of each; "" for not this suite
	Out        string // where the table goes
	Only       string // a word in the names of the files to run; "" for all
	Listing    *Listing
	Progress   io.Writer
}

//go:embed runc.sh
var runcScript string

//go:embed crun.sh
var crunScript string

// perFile is how long a file of a suite may take.
const perFile = 3 * time.Minute

// A suite is one that has been made ready.
type suite struct {
	name  string
	dir   string   // where its files run
	files []string // in order
	env   []string
	argv  func(file string) []string
	all   func(file string) ([]string, error) // names of its tests, where some can be left out
}

// Run runs the suites and returns all results, sorted as they came.
func Run(ctx context.Context, o Options) ([]Result, error) {
	scratch, err := os.MkdirTemp("", "judge-runtime")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(scratch)
	if err := os.Chmod(scratch, 0o755); err != nil { // users of other namespaces go through
		return nil, err
	}
	var out []Result
	for _, s := range []struct {
		name, from string
		prepare    func(ctx context.Context, dir, scripts string) (*suite, error)
	}{{"runc", o.Runc, prepareRunc}, {"crun", o.Crun, prepareCrun}} {
		if s.from == "" {
			continue
		}
		dir, scripts := filepath.Join(scratch, s.name), filepath.Join(scratch, s.name+"-scripts")
		if err := os.Mkdir(scripts, 0o755); err != nil {
			return nil, err
		}
		if err := copySource(ctx, s.from, dir); err != nil {
			return nil, err
		}
		ready, err := s.prepare(ctx, dir, scripts)
		if err != nil {
			return nil, fmt.Errorf("prepare %s's suite: %w", s.name, err)
		}
		runtime, err := filepath.Abs(o.Runtime)
		if err != nil {
			return nil, err
		}
		ready.env = append(ready.env, "JUDGE_RUNTIME="+runtime, "PATH="+scripts+":"+os.Getenv("PATH"), "TMPDIR="+scratch, "GOFLAGS=")
		out = append(out, ready.runAll(ctx, o)...)
	}
	return out, ctx.Err()
}

func writeScript(name, text string) error { return os.WriteFile(name, []byte(text), 0o755) }

func prepareRunc(ctx context.Context, dir, scripts string) (*suite, error) {
	if err := need("bats", "jq", "gcc", "busybox", "tar", "xz", "unshare", "ip", "losetup", "nsenter", "prlimit"); err != nil {
		return nil, err
	}
	agent, err := buildRunc(ctx, dir, scripts)
	if err != nil {
		return nil, err
	}
	tests := filepath.Join(dir, "tests/integration")
	if err := packBusybox(ctx, filepath.Join(tests, "testdata/busybox-amd64.tar.xz")); err != nil {
		return nil, err
	}
	if err := packShell(ctx, filepath.Join(tests, "testdata/debian-amd64.tar.xz")); err != nil {
		return nil, err
	}
	program := filepath.Join(scripts, "runc")
	if err := writeScript(program, runcScript); err != nil {
		return nil, err
	}
	if _, err := exec.LookPath("gawk"); err != nil { // of which busybox's has what is used
		if err := writeScript(filepath.Join(scripts, "gawk"), "#!/bin/sh\nexec busybox awk \"$@\"\n"); err != nil {
			return nil, err
		}
	}
	files, err := names(tests, "*.bats")
	if !agent {
		fmt.Fprintln(os.Stderr, "judge-runtime: NOT RUN: seccomp-notify.bats, whose agent needs libseccomp's headers")
		files = slices.DeleteFunc(files, func(f string) bool { return f == "seccomp-notify.bats" })
	}
	return &suite{name: "runc", dir: tests, files: files, env: []string{"RUNC=" + program, "JUDGE_RUNC=" + filepath.Join(scripts, "suite-runc")},
		argv: func(file string) []string { return []string{"bats", "--tap", file} }}, err
}

func prepareCrun(ctx context.Context, dir, scripts string) (*suite, error) {
	if err := need("python3", "gcc", "unshare", "ip"); err != nil {
		return nil, err
	}
	tests, init := filepath.Join(dir, "tests"), filepath.Join(scripts, "init")
	if err := os.WriteFile(filepath.Join(scripts, "config.h"), nil, 0o644); err != nil {
		return nil, err
	}
	if err := run(ctx, tests, nil, "gcc", "-O1", "-static", "-D_GNU_SOURCE", "-I", scripts, "-o", init, "init.c"); err != nil {
		return nil, err
	}
	program := filepath.Join(scripts, "crun")
	if err := writeScript(program, crunScript); err != nil {
		return nil, err
	}
	files, err := names(tests, "test_*.py")
	return &suite{name: "crun", dir: tests, files: files, env: []string{"OCI_RUNTIME=" + program, "INIT=" + init, "PYTHONDONTWRITEBYTECODE=1", "PYTHONUNBUFFERED=1"},
		argv: func(file string) []string { return []string{"python3", file} },
		all: func(file string) ([]string, error) {
			c := exec.CommandContext(ctx, "python3", "-c", "import importlib, sys; print(' '.join(importlib.import_module(sys.argv[1]).all_tests))", strings.TrimSuffix(file, ".py"))
			c.Dir = tests
			text, err := c.Output()
			return strings.Fields(string(text)), err
		}}, err
}

func names(dir, pattern string) ([]string, error) {
	list, err := filepath.Glob(filepath.Join(dir, pattern))
	if err == nil && len(list) == 0 {
		err = fmt.Errorf("%s: no %s there", dir, pattern)
	}
	for i := range list {
		list[i] = filepath.Base(list[i])
	}
	return list, err
}

func (s *suite) runAll(ctx context.Context, o Options) []Result {
	var out []Result
	for _, file := range s.files {
		if !strings.Contains(file, o.Only) || ctx.Err() != nil {
			continue
		}
		results := s.runFile(ctx, file, o)
		for i := range results {
			results[i].Suite, results[i].File = s.name, file
		}
		o.Listing.judge(results)
		count := Count(results)
		fmt.Fprintf(o.Progress, "%-5s %-36s %3d pass %3d known %3d skip %3d FAIL\n", s.name, file, count[Passed], count[Known], count[Skipped], count[Failed])
		out = append(out, results...)
	}
	return out
}

// runFile runs one file in a room of its own and keeps what it said.
func (s *suite) runFile(ctx context.Context, file string, o Options) []Result {
	env := s.env
	never := o.Listing.neverRun(s.name, file)
	if len(never) > 0 && s.all != nil {
		all, err := s.all(file)
		if err != nil {
			return []Result{{Test: cutShort, Verdict: Failed, Reason: fmt.Sprintf("list its tests: %v", err)}}
		}
		all = slices.DeleteFunc(all, func(t string) bool { return slices.Contains(never, t) })
		env = append(env[:len(env):len(env)], "RUN_TESTS="+strings.Join(all, " "))
	}
	ctx, stop := context.WithTimeout(ctx, perFile)
	defer stop()
	log, err := os.Create(filepath.Join(o.Out, s.name+"-"+file+".log"))
	if err != nil {
		return []Result{{Test: cutShort, Verdict: Failed, Reason: err.Error()}}
	}
	defer log.Close()
	args := append([]string{"--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private", "sh", "-c", `ip link set lo up; "$@"`, "sh"}, s.argv(file)...)
	c := exec.Command("unshare", args...)
	c.Dir, c.Env, c.Stdout, c.Stderr = s.dir, append(os.Environ(), env...), log, log
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := c.Start(); err != nil {
		return []Result{{Test: cutShort, Verdict: Failed, Reason: err.Error()}}
	}
	wait(ctx, c, log.Name())
	tidy()
	// Each room has the same pids, of which crun's programs name a folder that must not be there.
	left, _ := filepath.Glob(filepath.Join(s.dir, ".testsuite-run-*"))
	for _, dir := range left {
		os.RemoveAll(dir)
	}
	text, err := os.ReadFile(log.Name())
	if err != nil {
		return []Result{{Test: cutShort, Verdict: Failed, Reason: err.Error()}}
	}
	return parseTAP(string(text))
}

// wait waits for the end of a file's room, and ends it when time is up, or when all has been said and only somebody whom a test has left
// behind holds the output open.
func wait(ctx context.Context, c *exec.Cmd, log string) {
	done := make(chan error, 1)
	go func() { done <- c.Wait() }()
	look := time.NewTicker(5 * time.Second)
	defer look.Stop()
	for idle := 0; idle < 3; {
		select {
		case <-done:
			return
		case <-look.C:
			idle++
			if text, err := os.ReadFile(log); err != nil || slices.ContainsFunc(parseTAP(string(text)), func(r Result) bool { return r.Test == cutShort }) {
				idle = 0
			}
			continue
		case <-ctx.Done():
		}
		break
	}
	c.Process.Kill() // and with it the first process of the room
	tidy()           // who is frozen does not end
	<-done
}

// Count counts verdicts.
func Count(results []Result) map[Verdict]int {
	out := make(map[Verdict]int)
	for _, r := range results {
		out[r.Verdict]++
	}
	return out
}

// WriteTable writes all results, one a line.
func WriteTable(w io.Writer, results []Result) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, r := range results {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", r.Verdict, r.Suite, r.File, r.Test, r.Reason)
	}
	return t.Flush()
}

// Report tells what counts, and whether nothing new has failed.
func Report(w io.Writer, results []Result, l *Listing) bool {
	suites := make(map[string][]Result)
	for _, r := range results {
		suites[r.Suite] = append(suites[r.Suite], r)
	}
	for _, name := range slices.Sorted(maps.Keys(suites)) {
		c := Count(suites[name])
		fmt.Fprintf(w, "%s: %d passed, %d known not to pass, %d skipped by the suite, %d new failures\n", name, c[Passed], c[Known], c[Skipped], c[Failed])
	}
	for _, line := range l.unused(results) {
		fmt.Fprintf(w, "listed, but passes or is gone: %s\n", line)
	}
	good := true
	for _, r := range results {
		if r.Verdict == Failed {
			good = false
			fmt.Fprintf(w, "NEW FAILURE: %s %s %s %s\n", r.Suite, r.File, r.Test, r.Reason)
		}
	}
	return good
}
