package uki

import (
	"bytes"
	"fmt"
	"os"
	"testing"

	"github.com/proa-os/proa/internal/testenv"
)

// The real stub must have the room and the shape that Build counts on.
func TestSystemdsStub(t *testing.T) {
	tools := testenv.Tools(t)
	for _, name := range []string{"linuxx64.efi.stub", "linuxaa64.efi.stub"} {
		stub, err := os.ReadFile(tools.Path("usr/lib/systemd/boot/efi/" + name))
		if os.IsNotExist(err) && name != "linuxx64.efi.stub" {
			continue // tools of one architecture have one stub
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := Build(stub, contents())
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		p, err := Open(bytes.NewReader(b))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got, err := p.Cmdline(); err != nil || got != contents().Cmdline {
			t.Errorf("%s: command line %q, %v", name, got, err)
		}
		sections := p.Sections()
		last := sections[len(sections)-1]
		if got, want := fmt.Sprint(last.Name, last.Offset%512, last.Offset+int64(last.padded)), fmt.Sprint(SectionInitrd, 0, len(b)); got != want {
			t.Errorf("%s: last section %s, want %s", name, got, want)
		}
	}
}
