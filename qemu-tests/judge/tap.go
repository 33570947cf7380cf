package judge

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// A Verdict is what became of one test.
type Verdict string

// The verdicts.
const (
	Passed  Verdict = "pass"
	Skipped Verdict = "skip"
	Failed  Verdict = "FAIL" // and not known to
	Known   Verdict = "known"
)

// A Result is one line of the table.
type Result struct {
	Suite, File, Test string
	Verdict           Verdict
	Reason            string // of a skip, or why it is known not to pass
}

var (
	planLine   = regexp.MustCompile(`^1\.\.(\d+)`)
	resultLine = regexp.MustCompile(`^(not ok|ok) \d+ (?:- )?(.*)$`)
	duration   = regexp.MustCompile(`\s*# \d+(\.\d+)?s$`)
	skipMark   = regexp.MustCompile(`\s*#\s?(?:skip|SKIP)\b\s*(.*)$`)
)

// cutShort is the test that stands for those which a file has planned and not reported.
const cutShort = "(the file ends before its plan is fulfilled)"

// parseTAP reads what bats and crun's programs print: testanything.org, version 12, with a duration behind.
func parseTAP(text string) []Result {
	var out []Result
	planned := -1
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		if m := planLine.FindStringSubmatch(line); m != nil {
			planned, _ = strconv.Atoi(m[1])
			continue
		}
		m := resultLine.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		r := Result{Test: duration.ReplaceAllString(m[2], ""), Verdict: Passed}
		if m[1] == "not ok" {
			r.Verdict = Failed
		}
		if s := skipMark.FindStringSubmatch(r.Test); s != nil {
			r.Test, r.Reason = strings.TrimSuffix(r.Test, s[0]), s[1]
			if r.Verdict == Passed {
				r.Verdict = Skipped
			}
		}
		r.Test = strings.TrimSpace(r.Test)
		out = append(out, r)
	}
	if planned < 0 || len(out) < planned {
		out = append(out, Result{Test: cutShort, Verdict: Failed, Reason: fmt.Sprintf("%d of %d", len(out), planned)})
	}
	return out
}
