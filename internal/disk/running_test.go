package disk_test

import (
	"strings"
	"testing"
	"testing/fstest"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/disk"
)

func TestRunning(t *testing.T) {
	root := digest.Of([]byte("root image"))
	for _, c := range []struct {
		name, uuid, size string
		want             string // in the error
	}{
		{"a root image", disk.VerityUUID + root.String() + "\n", "480000\n", ""},
		{"no device-mapper", "", "480000\n", "no root image behind dm-verity"},
		{"another device", "CRYPT-LUKS2-1234\n", "480000\n", `"CRYPT-LUKS2-1234"`},
		{"no hash", disk.VerityUUID + "1234\n", "480000\n", "read the name"},
		{"no size", disk.VerityUUID + root.String() + "\n", "", "read the size"},
		{"an empty one", disk.VerityUUID + root.String() + "\n", "0\n", "expected a number of sectors"},
	} {
		sys := fstest.MapFS{"dev/block/253:1/ro": {Data: []byte("1\n")}}
		if c.uuid != "" {
			sys["dev/block/253:1/dm/uuid"] = &fstest.MapFile{Data: []byte(c.uuid)}
		}
		if c.size != "" {
			sys["dev/block/253:1/size"] = &fstest.MapFile{Data: []byte(c.size)}
		}
		got, offset, err := (&disk.Scanner{Sys: sys}).Running(unix.Mkdev(253, 1))
		switch {
		case c.want == "" && (err != nil || got != root || offset != 480000*512):
			t.Errorf("%s: got %s, %d, %v", c.name, got, offset, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: got error %v, want one with %q", c.name, err, c.want)
		}
	}
}
