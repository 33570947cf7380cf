// Command failures reads logs of `go test -v` and prints again what each failed test said, the begin of each message and the end of all: in the
// log itself it stands between thousands of other lines, of machines that ran beside it.
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
	for _, name := range os.Args[1:] {
		if err := one(os.Stdout, name); err != nil {
			fmt.Fprintln(os.Stderr, "failures:", err)
			os.Exit(1)
		}
	}
}

func one(w io.Writer, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := failures(w, f); err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	return nil
}

// most is how many lines of a test are printed whatever they are, the last ones: a story ends with its machine's console.
const most = 40

var (
	turnsTo = regexp.MustCompile(`^=== (?:RUN|NAME|CONT|PAUSE) +(.+)$`)
	ended   = regexp.MustCompile(`^ *--- (FAIL|PASS|SKIP): (.+) \([0-9.]+s\)$`)
	message = regexp.MustCompile(`^ +\w+_test\.go:\d+: `)
	// What ends all tests of a package at once.
	everybody = regexp.MustCompile(`^(panic:|fatal error:|FAIL\t|signal: )`)
)

// failures prints what every failed test in r said, the output of `go test -v` of one or more packages.
func failures(w io.Writer, r io.Reader) error {
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
					tell(w, m[2], said[m[2]])
				}
				delete(said, m[2])
			} else if everybody.MatchString(line) {
				tell(w, "", []string{line})
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

func tell(w io.Writer, test string, lines []string) {
	if test != "" {
		fmt.Fprintf(w, "--- FAIL: %s\n", test)
	}
	for i, l := range lines {
		if i >= len(lines)-most || message.MatchString(l) {
			fmt.Fprintln(w, l)
		}
	}
}
