package lock

import (
	"os"
	"path/filepath"
	"strings"
	"time"
)

// staleAfter is longer than any run works on one temporary file.
const staleAfter = 24 * time.Hour

// Sweep removes what killed runs have left in a directory of the cache: entries with this prefix that have not changed for a day. Nothing
// depends on it, so errors do not matter.
func Sweep(dir, prefix string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		fi, err := e.Info()
		if err == nil && strings.HasPrefix(e.Name(), prefix) && time.Since(fi.ModTime()) > staleAfter {
			os.RemoveAll(filepath.Join(dir, e.Name()))
		}
	}
}
