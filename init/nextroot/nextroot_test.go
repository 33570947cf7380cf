package nextroot

import (
	"fmt"
	"strings"
	"testing"

	"github.com/proa-os/proa/internal/disk/disktest"
)

func TestParse(t *testing.T) {
	_, root, offset := disktest.RootImage(t, 200, 1)
	good := fmt.Sprintf("%s %d /var/lib/proa/update/soft-reboot\n", root, offset)
	if n, err := parse(good); err != nil || n.root != root || n.hashOffset != offset || n.mark != "/var/lib/proa/update/soft-reboot" {
		t.Errorf("got %+v, %v", n, err)
	}
	for text, want := range map[string]string{
		"":                                    "found 0 words",
		good + " more":                        "found 4 words",
		"1234 4096 /var/mark":                 "64 hexadecimal digits",
		root.String() + " 4097 /var/mark":     "hash offset",
		root.String() + " -4096 /var/mark":    "hash offset",
		root.String() + " 4096 /etc/mark":     "mark",
		root.String() + " 4096 /var/../etc/x": "mark",
	} {
		if _, err := parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got error %v, want one with %q", text, err, want)
		}
	}
}

func TestSlots(t *testing.T) {
	a, rootA, offset := disktest.RootImage(t, 200, 1)
	b, rootB, _ := disktest.RootImage(t, 200, 2)
	c, rootC, _ := disktest.RootImage(t, 200, 3)
	w := disktest.New(t)
	w.Attach("sda", disktest.Image(t, 0, c, nil))
	w.Attach("sdb", disktest.Image(t, 0, a, b))
	running, slot, err := next{root: rootB, hashOffset: offset}.slots(w.Scanner(), rootA, offset)
	if err != nil || running.Path != "/dev/sdb3" || slot.Path != "/dev/sdb4" {
		t.Errorf("got %+v, %+v, %v; want the other slot", running, slot, err)
	}
	for _, x := range []struct {
		name string
		next next
		want string
	}{
		{"what runs", next{root: rootA, hashOffset: offset}, "runs already"},
		{"on another disk", next{root: rootC, hashOffset: offset}, "is on /dev/sda, expected it on /dev/sdb"},
		{"nowhere", next{hashOffset: offset}, "find the slot with root hash"},
		{"another size", next{root: rootB, hashOffset: 2 * offset}, "find the slot with root hash"},
	} {
		if _, _, err := x.next.slots(w.Scanner(), rootA, offset); err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s: got error %v, want one with %q", x.name, err, x.want)
		}
	}
}
