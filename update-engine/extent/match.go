package extent

import (
	"cmp"
	"path"
	"regexp"
	"slices"

	"github.com/proa-os/proa/internal/digest"
)

// A Pair is a new file and the old one that is most like it.
type Pair struct {
	New, Old int  // indices; Old is -1 if there is none
	Equal    bool // the same content
}

// Match finds for each new file, in their order, the old one that it most probably was made from: one of the same content; else of the same path
// but for the kernel's version; else of the same path but for digits (libz.so.1.3.1); else of the same name, digits aside. Of several it takes
// that of the same path, then of the nearest size, then the first. The old files may be those of several images, all of them hashed. The
// result depends on the arguments alone.
func Match(old, new []Extent) []Pair {
	byHash := make(map[digest.SHA256][]int)
	for i, o := range old {
		byHash[o.SHA256] = append(byHash[o.SHA256], i)
	}
	kinds := likenesses()
	byName := make([]map[string][]int, len(kinds))
	for k, key := range kinds {
		byName[k] = make(map[string][]int)
		for i, o := range old {
			name := key(o.Path)
			byName[k][name] = append(byName[k][name], i)
		}
	}
	pairs := make([]Pair, len(new))
	for i, n := range new {
		pairs[i] = Pair{New: i, Old: -1}
		equal := slices.DeleteFunc(slices.Clone(byHash[n.SHA256]), func(o int) bool { return old[o].Size != n.Size })
		if len(equal) > 0 && !n.SHA256.IsZero() {
			pairs[i].Old, pairs[i].Equal = nearest(old, equal, n), true
			continue
		}
		for k, key := range kinds {
			if same := byName[k][key(n.Path)]; len(same) > 0 {
				pairs[i].Old = nearest(old, same, n)
				break
			}
		}
	}
	return pairs
}

// likenesses are keys that files have in common with what they were made from, the surest first.
func likenesses() []func(string) string {
	version := regexp.MustCompile(`(^|/)modules/[^/]+/`)
	digits := regexp.MustCompile(`[0-9]+([.+~-][0-9]+)*`)
	module := func(p string) string { return version.ReplaceAllString(p, "${1}modules/0/") }
	collapsed := func(p string) string { return digits.ReplaceAllString(module(p), "0") }
	return []func(string) string{module, collapsed, func(p string) string { return path.Base(collapsed(p)) }}
}

// nearest chooses among the old files of these indices.
func nearest(old []Extent, among []int, n Extent) int {
	return slices.MinFunc(among, func(a, b int) int {
		return cmp.Or(cmp.Compare(otherPath(old[a], n), otherPath(old[b], n)), cmp.Compare(distance(old[a], n), distance(old[b], n)), cmp.Compare(a, b))
	})
}

func otherPath(a, b Extent) int {
	if a.Path == b.Path {
		return 0
	}
	return 1
}

func distance(a, b Extent) int64 { return max(a.Size-b.Size, b.Size-a.Size) }
