package judge

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// A knownKey names a test.
type knownKey struct{ suite, file, test string }

// A Listing is known.txt: paragraphs of a reason, "# " in front of each line, and the tests that it is for, one a line:
//
//	SUITE FILE TEST         does not pass
//	!SUITE FILE TEST        is not run, because it would not end
type Listing struct {
	reasons map[knownKey]string
	never   map[knownKey]bool
	used    map[knownKey]bool
}

// OpenListing reads known.txt.
func OpenListing(name string) (*Listing, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	l, err := ReadListing(f)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return l, nil
}

// ReadListing parses known.txt.
func ReadListing(r io.Reader) (*Listing, error) {
	l := &Listing{reasons: map[knownKey]string{}, never: map[knownKey]bool{}, used: map[knownKey]bool{}}
	reason, inReason := "", false
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if text, ok := strings.CutPrefix(line, "#"); ok {
			if !inReason {
				reason = ""
			}
			reason, inReason = strings.TrimSpace(reason+" "+strings.TrimSpace(text)), true
			continue
		}
		inReason = false
		if line == "" {
			continue
		}
		name, never := strings.CutPrefix(line, "!")
		f := strings.SplitN(name, " ", 3)
		if len(f) != 3 || reason == "" {
			return nil, fmt.Errorf("line %d: want SUITE FILE TEST below a reason, found %q", n, line)
		}
		key := knownKey{f[0], f[1], f[2]}
		if _, twice := l.reasons[key]; twice {
			return nil, fmt.Errorf("line %d: %s is there already", n, line)
		}
		l.reasons[key], l.never[key] = reason, never
	}
	return l, lines.Err()
}

// judge turns failures that are listed into known ones.
func (l *Listing) judge(results []Result) {
	for i := range results {
		r := &results[i]
		key := knownKey{r.Suite, r.File, r.Test}
		reason, ok := l.reasons[key]
		if !ok || r.Verdict != Failed {
			continue
		}
		l.used[key] = true
		r.Verdict, r.Reason = Known, reason
	}
}

// neverRun are the tests of a file that do not end.
func (l *Listing) neverRun(suite, file string) []string {
	var out []string
	for k, never := range l.never {
		if never && k.suite == suite && k.file == file {
			out = append(out, k.test)
		}
	}
	return out
}

// unused are the listed tests of the files that were run which have passed, or are gone: lines to take out.
func (l *Listing) unused(results []Result) []string {
	ran := make(map[[2]string]bool)
	for _, r := range results {
		ran[[2]string{r.Suite, r.File}] = true
	}
	var out []string
	for k := range l.reasons {
		if ran[[2]string{k.suite, k.file}] && !l.used[k] && !l.never[k] {
			out = append(out, strings.Join([]string{k.suite, k.file, k.test}, " "))
		}
	}
	slices.Sort(out)
	return out
}
