package host

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/update-engine/agent"
)

// verityUUID begins the device-mapper UUID that init gives the verity device of a root hash (init/dmverity).
const verityUUID = "PROA-VERITY-"

// Source implements agent.Machine. What a delta reads must be what the release desk read, so it comes through the verity device, which
// the kernel finds by nothing but the root hash; the partition below it is not asked.
func (h *Host) Source() (agent.RootImage, error) {
	name, err := verityDevice(os.DirFS("/sys"), h.running.Root)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("open running root image: %w", err)
	}
	return source{f, h.hashOffset}, nil
}

// verityDevice returns the node of the verity device of a root hash.
func verityDevice(sys fs.FS, root digest.SHA256) (string, error) {
	devices, err := fs.Glob(sys, "class/block/dm-*")
	if err != nil {
		return "", fmt.Errorf("look for the running root image: %w", err)
	}
	for _, d := range devices {
		uuid, err := fs.ReadFile(sys, path.Join(d, "dm/uuid"))
		if err == nil && strings.TrimSpace(string(uuid)) == verityUUID+root.String() {
			return "/dev/" + path.Base(d), nil
		}
	}
	return "", fmt.Errorf("look for the running root image: no device-mapper device has the UUID %s%s, found %d others", verityUUID, root, len(devices))
}

// source is the root image that runs.
type source struct {
	*os.File
	size int64
}

func (s source) Size() int64 { return s.size }
