package judge

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/proa-os/proa/runtime/cgroup"
)

// groups are what the suites and the containers of their tests call theirs.
var groups = []string{"runc-cgroups-integration-test", "oci-runtime/*", "frozen", "test-cgroup*"}

// tidy ends what is left in groups of the suites, frozen or not, and removes them. Groups of this repository's own tests are let be.
func tidy() {
	h, err := cgroup.Find()
	if err != nil {
		return
	}
	remove := func(top string, group func(dir string) cgroup.Group) {
		for _, pattern := range groups {
			dirs, _ := filepath.Glob(filepath.Join(top, pattern))
			for _, d := range dirs {
				if info, err := os.Lstat(d); err != nil || !info.IsDir() || strings.HasPrefix(filepath.Base(d), "proa-") {
					continue
				}
				filepath.WalkDir(d, func(p string, e os.DirEntry, err error) error {
					if err == nil && e.IsDir() {
						group(p).Kill() // which thaws
					}
					return nil
				})
				group(d).Remove()
			}
		}
		os.Remove(filepath.Join(top, "oci-runtime"))
	}
	if h.Unified != "" {
		remove(h.Unified, func(dir string) cgroup.Group { return cgroup.Group{Dir: dir} })
	}
	for c, top := range h.V1 {
		remove(top, func(dir string) cgroup.Group { return cgroup.Group{V1: map[string]string{c: dir}} })
	}
}
