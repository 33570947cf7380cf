package erofs

import "github.com/proa-os/proa/image-builder/tree"

// FileAt returns the path of the file that has byte off of the file system in its content; t was read from it by Read.
func FileAt(t *tree.Tree, off int64) (path string, ok bool) {
	for e := range t.All() {
		x, is := e.Content.(extent)
		if !is {
			continue
		}
		if off >= x.start && off < x.start+x.blocks || off >= x.tail && off < x.tail+x.rest {
			return e.Path, true
		}
	}
	return "", false
}
