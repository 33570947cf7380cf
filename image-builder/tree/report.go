package tree

import (
	"bufio"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/proa-os/proa/internal/digest"
)

// Sums returns the sum of every file by its path. Contents are read on all CPUs.
func (t *Tree) Sums() (map[string]digest.SHA256, error) {
	var files []Entry
	for e := range t.All() {
		if e.Type == File {
			files = append(files, e)
		}
	}
	sums, errs := make([]digest.SHA256, len(files)), make([]error, runtime.GOMAXPROCS(0))
	var wg sync.WaitGroup
	work := make(chan int)
	for worker := range errs {
		wg.Go(func() {
			h := sha256.New()
			for i := range work {
				if errs[worker] != nil {
					continue
				}
				h.Reset()
				_, errs[worker] = files[i].WriteTo(h)
				sums[i] = digest.SHA256(h.Sum(nil))
			}
		})
	}
	for i := range files {
		work <- i
	}
	close(work)
	wg.Wait()
	all := make(map[string]digest.SHA256, len(files))
	for i, f := range files {
		all[f.Path] = sums[i]
	}
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// Report writes one line for each entry, in the order of paths; sums are those of Sums. It says what Dump says, and size and package,
// "-" if there is none:
//
//	etc: dir 0755 0:0 base-files
//	etc/hosts: file 0644 0:0 <size> <sha256> proa
//	bin: symlink 0777 0:0 usr/bin base-files
//	dev/console: char 0600 0:0 5:1 -
//
// A path, target or package with white space, quotes or anything unprintable is quoted as in Go. Extended attributes follow as
// name=<hexadecimal value>.
func (t *Tree) Report(w io.Writer, sums map[string]digest.SHA256) error {
	b := bufio.NewWriter(w)
	for e := range t.All() {
		fmt.Fprintf(b, "%s: %s %04o %d:%d", word(e.Path), e.Type, e.Mode, e.UID, e.GID)
		switch e.Type {
		case File:
			fmt.Fprintf(b, " %d %s", e.Size, sums[e.Path])
		case Symlink:
			fmt.Fprintf(b, " %s", word(e.Target))
		case Char:
			fmt.Fprintf(b, " %d:%d", e.Major, e.Minor)
		}
		fmt.Fprintf(b, " %s", word(e.Package))
		for _, name := range slices.Sorted(maps.Keys(e.Xattrs)) {
			fmt.Fprintf(b, " %s=%x", name, e.Xattrs[name])
		}
		fmt.Fprintln(b)
	}
	if err := b.Flush(); err != nil {
		return fmt.Errorf("write tree report: %w", err)
	}
	return nil
}

// word is s if it reads as one word.
func word(s string) string {
	switch {
	case s == "":
		return "-"
	case strings.ContainsFunc(s, func(r rune) bool { return r == ' ' || r == '"' || r == 0xfffd || !strconv.IsPrint(r) }):
		return strconv.Quote(s)
	}
	return s
}
