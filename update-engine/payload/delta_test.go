package payload

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/testenv"
	"github.com/proa-os/proa/internal/tooltree"
)

func deltaOf(oldRoot, oldBoot, newRoot, newBoot []byte) (Delta, Sources) {
	d := Delta{Source: digest.Of(oldRoot), OldRoot: input(RootImage, oldRoot), OldBoot: input(BootProgram, oldBoot),
		NewRoot: input(RootImage, newRoot), NewBoot: input(BootProgram, newBoot)}
	return d, Sources{Root: d.OldRoot.R, RootSize: d.OldRoot.Size, Boot: d.OldBoot.R, BootSize: d.OldBoot.Size}
}

// makeDelta makes a delta twice, with one worker and with three, and proves it.
func makeDelta(t *testing.T, d Delta, src Sources) ([]byte, *Manifest) {
	t.Helper()
	var b, again bytes.Buffer
	var last, all int64
	_, err := CreateDelta(t.Context(), &b, d, Options{Workers: 1}, func(done, total int64) {
		if done <= last || done > total {
			t.Errorf("progress: %d of %d after %d", done, total, last)
		}
		last, all = done, total
	})
	if err != nil {
		t.Fatal(err)
	}
	if last != all {
		t.Errorf("progress ended at %d of %d", last, all)
	}
	if _, err := CreateDelta(t.Context(), &again, d, Options{Workers: 3}, nil); err != nil || !bytes.Equal(b.Bytes(), again.Bytes()) {
		t.Errorf("three workers make other bytes than one: %v", err)
	}
	m, err := Prove(bytes.NewReader(b.Bytes()), src, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if m.Output(RootImage).SHA256 != sumOf(t, d.NewRoot) || m.Output(BootProgram).SHA256 != sumOf(t, d.NewBoot) || m.Source != d.Source {
		t.Error("the manifest's hashes are not those of the images")
	}
	return b.Bytes(), m
}

func sumOf(t *testing.T, in Input) digest.SHA256 {
	t.Helper()
	b := make([]byte, in.Size)
	if _, err := in.R.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	return digest.Of(b)
}

// Blocks that both have are copied wherever they are; of the rest, the boot program finds its own in the new root image.
func TestDeltaOfBlocks(t *testing.T) {
	oldRoot, oldBoot, fresh := sample(1, 3<<20), sample(2, 1<<20), noise(3, 300<<10)
	newRoot := slices.Concat(oldRoot[2<<20:], fresh, oldRoot[:2<<20-5])
	newBoot := slices.Concat([]byte("head"), fresh[1000:200<<10], oldBoot)
	d, src := deltaOf(oldRoot, oldBoot, newRoot, newBoot)
	b, m := makeDelta(t, d, src)
	if limit := len(fresh) + 4096; len(b) > limit {
		t.Errorf("delta of %d bytes, want at most %d", len(b), limit)
	}
	if made := m.Output(BootProgram).Made(); made > 4*block {
		t.Errorf("%d bytes of the boot program are made", made)
	}
}

// noise does not pack.
func noise(seed uint64, n int) []byte {
	b := make([]byte, (n+7)/8*8)
	r := rand.New(rand.NewPCG(seed, 2))
	for i := 0; i < len(b); i += 8 {
		binary.LittleEndian.PutUint64(b[i:], r.Uint64())
	}
	return b[:n]
}

// A delta is taken up at every checkpoint, those in the middle of a long copy included, and makes the same.
func TestDeltaResumes(t *testing.T) {
	oldRoot, oldBoot := sample(1, 3*MaxSegment), sample(2, 1<<20)
	newRoot := slices.Concat(noise(4, 5000), oldRoot[:len(oldRoot)-100], noise(5, MaxSegment+100))
	d, src := deltaOf(oldRoot, oldBoot, newRoot, slices.Concat(oldBoot, noise(4, 6000)))
	b, m := makeDelta(t, d, src)
	if inside := takenUp(t, b, m, src, newRoot); inside == 0 {
		t.Error("no checkpoint inside a segment")
	}
}

// takenUp takes a delta up at every checkpoint, and returns how many of them are not between segments.
func takenUp(t *testing.T, b []byte, m *Manifest, src Sources, newRoot []byte) (inside int) {
	t.Helper()
	whole := &kept{}
	if err := m.Apply(bytes.NewReader(b[m.size:]), src, Mark{}, whole); err != nil {
		t.Fatal(err)
	}
	at := int64(0)
	for i, from := range whole.marks {
		if i > 0 && whole.marks[i-1].Kind == from.Kind {
			if at = whole.marks[i-1].Written; from.Written-at > MaxSegment+copyStep {
				t.Errorf("%d bytes between two checkpoints", from.Written-at)
			}
			if from.Segment == whole.marks[i-1].Segment {
				inside++
			}
		}
		sink := &kept{outputs: map[Kind]*output{}}
		for k, v := range map[Kind][]byte{RootImage: newRoot, BootProgram: whole.outputs[BootProgram].data} {
			if k < from.Kind {
				sink.outputs[k] = &output{v}
			} else if k == from.Kind {
				sink.outputs[k] = &output{slices.Clone(v[:from.Written])}
			}
		}
		src.NewRoot = bytes.NewReader(newRoot)
		if err := m.Apply(bytes.NewReader(b[from.Read:]), src, from, sink); err != nil {
			t.Errorf("from %+v: %v", from, err)
		} else if !bytes.Equal(sink.outputs[RootImage].data, newRoot) || !bytes.Equal(sink.outputs[BootProgram].data, whole.outputs[BootProgram].data) {
			t.Errorf("from %+v: the outputs are not the images", from)
		}
	}
	return inside
}

// erofs is a root image of files, as mkfs.erofs makes it.
func erofs(t *testing.T, tools *tooltree.Tree, files map[string][]byte, options ...string) []byte {
	t.Helper()
	dir, img := t.TempDir(), filepath.Join(t.TempDir(), "img")
	for name, b := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	args := append([]string{"--quiet", "-b4096", "-T1", "--all-root", "-U", "00000000-0000-0000-0000-000000000000"}, options...)
	cmd := tools.Command(t.Context(), "mkfs.erofs", append(args, img, dir)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	b, err := os.ReadFile(img)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// program is something like compiled code: move changes each address in it.
func program(seed uint64, n int, move uint32) []byte {
	b := noise(seed, n)
	for i := 0; i+40 < n; i += 40 {
		binary.LittleEndian.PutUint32(b[i:], uint32(i)*3+move)
	}
	return b
}

// In a real file system every module has moved and every address in them: what is paid for are the addresses.
func TestDeltaOfFiles(t *testing.T) {
	tools := testenv.Tools(t)
	before, after := map[string][]byte{}, map[string][]byte{}
	for i := range 60 {
		before[fmt.Sprintf("usr/lib/modules/6.12.1/m%d.ko", i)] = program(uint64(i), 20_000+i*100, 0)
		after[fmt.Sprintf("usr/lib/modules/6.12.2/m%d.ko", i)] = program(uint64(i), 20_000+i*100, 4096)
		same := noise(uint64(i+100), 10_000)
		before[fmt.Sprintf("usr/bin/same%d", i)], after[fmt.Sprintf("usr/bin/same%d", i)] = same, same
	}
	after["usr/bin/aaa"] = noise(99, 9000)
	oldRoot, newRoot := erofs(t, tools, before), erofs(t, tools, after)
	boot := noise(98, 100_000)
	d, src := deltaOf(oldRoot, boot, newRoot, slices.Concat([]byte("x"), boot))
	b, m := makeDelta(t, d, src)
	if limit := 9000 + 30_000; len(b) > limit {
		t.Errorf("delta of %d bytes for images of %d, want at most %d", len(b), len(newRoot), limit)
	}
	// Of each equal file two blocks are whole; the rest lies among the metadata.
	if made := m.Output(RootImage).Made(); made > int64(len(newRoot))-60*8192 {
		t.Errorf("%d bytes of %d are made: equal files are not copied", made, len(newRoot))
	}
}

func TestCreateDeltaRefuses(t *testing.T) {
	b := noise(1, 10000)
	d, _ := deltaOf(b, b, b, b)
	d.Source = digest.SHA256{}
	if _, err := CreateDelta(t.Context(), &bytes.Buffer{}, d, Options{}, nil); err == nil || !strings.Contains(err.Error(), "no root hash") {
		t.Errorf("got %v, want a refusal", err)
	}
	d, _ = deltaOf(b, b, nil, b)
	if _, err := CreateDelta(t.Context(), &bytes.Buffer{}, d, Options{}, nil); err == nil || !strings.Contains(err.Error(), "(root image) has 0 bytes") {
		t.Errorf("got %v, want a refusal", err)
	}
}

func TestWorthwhile(t *testing.T) {
	if !Worthwhile(60, 100) || Worthwhile(61, 100) || !Worthwhile(0, 1) {
		t.Error("the rule is 60 % of the full payload")
	}
}
