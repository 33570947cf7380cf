package guesttest

import (
	"regexp"
	"slices"
	"strings"
)

// A result is what one test of the guest came to, read from the output of its -test.v.
type result struct {
	name     string // of a subtest, without its parent's
	status   string // PASS, FAIL, SKIP, or empty if it did not end
	log      string
	exit     string // status of the test program, of the parent only; empty if it did not end
	subtests []*result
}

var (
	// "=== RUN   TestX/one", and NAME or CONT where the output goes on for another test.
	beginRE = regexp.MustCompile(`^=== (RUN|NAME|CONT|PAUSE) +(\S+)`)
	// "    --- FAIL: TestX/one (0.01s)"
	endRE = regexp.MustCompile(`^ *--- (PASS|FAIL|SKIP): (\S+) \(`)
)

// parse reads the results of test and its direct subtests; what subtests of those say goes to them.
func parse(said, test string) result {
	r := result{}
	find := func(full string) *result {
		sub, ok := strings.CutPrefix(full, test+"/")
		if !ok {
			return &r
		}
		name, _, _ := strings.Cut(sub, "/")
		i := slices.IndexFunc(r.subtests, func(s *result) bool { return s.name == name })
		if i < 0 {
			r.subtests = append(r.subtests, &result{name: name})
			i = len(r.subtests) - 1
		}
		return r.subtests[i]
	}
	current := &r
	for line := range strings.Lines(said) {
		if status, ok := strings.CutPrefix(line, verdict); ok {
			r.exit = strings.TrimSpace(status)
			continue
		}
		if m := beginRE.FindStringSubmatch(line); m != nil {
			current = find(m[2])
			continue
		}
		if m := endRE.FindStringSubmatch(line); m != nil {
			of := find(m[2])
			if strings.Count(m[2], "/") <= strings.Count(test, "/")+1 {
				of.status = m[1]
			} else {
				of.log += line
			}
			current = &r
			continue
		}
		if line != "PASS\n" && line != "FAIL\n" {
			current.log += line
		}
	}
	return r
}

// failures are the lines by which a test says that it has failed, and what its program says when it panics.
func failures(said string) []string {
	var found []string
	for line := range strings.Lines(said) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "--- FAIL: ") || strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "guesttest: ") {
			found = append(found, line)
		}
	}
	return found
}
