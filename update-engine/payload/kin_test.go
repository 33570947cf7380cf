package payload_test

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/proa-os/proa/update-engine/payload"
	"github.com/proa-os/proa/update-engine/squeeze"
)

// A library that several programs have in them is packed once, however far apart they are: in the root image, and in the boot program.
func TestKin(t *testing.T) {
	const library = 1 << 20
	noise := func(seed byte, n int) []byte {
		b := make([]byte, n)
		_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
		return b
	}
	linked := func(step int) []byte { // each program has it at other addresses
		b := noise(1, library)
		for i := step; i < len(b); i += step {
			b[i]++
		}
		return b
	}
	root := bytes.Join([][]byte{linked(300), noise(2, 9<<20), linked(301)}, nil)
	boot := linked(302)
	inputs := []payload.Input{
		{Kind: payload.RootImage, R: bytes.NewReader(root), Size: int64(len(root))},
		{Kind: payload.BootProgram, R: bytes.NewReader(boot), Size: int64(len(boot))},
	}
	var b bytes.Buffer
	if _, err := payload.Create(t.Context(), &b, inputs, payload.Options{Packer: &squeeze.Press{}}, nil); err != nil {
		t.Fatal(err)
	}
	once := library + 9<<20
	if again := b.Len() - once; again > library {
		t.Errorf("%d bytes, of which %d are what two further programs have of a library of %d", b.Len(), again, library)
	}
	m, err := payload.Prove(bytes.NewReader(b.Bytes()), payload.Sources{}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if s := m.Output(payload.BootProgram).Segments[0]; s.Prefix.Length == 0 || s.Prefix.At+s.Prefix.Length > int64(len(root)) {
		t.Errorf("the boot program's prefix is %+v, expected a part of the root image", s.Prefix)
	}
}
