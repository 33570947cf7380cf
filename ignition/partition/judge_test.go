package partition

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/coreos/ignition/v2/config/util"
	"github.com/coreos/ignition/v2/config/v3_6/types"

	"github.com/proa-os/proa/internal/gpt"
	"github.com/proa-os/proa/internal/testenv"
	"github.com/proa-os/proa/internal/tooltree"
)

var cases = flag.Int("cases", 16, "how many random cases TestAgainstSgdisk tries")

// TestAgainstSgdisk holds plans against what upstream's Ignition 2.26 does, which is to tell sgdisk: random tables, random
// configs; the same tables afterwards, and the same refusals.
func TestAgainstSgdisk(t *testing.T) {
	tools := testenv.Tools(t)
	if out, err := tools.Command(t.Context(), "sgdisk", "--version").CombinedOutput(); err != nil {
		testenv.Missing(t, "by sgdisk: %v: %s; run image-builder tools", err, out)
	}
	const size = 72 * mib // what randomTable takes at most, and some
	random := rand.New(rand.NewPCG(1, 2))
	kinds := map[Kind]int{}
	refused := 0
	for range *cases {
		before, want := randomTable(random, size), randomDisk(random)
		image := filepath.Join(t.TempDir(), "disk")
		writeImage(t, image, before, size)
		s := sgdisk{t: t, tools: tools, image: image}
		ok, odd := s.upstream(before, want)
		p, err := Decide(Disk{Size: size, SectorSize: 512, Table: before}, want, counter())
		about := fmt.Sprintf("before %s\nconfig %s", showTable(before), showDisk(want))
		if odd {
			continue // sgdisk puts partitions in front of the first MiB, where ours find no room
		}
		if (err == nil) != ok {
			t.Fatalf("%s\nupstream accepts: %t, ours: %v", about, ok, err)
		}
		if err != nil {
			refused++
			continue
		}
		for _, c := range p.Changes {
			kinds[c.Kind]++
		}
		ours := before
		if p.Table != nil {
			ours = p.Table
		}
		if got, theirs := showTable(ours), showTable(s.read()); got != theirs {
			t.Fatalf("%s\nours\n%s\nupstream's\n%s", about, got, theirs)
		}
	}
	for _, k := range []Kind{Keep, Create, Delete, Resize, Replace, Absent} {
		if kinds[k] == 0 && *cases >= 100 {
			t.Errorf("no case of %q: %v", k, kinds)
		}
	}
	if refused == 0 {
		t.Error("nothing was refused")
	}
}

// linuxHome is a type that partitions have seldom enough to differ.
const linuxHome = "933ac7e1-2eb4-4f13-b844-0e14e2aef915"

func randomTable(r *rand.Rand, size int64) *gpt.Table {
	tab := &gpt.Table{DiskGUID: gpt.NewGUID([16]byte{1}), SectorSize: 512, Sectors: uint64(size) / 512, Conventional: true}
	at := uint64(1)
	for _, n := range r.Perm(4)[:1+r.IntN(3)] {
		at += uint64(r.IntN(3) * 5)
		length := uint64(1 + r.IntN(3)*5)
		tab.Partitions = append(tab.Partitions, gpt.Partition{Number: n + 1, Name: string('a' + rune(r.IntN(3))), TypeGUID: []gpt.GUID{gpt.TypeLinux, gpt.TypeLinux, linuxHome}[r.IntN(3)],
			GUID: gpt.NewGUID([16]byte{0: byte(n + 1)}), FirstLBA: at * 2048, LastLBA: (at+length)*2048 - 1})
		at += length
	}
	slices.SortFunc(tab.Partitions, func(p, q gpt.Partition) int { return p.Number - q.Number })
	return tab
}

func randomDisk(r *rand.Rand) types.Disk {
	var d types.Disk
	numbers := r.Perm(4)[:1+r.IntN(3)]
	if r.IntN(4) == 0 {
		numbers = append(numbers, -1) // number 0: the next
	}
	for _, n := range numbers {
		p := types.Partition{Number: n + 1}
		pick := func(values ...int) *int {
			if v := values[r.IntN(len(values))]; v >= 0 {
				return &v
			}
			return nil
		}
		if r.IntN(2) == 0 {
			p.WipePartitionEntry = util.BoolToPtr(true)
		}
		if r.IntN(4) == 0 && p.Number != 0 {
			p.ShouldExist = util.BoolToPtr(false)
			d.Partitions = append(d.Partitions, p)
			continue
		}
		p.StartMiB, p.SizeMiB = pick(-1, -1, 0, 1, 6, 11), pick(-1, -1, 0, 1, 6, 11)
		if r.IntN(3) == 0 {
			p.Label = util.StrToPtr(string('a' + rune(r.IntN(3))))
		}
		if p.Number == 0 {
			p.Label = util.StrToPtr("next") // with the label of another, ours is that one (see the package)
		}
		if r.IntN(3) == 0 {
			p.TypeGUID = util.StrToPtr([]string{gpt.TypeLinux.String(), linuxHome, "", strings.ToUpper(linuxHome)}[r.IntN(4)])
		}
		if r.IntN(2) == 0 {
			p.Resize = util.BoolToPtr(true)
		}
		d.Partitions = append(d.Partitions, p)
	}
	return d
}

func writeImage(t *testing.T, name string, tab *gpt.Table, size int64) {
	t.Helper()
	f, err := os.Create(name)
	if err == nil {
		err = f.Truncate(size)
	}
	if err == nil {
		err = tab.Write(f)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// showTable leaves out the GUIDs of partitions, which are random, and takes the end down to a whole MiB: ours end there, sgdisk's on the last sector.
func showTable(tab *gpt.Table) string {
	var b strings.Builder
	for _, p := range tab.Partitions {
		fmt.Fprintf(&b, "%d %s %s %d-%d\n", p.Number, p.Name, p.TypeGUID, p.FirstLBA, (p.LastLBA+1)/2048*2048)
	}
	return b.String()
}

func showDisk(d types.Disk) string {
	var b strings.Builder
	for _, p := range d.Partitions {
		fmt.Fprintf(&b, "{%d", p.Number)
		for name, v := range map[string]*int{"start": p.StartMiB, "size": p.SizeMiB} {
			if v != nil {
				fmt.Fprintf(&b, " %s %d", name, *v)
			}
		}
		if p.Label != nil {
			b.WriteString(" label " + *p.Label)
		}
		if p.TypeGUID != nil {
			b.WriteString(" type " + *p.TypeGUID)
		}
		fmt.Fprintf(&b, " exist %t wipe %t resize %t}", !util.IsFalse(p.ShouldExist), util.IsTrue(p.WipePartitionEntry), util.IsTrue(p.Resize))
	}
	return b.String()
}

// sgdisk does to an image what upstream would (its internal/exec/stages/disks/partitions.go).
type sgdisk struct {
	t     *testing.T
	tools *tooltree.Tree
	image string
}

func (s sgdisk) run(args ...string) (string, bool) {
	out, err := s.tools.Command(s.t.Context(), "sgdisk", append(args, s.image)...).CombinedOutput()
	return string(out), err == nil
}

func (s sgdisk) read() *gpt.Table {
	s.t.Helper()
	f, err := os.Open(s.image)
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		s.t.Fatal(err)
	}
	tab, err := gpt.Read(f, info.Size(), 512)
	if err != nil {
		s.t.Fatal(err)
	}
	return tab
}

func (s sgdisk) upstream(before *gpt.Table, d types.Disk) (ok, odd bool) {
	has := func(n int) (gpt.Partition, bool) {
		i := slices.IndexFunc(before.Partitions, func(p gpt.Partition) bool { return p.Number == n })
		if i < 0 {
			return gpt.Partition{}, false
		}
		return before.Partitions[i], true
	}
	sectors := func(mib *int) *int {
		if mib == nil {
			return nil
		}
		return util.IntToPtr(*mib * 2048)
	}
	create := func(p types.Partition, start, size *int) string {
		zero := 0
		if start == nil {
			start = &zero
		}
		if size == nil {
			size = &zero
		}
		return fmt.Sprintf("--new=%d:%d:+%d", p.Number, *start, *size)
	}
	// What zeros stand for.
	var deletions, creations, infos []string
	var inspected []int
	for _, p := range d.Partitions {
		start, size := sectors(p.StartMiB), sectors(p.SizeMiB)
		if p.Number != 0 && (start != nil && *start == 0 || size != nil && *size == 0) {
			infos, inspected = append(infos, fmt.Sprintf("--info=%d", p.Number)), append(inspected, p.Number)
		}
		if q, exists := has(p.Number); exists {
			deletions = append(deletions, fmt.Sprintf("--delete=%d", p.Number))
			if start == nil && !util.IsTrue(p.WipePartitionEntry) {
				start = util.IntToPtr(int(q.FirstLBA))
			}
			if size == nil && !util.IsTrue(p.WipePartitionEntry) {
				size = util.IntToPtr(int(q.Sectors()))
			}
		}
		if !util.IsFalse(p.ShouldExist) {
			creations = append(creations, create(p, start, size))
		}
	}
	var out string
	if args := slices.Concat(deletions, creations, infos); len(args) > 0 {
		if out, ok = s.run(append([]string{"--pretend"}, args...)...); !ok {
			return false, false
		}
	}
	firsts, lasts := regexp.MustCompile(`First sector: (\d+)`).FindAllStringSubmatch(out, -1), regexp.MustCompile(`Last sector: (\d+)`).FindAllStringSubmatch(out, -1)
	if len(firsts) != len(inspected) {
		return false, false
	}
	deletions, creations = nil, nil
	for _, p := range d.Partitions {
		start, size := sectors(p.StartMiB), sectors(p.SizeMiB)
		if i := slices.Index(inspected, p.Number); i >= 0 {
			first, _ := strconv.Atoi(firsts[i][1])
			last, _ := strconv.Atoi(lasts[i][1])
			if start != nil {
				start = &first
			}
			if size != nil {
				size = util.IntToPtr(last - first + 1)
			}
		}
		q, exists := has(p.Number)
		common := exists && (start == nil || *start == int(q.FirstLBA)) && (p.Label == nil || *p.Label == q.Name) &&
			(util.NilOrEmpty(p.TypeGUID) || strings.EqualFold(*p.TypeGUID, q.TypeGUID.String()))
		matches := common && (size == nil || *size == int(q.Sectors()))
		wanted, wipe := !util.IsFalse(p.ShouldExist), util.IsTrue(p.WipePartitionEntry)
		switch {
		case !exists && !wanted || exists && wanted && matches:
			continue
		case exists && !wipe && !(wanted && util.IsTrue(p.Resize) && common):
			return false, false
		case exists && wanted && !wipe:
			start, p.Label, p.TypeGUID = util.IntToPtr(int(q.FirstLBA)), &q.Name, util.StrToPtr(q.TypeGUID.String())
		}
		if exists {
			deletions = append(deletions, fmt.Sprintf("--delete=%d", p.Number))
		}
		if wanted {
			creations = append(creations, create(p, start, size))
			if p.Label != nil {
				creations = append(creations, fmt.Sprintf("--change-name=%d:%s", p.Number, *p.Label))
			}
			if util.NotEmpty(p.TypeGUID) {
				creations = append(creations, fmt.Sprintf("--typecode=%d:%s", p.Number, *p.TypeGUID))
			}
		}
	}
	if len(deletions)+len(creations) > 0 {
		if out, ok = s.run(append(deletions, creations...)...); !ok {
			return false, false
		}
	}
	for _, p := range s.read().Partitions {
		odd = odd || p.FirstLBA < 2048 || p.FirstLBA%2048 != 0
	}
	return true, odd
}
