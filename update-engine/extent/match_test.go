package extent

import (
	"slices"
	"strings"
	"testing"

	"github.com/proa-os/proa/internal/digest"
)

// list makes files of "path=content" words.
func list(words string) []Extent {
	var files []Extent
	for i, w := range strings.Fields(words) {
		p, content, _ := strings.Cut(w, "=")
		files = append(files, Extent{Path: p, Offset: int64(i) * blockSize, Length: blockSize, Size: int64(len(content)), SHA256: digest.Of([]byte(content))})
	}
	return files
}

func TestMatch(t *testing.T) {
	old := list(`etc/hosts=h usr/lib/libz.so.1.3.1=z0 usr/lib/libz.so.2.0=longer usr/lib/modules/6.12.116+deb13-amd64/kernel/a.ko=a0
		usr/lib/modules/6.12.116+deb13-amd64/kernel/8250.ko=one usr/lib/modules/6.12.116+deb13-amd64/kernel/8251.ko=two
		usr/bin/same1=same usr/bin/same2=same usr/share/moved/NEWS=news init=i0`)
	for words, want := range map[string]string{
		"etc/hosts=h":               "etc/hosts equal",
		"etc/hosts=new":             "etc/hosts",
		"usr/share/other/name=news": "usr/share/moved/NEWS equal",
		// The same content under several names: the same path first, else the first.
		"usr/bin/same2=same": "usr/bin/same2 equal",
		"usr/bin/same3=same": "usr/bin/same1 equal",
		// Another kernel; a digit of a module's own name is not its version.
		"usr/lib/modules/6.12.117+deb13-amd64/kernel/a.ko=a1":      "usr/lib/modules/6.12.116+deb13-amd64/kernel/a.ko",
		"usr/lib/modules/6.12.117+deb13-amd64/kernel/8251.ko=new":  "usr/lib/modules/6.12.116+deb13-amd64/kernel/8251.ko",
		"usr/lib/modules/6.12.117+deb13-amd64/kernel/8252.ko=new1": "usr/lib/modules/6.12.116+deb13-amd64/kernel/8250.ko",
		// Another version in the name: of two, the nearer size.
		"usr/lib/libz.so.1.3.2=z1":      "usr/lib/libz.so.1.3.1",
		"usr/lib/libz.so.3=much_longer": "usr/lib/libz.so.2.0",
		// Moved and changed.
		"usr/share/doc/NEWS=news2": "usr/share/moved/NEWS",
		"usr/sbin/init=i1":         "init",
		"usr/bin/unheard=of":       "none",
	} {
		pairs := Match(old, list(words))
		got := "none"
		if len(pairs) == 1 && pairs[0].Old >= 0 {
			got = old[pairs[0].Old].Path
			if pairs[0].Equal {
				got += " equal"
			}
		}
		if got != want {
			t.Errorf("%s: got %s, want %s", words, got, want)
		}
	}
	if got := Match(nil, list("a=1 b=2")); !slices.Equal(got, []Pair{{New: 0, Old: -1}, {New: 1, Old: -1}}) {
		t.Errorf("from nothing: got %v", got)
	}
	// What nobody has hashed is not taken for equal.
	if got := Match([]Extent{{Path: "a", Size: 1}}, []Extent{{Path: "a", Size: 1}}); got[0].Equal || got[0].Old != 0 {
		t.Errorf("not hashed: got %v", got)
	}
}
