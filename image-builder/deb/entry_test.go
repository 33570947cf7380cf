package deb_test

import (
	"archive/tar"
	"strings"
	"testing"

	"github.com/proa-os/proa/image-builder/deb"
)

func TestCheckEntry(t *testing.T) {
	for _, tc := range []struct {
		h    tar.Header
		want string // "" if it is fine
	}{
		{tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o755}, ""},
		{tar.Header{Name: "./usr/bin/x", Typeflag: tar.TypeReg, Mode: 0o6755, Gid: 42}, ""},
		{tar.Header{Name: "usr/bin/x", Typeflag: tar.TypeLink, Linkname: "./usr/bin/y"}, ""},
		{tar.Header{Name: "./x", Typeflag: tar.TypeSymlink, Linkname: "/etc/alternatives/x"}, ""},
		{tar.Header{Name: "./x", Typeflag: tar.TypeReg, Uid: 65534, Gid: 60000}, ""},
		{tar.Header{Name: "", Typeflag: tar.TypeReg}, "leads out of the tree"},
		{tar.Header{Name: "/etc/passwd", Typeflag: tar.TypeReg}, "leads out of the tree"},
		{tar.Header{Name: "..", Typeflag: tar.TypeDir}, "leads out of the tree"},
		{tar.Header{Name: "./a/../../x", Typeflag: tar.TypeReg}, "leads out of the tree"},
		{tar.Header{Name: "./a\nb", Typeflag: tar.TypeReg}, "control characters"},
		{tar.Header{Name: "./x", Typeflag: tar.TypeLink, Linkname: "../../etc/shadow"}, "hard link: path"},
		{tar.Header{Name: "./x", Typeflag: tar.TypeLink, Linkname: "/etc/shadow"}, "hard link: path"},
		{tar.Header{Name: "./x", Typeflag: tar.TypeSymlink}, `symbolic link to ""`},
		{tar.Header{Name: "./x", Typeflag: tar.TypeSymlink, Linkname: "a\x1b[2J"}, "symbolic link to"},
		{tar.Header{Name: "./x", Typeflag: tar.TypeChar}, "has no place in a package"},
		{tar.Header{Name: "./x", Typeflag: tar.TypeBlock}, "has no place in a package"},
		{tar.Header{Name: "./x", Typeflag: tar.TypeFifo}, "has no place in a package"},
		{tar.Header{Name: "./x", Typeflag: tar.TypeGNUSparse}, "has no place in a package"},
		{tar.Header{Name: "./x", Typeflag: tar.TypeReg, PAXRecords: map[string]string{"GNU.sparse.realsize": "1099511627776"}}, "sparse file"},
		{tar.Header{Name: "./x", Typeflag: tar.TypeReg, PAXRecords: map[string]string{"SCHILY.xattr.security.capability": "x"}}, "extended attribute security.capability"},
		{tar.Header{Name: "./x", Typeflag: tar.TypeReg, Mode: 0o100644}, "more than permission bits"},
		{tar.Header{Name: "./x", Typeflag: tar.TypeReg, Mode: -1}, "more than permission bits"},
		{tar.Header{Name: "./x", Typeflag: tar.TypeReg, Uid: 1000, Gid: 1000}, "owner 1000:1000"},
		{tar.Header{Name: "./x", Typeflag: tar.TypeReg, Gid: 100}, "owner 0:100"},
		{tar.Header{Name: "./x", Typeflag: tar.TypeReg, Uid: -1}, "owner -1:0"},
	} {
		err := deb.CheckEntry(&tc.h)
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%q of type %q: got %v, want %q", tc.h.Name, tc.h.Typeflag, err, tc.want)
		}
	}
}
