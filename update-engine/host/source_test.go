package host

import (
	"strings"
	"testing"
	"testing/fstest"

	"github.com/proa-os/proa/internal/digest"
)

func TestVerityDevice(t *testing.T) {
	root, other := digest.Of([]byte("running")), digest.Of([]byte("other"))
	sys := fstest.MapFS{
		"class/block/dm-0/dm/uuid": {Data: []byte("CRYPT-LUKS2-1\n")},
		"class/block/dm-1/dm/uuid": {Data: []byte("PROA-VERITY-" + other.String() + "\n")},
		"class/block/dm-2/dm/uuid": {Data: []byte("PROA-VERITY-" + root.String() + "\n")},
		"class/block/dm-3/size":    {Data: []byte("8\n")}, // going away
	}
	if got, err := verityDevice(sys, root); err != nil || got != "/dev/dm-2" {
		t.Errorf("got %q, %v", got, err)
	}
	delete(sys, "class/block/dm-2/dm/uuid")
	if _, err := verityDevice(sys, root); err == nil || !strings.Contains(err.Error(), "no device-mapper device has the UUID PROA-VERITY-"+root.String()) {
		t.Errorf("without the device: %v", err)
	}
}
