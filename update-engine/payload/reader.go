package payload

import (
	"io"
	"strconv"
	"strings"

	"github.com/proa-os/proa/update-engine/extent"
)

// versionFile is where a root image says which version of the format its update agent reads. Images from before version 3 have none.
const versionFile = "usr/lib/proa/payload-version"

// versionReadBy returns the newest version that machines which run a root image can read.
func versionReadBy(root Input) int {
	m, err := extent.Read(root.R, root.Size)
	if err != nil {
		return firstVersion
	}
	for _, f := range m.Files {
		if f.Path != versionFile || f.Size > 20 {
			continue
		}
		b := make([]byte, f.Size)
		if _, err := io.ReadFull(io.NewSectionReader(root.R, f.Offset, f.Size), b); err != nil {
			break
		}
		if v, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && v > firstVersion {
			return v
		}
	}
	return firstVersion
}
