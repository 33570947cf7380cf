// Package budget holds what a build has made against the manifest's budgets, and says where the bytes are when one is passed.
//
// An image grows a little with every change and nobody notices: so the numbers are printed at each build, and the build fails
// where a budget is passed. What is large is read from the tree report (tree.Report), so it is known when the root image
// comes from the cache.
package budget

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// An Item is one number and its budget.
type Item struct {
	Name  string
	Value int64
	Limit int64
	Bytes bool // else it counts things
	Zero  bool // a Limit of 0 means none may be, not that there is no limit
}

// passed reports whether the budget is passed.
func (i Item) passed() bool { return (i.Limit > 0 || i.Zero) && i.Value > i.Limit }

func (i Item) text(n int64) string {
	if i.Bytes {
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	}
	return strconv.FormatInt(n, 10)
}

// Write prints a table of items: name, value, budget, and how much of it is used.
func Write(w io.Writer, items []Item) error {
	for _, i := range items {
		limit, share := "-", ""
		if i.Limit > 0 || i.Zero {
			limit = i.text(i.Limit)
		}
		if i.Limit > 0 {
			share = fmt.Sprintf("%3.0f %%", float64(i.Value)*100/float64(i.Limit))
		}
		if i.passed() {
			share += "  TOO MUCH"
		}
		line := fmt.Sprintf("  %-24s %10s of %10s  %s", i.Name, i.text(i.Value), limit, share)
		if _, err := fmt.Fprintln(w, strings.TrimRight(line, " ")); err != nil {
			return err
		}
	}
	return nil
}

// Check returns an error that names every budget that is passed, what is large in the root image, and what has grown since an earlier
// build, if there is one.
func Check(items []Item, u, earlier *Usage) error {
	var b strings.Builder
	for _, i := range items {
		if i.passed() {
			fmt.Fprintf(&b, "\n  %s is %s, the budget is %s", i.Name, i.text(i.Value), i.text(i.Limit))
			if !i.Bytes && len(u.Setid) > 0 && i.Zero {
				fmt.Fprintf(&b, ": %s", strings.Join(u.Setid, ", "))
			}
		}
	}
	if b.Len() == 0 {
		return nil
	}
	if earlier != nil {
		fmt.Fprintf(&b, "\nWhat has grown since the last build, by package:%s\nby directory:%s",
			list(growth(u.packages, earlier.packages)), list(growth(u.dirs, earlier.dirs)))
	}
	fmt.Fprintf(&b, "\nThe largest packages:%s\nThe largest directories:%s", list(u.packages), list(u.dirs))
	return fmt.Errorf("the image passes its budget (manifests/image.toml, [budget]); make it smaller, or the budget larger and say why:%s", b.String())
}

// growth returns what is larger now, by how much.
func growth(now, before map[string]int64) map[string]int64 {
	grown := map[string]int64{}
	for name, size := range now {
		if size > before[name] {
			grown[name] = size - before[name]
		}
	}
	return grown
}

const shown = 10

func list(sizes map[string]int64) string {
	names := slices.SortedFunc(maps.Keys(sizes), func(x, y string) int {
		return cmp.Or(cmp.Compare(sizes[y], sizes[x]), cmp.Compare(x, y))
	})
	var b strings.Builder
	if len(names) == 0 {
		return " nothing"
	}
	for _, n := range names[:min(shown, len(names))] {
		fmt.Fprintf(&b, "\n%10.1f MB  %s", float64(sizes[n])/1e6, n)
	}
	return b.String()
}

// Usage is what a tree report says of sizes and modes.
type Usage struct {
	Setid    []string         // paths with a setuid or setgid bit, directories not counted
	Files    map[string]int64 // path -> bytes
	packages map[string]int64 // package -> bytes of its files
	dirs     map[string]int64 // directory -> bytes of the files in it, those of deeper ones not counted
}

// Read reads a tree report: lines "path: file mode owner size sum package", other types without size and sum.
func Read(r io.Reader) (*Usage, error) {
	u := &Usage{Files: map[string]int64{}, packages: map[string]int64{}, dirs: map[string]int64{}}
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	for n := 1; s.Scan(); n++ {
		if err := u.add(s.Text()); err != nil {
			return nil, fmt.Errorf("tree report: line %d: %w", n, err)
		}
	}
	return u, s.Err()
}

const setid = 0o6000

func (u *Usage) add(line string) error {
	path, rest, ok := strings.Cut(line, ": ")
	f := strings.Fields(rest)
	if !ok || len(f) < 3 {
		return fmt.Errorf("%q: want a path, a type, a mode and an owner", line)
	}
	if f[0] != "file" {
		return nil
	}
	if len(f) < 6 {
		return fmt.Errorf("%q: want a mode, an owner, a size, a sum and a package", line)
	}
	mode, err := strconv.ParseUint(f[1], 8, 32)
	if err != nil {
		return fmt.Errorf("%q: mode: %w", line, err)
	}
	size, err := strconv.ParseInt(f[3], 10, 64)
	if err != nil {
		return fmt.Errorf("%q: size: %w", line, err)
	}
	if mode&setid != 0 {
		u.Setid = append(u.Setid, path)
	}
	dir := "."
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		dir = path[:i]
	}
	u.Files[path] = size
	u.dirs[dir] += size
	u.packages[f[5]] += size
	return nil
}
