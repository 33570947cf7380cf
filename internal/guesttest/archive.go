package guesttest

import (
	"bytes"
	"fmt"
	"maps"
	"path"
	"slices"
)

// Archive is an initramfs in newc format with files, all executable, their directories, /dev and /dev/console. Names
// have no leading slash.
func Archive(files map[string][]byte) []byte {
	var b bytes.Buffer
	entry := func(name string, mode, major, minor int, content []byte) {
		fmt.Fprintf(&b, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
			b.Len(), mode, 0, 0, 1, 0, len(content), 0, 0, major, minor, len(name)+1, 0, name)
		b.Write(make([]byte, -b.Len()&3))
		b.Write(content)
		b.Write(make([]byte, -b.Len()&3))
	}
	dirs := map[string]bool{"dev": true}
	for name := range files {
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			dirs[dir] = true
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(dirs)) {
		entry(dir, 0o40755, 0, 0, nil)
	}
	entry("dev/console", 0o20600, 5, 1, nil)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		entry(name, 0o100755, 0, 0, files[name])
	}
	entry("TRAILER!!!", 0, 0, 0, nil)
	return b.Bytes()
}
