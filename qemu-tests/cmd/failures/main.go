// Command failures reads logs of `go test -v` and prints again what each failed test said, the begin of each message and the end of all: in the
// log itself it stands between thousands of other lines, of machines that ran beside it. The messages alone are printed once more at the very end,
// which is what is kept of a log that is cut.
//
// Usage: failures LOG...
package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
)

func main() {
	if len(os.Args) < 2 || strings.HasPrefix(os.Args[1], "-") {
		fmt.Fprintln(os.Stderr, "usage: failures LOG...\nprints what the failed tests said in logs of go test -v")
		os.Exit(2)
	}
	var brief strings.Builder
	for _, name := range os.Args[1:] {
		if err := one(os.Stdout, &brief, name); err != nil {
			fmt.Fprintln(os.Stderr, "failures:", err)
			os.Exit(1)
		}
	}
	fmt.Printf("\nin brief:\n%s", brief.String())
}

func one(w, brief io.Writer, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := failures(w, brief, f); err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	return nil
}

const (
	most = 40  // how many lines of a test are printed whatever they are, the last ones: a story ends with its machine's console
	wide = 300 // how many bytes of a line are printed in brief
)

var (
	turnsTo = regexp.MustCompile(`^=== (?:RUN|NAME|CONT|PAUSE) +(.+)$`)
	ended   = regexp.MustCompile(`^ *--- (FAIL|PASS|SKIP): (.+) \([0-9.]+s\)$`)
	message = regexp.MustCompile(`^ +\w+_test\.go:\d+: `)
	// What ends all tests of a package at once.
	everybody = regexp.MustCompile(`^(panic:|fatal error:|FAIL\t|signal: )`)
)

// failures prints what every failed test in r said, the output of `go test -v` of one or more packages, and each message's first line in brief.
func failures(w, brief io.Writer, r io.Reader) error {
	said := map[string][]string{} // by test, of the package that is read
	now := ""
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadString('\n')
		if line = strings.TrimSuffix(line, "\n"); line != "" {
			if m := turnsTo.FindStringSubmatch(line); m != nil {
				now = m[1]
			} else if m := ended.FindStringSubmatch(line); m != nil {
				if m[1] == "FAIL" {
					tell(w, brief, m[2], said[m[2]])
				}
				delete(said, m[2])
			} else if everybody.MatchString(line) {
				tell(w, brief, "", []string{line})
			} else {
				said[now] = append(said[now], line)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func tell(w, brief io.Writer, test string, lines []string) {
	if test != "" {
		fmt.Fprintf(io.MultiWriter(w, brief), "--- FAIL: %s\n", test)
	}
	for i, l := range lines {
		said := test == "" || message.MatchString(l)
		if i >= len(lines)-most || said {
			fmt.Fprintln(w, l)
		}
		if said {
			fmt.Fprintln(brief, l[:min(wide, len(l))])
		}
	}
}
