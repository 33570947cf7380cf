package judge

import (
	"context"
	_ "embed"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/proa-os/proa/internal/tooltree"
)

// TUFOptions say what to hold against the TUF project's conformance suite.
type TUFOptions struct {
	Client        string // the program that is judged, tuf-client
	Suite         string // a checkout or a git directory of tuf-conformance
	Out           string // where the suite's output goes
	Tools, Judges *tooltree.Tree
	Listing       *Listing
	Progress      io.Writer
}

//go:embed faketime.sh
var faketimeScript string

// TUFSuite is the name of the suite in results and in known.txt.
const TUFSuite = "tuf"

// RunTUF runs the suite and returns all results. Python and python-tuf are those of the tools tree, pytest that of the judges' one.
func RunTUF(ctx context.Context, o TUFOptions) ([]Result, error) {
	scratch, err := os.MkdirTemp("", "judge-tuf")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(scratch)
	suite, scripts := filepath.Join(scratch, "suite"), filepath.Join(scratch, "bin")
	if err := copySource(ctx, o.Suite, suite); err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(suite, "tuf_conformance")); err != nil {
		return nil, fmt.Errorf("%s is no copy of tuf-conformance: name a checkout or a git directory of theupdateframework/tuf-conformance: %w", o.Suite, err)
	}
	if err := os.Mkdir(scripts, 0o755); err != nil {
		return nil, err
	}
	if err := writeScript(filepath.Join(scripts, "faketime"), faketimeScript); err != nil {
		return nil, err
	}
	client, err := filepath.Abs(o.Client)
	if err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(o.Out, "tuf.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	report := filepath.Join(scratch, "report.xml")
	c := o.Tools.Command(ctx, "python3.13", "-m", "pytest", "-v", "-p", "no:cacheprovider", "--junit-xml="+report, "tuf_conformance", "--entrypoint", client)
	if c.Err != nil {
		return nil, c.Err
	}
	c.Dir, c.Stdout, c.Stderr = suite, io.MultiWriter(log, o.Progress), log
	const packages = "usr/lib/python3/dist-packages"
	c.Env = append(c.Env, "PYTHONHOME="+o.Tools.Path("usr"), "PYTHONPATH="+o.Tools.Path(packages)+":"+o.Judges.Path(packages), "PYTHONDONTWRITEBYTECODE=1",
		"PYTHONUNBUFFERED=1", "PATH="+scripts+":"+os.Getenv("PATH"), "TMPDIR="+scratch, "no_proxy=*")
	ended := c.Run()
	var exit *exec.ExitError
	if ended != nil && !errors.As(ended, &exit) {
		return nil, fmt.Errorf("run the suite: %w", ended)
	}
	b, err := os.ReadFile(report)
	if err != nil {
		return nil, errors.Join(ctx.Err(), fmt.Errorf("the suite has made no report, %s says why: %w", log.Name(), err))
	}
	results, err := parseJUnit(b)
	if err != nil {
		return nil, err
	}
	o.Listing.judge(results)
	return results, nil
}

// parseJUnit reads pytest's report of its tests, a suite of which one is missing has failed.
func parseJUnit(b []byte) ([]Result, error) {
	var report struct {
		Suites []struct {
			Tests int `xml:"tests,attr"`
			Cases []struct {
				Class   string    `xml:"classname,attr"`
				Name    string    `xml:"name,attr"`
				Failure *struct{} `xml:"failure"`
				Error   *struct{} `xml:"error"`
				Skipped *struct {
					Why string `xml:"message,attr"`
				} `xml:"skipped"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal(b, &report); err != nil {
		return nil, fmt.Errorf("read the suite's report: %w", err)
	}
	var out []Result
	for _, s := range report.Suites {
		for _, c := range s.Cases {
			r := Result{Suite: TUFSuite, File: file(c.Class), Test: c.Name, Verdict: Passed}
			switch {
			case c.Failure != nil || c.Error != nil:
				r.Verdict = Failed
			case c.Skipped != nil:
				r.Verdict, r.Reason = Skipped, c.Skipped.Why
			}
			out = append(out, r)
		}
		if len(s.Cases) < s.Tests {
			out = append(out, Result{Suite: TUFSuite, Test: cutShort, Verdict: Failed, Reason: fmt.Sprintf("%d of %d", len(s.Cases), s.Tests)})
		}
	}
	if len(out) == 0 {
		return nil, errors.New("read the suite's report: not one test was run")
	}
	return out, nil
}

// file is the one that holds a class of tests: tuf_conformance.test_basic becomes test_basic.py.
func file(class string) string {
	for part := range strings.SplitSeq(class, ".") {
		if strings.HasPrefix(part, "test_") {
			return part + ".py"
		}
	}
	return class
}
