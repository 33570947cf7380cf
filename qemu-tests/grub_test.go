package qemutests

import (
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/proa-os/proa/image-builder/fat"
	"github.com/proa-os/proa/image-builder/grub"
	"github.com/proa-os/proa/internal/gpt"
	"github.com/proa-os/proa/internal/grubenv"
	"github.com/proa-os/proa/internal/slot"
	"github.com/proa-os/proa/internal/testenv"
	"github.com/proa-os/proa/internal/tooltree"
	"github.com/proa-os/proa/qemu-tests/vm"
)

// A grubCase is an EFI/Linux folder and what was counted of it.
type grubCase struct {
	files  []string
	counts slot.Counts
}

// grubCases are machines with up to three boot programs, each good, armed, tried, exhausted or not there, and with counts of
// any of them: every fifth of those that package slot's own test goes through, as GRUB is slow.
func grubCases() []grubCase {
	rng := rand.New(rand.NewPCG(1, 2))
	counters := []string{"-", "", "+3", "+2-1", "+1-2", "+0-3"}
	var cases []grubCase
	for i := 0; i < len(counters)*len(counters)*len(counters); i += 5 {
		k := i
		var files []string
		for _, v := range []string{"1.0.0", "1.0.1~rc.1", "1.0.1"} {
			if c := counters[k%len(counters)]; c != "-" {
				files = append(files, "proa_"+v+c+".efi")
			}
			k /= len(counters)
		}
		c := grubCase{files, slot.Counts{}}
		rng.Shuffle(len(files), func(i, j int) { files[i], files[j] = files[j], files[i] })
		for _, f := range files {
			if rng.IntN(2) > 0 {
				c.counts[f] = rng.IntN(4)
			}
		}
		cases = append(cases, c)
	}
	// Names that are not ours, or not canonical; many tries; two names of one program.
	for _, files := range []string{"notes.txt", "", "proa_1.0.efi proa_01.0.0.efi proa_1.0.0.part proa_1.0.0-rc.efi proa_1.0.0+03.efi proa_1.0.0+100.efi", "proa_1.0.0+99.efi",
		"proa_1.0.0+10-2.efi", "proa_1.0.0.efi proa_1.0.0+3.efi", "proa_1.0.0+2-1.efi proa_1.0.0+3.efi", "proa_9.0.0.efi proa_10.0.0+1.efi", "proa_1.0.0.efi proa_1.1.0~a-b.c+3-0.efi"} {
		cases = append(cases, grubCase{strings.Fields(files), nil})
	}
	return cases
}

// grubVersions are in the order of the rule.
func grubVersions() []string {
	versions := []string{"1.0.0", "1.0.1", "1.0.10", "1.9.0", "1.10.0", "10.0.0", "9.0.0", "1.0.0-rc.1", "1.0.0-rc.2", "1.0.0-rc.10", "1.0.0-rc", "1.0.0-alpha", "1.0.0-alpha.1",
		"1.0.0-alpha-1", "1.0.0-alpha1", "1.0.0-beta", "1.0.0-1", "1.0.0-a-b", "1.0.0-a.b", "1.0.0-a-d", "1.0.0-a-", "1.0.0-a", "1.0.0--", "1.0.0-dev.20261125174500", "1.0.0-dev.20261125174501", "1.0.0-dev.9",
		"2147483648.0.0", "4294967297.0.0", "1.0.0-RC.1", "0.0.0", "1.0.0-x1y", "1.0.0-x01y2",
		"1.0.0-rc009", "1.0.0-rc010", "1.0.0-rc.010"}
	slices.SortFunc(versions, slot.Compare)
	return versions
}

// TestGRUBFollowsTheRule has the real GRUB, on a disk without any boot program that could be started, choose and count in every
// case, and compares it with package slot.
func TestGRUBFollowsTheRule(t *testing.T) {
	tools := testenv.Machines(t)
	s := begin(t)
	cases, versions := grubCases(), grubVersions()
	var files []string
	for _, c := range cases {
		files = append(files, c.files...)
	}
	m := s.grubMachine(tools, "grub", grubScript(t, cases, versions), grubenv.Empty(), files)
	if _, err := m.WaitConsole(t.Context(), `^all cases done`); err != nil {
		t.Fatal(err)
	}
	said := map[string]string{}
	for _, l := range m.Console().Lines(0) {
		if w := regexp.MustCompile(`^([rct]\d+) ?(.*)$`).FindStringSubmatch(strings.TrimSpace(l.Text)); w != nil {
			said[w[1]] = strings.TrimSpace(w[2])
		}
	}
	for i, v := range versions {
		// Than the one before, itself, the next, and one further on.
		if got, want := said[fmt.Sprint("r", i)], newerThan(versions, i, func(a, b string) string { return map[bool]string{true: "1", false: "0"}[slot.Compare(a, b) > 0] }); got != want {
			t.Errorf("%s among %q: GRUB says %s, the rule %s", v, versions, got, want)
		}
	}
	for i, c := range cases {
		next, after, _ := slot.ChooseBIOS(c.files, c.counts)
		if got := said[fmt.Sprint("c", i)]; got != next {
			t.Errorf("%q with %v: GRUB starts %q, the rule %q", c.files, c.counts, got, next)
		}
		got, counted := said[fmt.Sprint("t", i)]
		if !counted && maps.Equal(after, c.counts) {
			continue
		}
		if !maps.Equal(parseTries(got), after) {
			t.Errorf("%q with %v: GRUB counts %q, the rule %v", c.files, c.counts, got, after)
		}
	}
	if err := m.PowerCut(); err != nil {
		t.Fatal(err)
	}
	lastOnDisk(t, m.Disk(), said[fmt.Sprint("t", len(cases)-1)])
}

// TestGRUBStartsNothing gives GRUB boot programs with nothing to start in them: the try is used up before it shows, GRUB reboots by itself,
// and so comes to the good one. What it cannot count it does not try. Empty files, which are left when power is lost in a rename, it
// does not see.
func TestGRUBStartsNothing(t *testing.T) {
	tools := testenv.Machines(t)
	s := begin(t)
	const good, armed = "proa_1.0.0.efi", "proa_1.0.1~rc.1+3.efi"
	m := s.grubMachine(tools, "empty", grub.Config, grubenv.Empty(), []string{good, armed}, "proa_1.0.2.efi", "proa_1.0.3+3.efi")
	for i := range slot.Tries + 1 {
		want := []string{"trying " + armed + ", tries left behind this one: " + fmt.Sprint(slot.Tries-1-i), "starting " + armed}
		if i == slot.Tries {
			want = []string{"starting " + good}
		}
		for _, w := range append(want, "nothing was started, rebooting in 10 seconds") {
			if l := must(m.WaitConsole(t.Context(), `^proa: grub: `))(t); !strings.Contains(l.Text, w) || l.Boot != i+1 {
				t.Fatalf("got %q in boot %d, want %q in boot %d", l.Text, l.Boot, w, i+1)
			}
		}
	}
	m = s.grubMachine(tools, "damaged", grub.Config, []byte("# GRUB Environment Block"), []string{armed, good})
	for _, w := range []string{armed + " is not tried", "starting " + good} {
		if l := must(m.WaitConsole(t.Context(), `^proa: grub: `))(t); !strings.Contains(l.Text, w) {
			t.Fatalf("got %q, want %q", l.Text, w)
		}
	}
}

// grubMachine starts GRUB from a disk like an image's, with a script for its configuration, and files for boot programs that are none.
func (s *story) grubMachine(tools *tooltree.Tree, name, script string, block []byte, programs []string, empty ...string) *vm.Machine {
	s.t.Helper()
	disk := filepath.Join(s.dir, name+".img")
	files := []fat.File{fat.BytesFile(grub.ConfigPath, []byte(script)), fat.BytesFile("EFI/Linux/"+grubenv.File, block)}
	slices.Sort(programs)
	for _, p := range slices.Compact(programs) {
		files = append(files, fat.BytesFile("EFI/Linux/"+p, []byte("no boot program")))
	}
	for _, p := range empty {
		files = append(files, fat.BytesFile("EFI/Linux/"+p, nil))
	}
	writeGRUBDisk(s.t, tools, disk, files)
	return s.start(vm.Config{Name: name, Dir: filepath.Join(s.dir, name), Disk: disk, Firmware: vm.BIOS, MemoryMiB: 256})
}

// newerThan compares the version at i with some of the others.
func newerThan(versions []string, i int, compare func(a, b string) string) (all string) {
	for _, j := range []int{i - 1, i, i + 1, i + 9} {
		all += compare(versions[i], versions[(j+len(versions))%len(versions)])
	}
	return all
}

// parseTries reads what GRUB prints of its variable.
func parseTries(text string) slot.Counts {
	counts := slot.Counts{}
	for _, w := range strings.Fields(text) {
		var left int
		i := strings.LastIndexByte(w, '=')
		fmt.Sscan(w[i+1:], &left)
		counts[w[:i]] = left
	}
	return counts
}

// lastOnDisk compares what GRUB has left on the disk with what it said last.
func lastOnDisk(t *testing.T, name, said string) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	table, err := gpt.Read(f, grubDiskSize, 512)
	if err != nil {
		t.Fatal(err)
	}
	esp, err := table.Find("esp")
	if err != nil {
		t.Fatal(err)
	}
	files, err := fat.Open(io.NewSectionReader(f, table.Offset(esp), table.Size(esp)))
	if err != nil {
		t.Fatal(err)
	}
	block, err := files.ReadFile("EFI/Linux/" + grubenv.File)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := grubenv.Parse(block); err != nil || len(got) == 0 || !maps.Equal(got, parseTries(said)) {
		t.Errorf("on the disk is %v, %v; GRUB said %q", got, err, said)
	}
}

// grubScript is GRUB's configuration with its last lines, which start something, replaced by the cases.
func grubScript(t *testing.T, cases []grubCase, versions []string) string {
	t.Helper()
	head, _, ok := strings.Cut(grub.Config, "\nproa_boot\n")
	if !ok {
		t.Fatal("GRUB's configuration does not call proa_boot")
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s\nset good_only=0\n", head)
	for i := range versions {
		compare := newerThan(versions, i, func(a, b string) string {
			return fmt.Sprintf("if proa_newer '%s' '%s'; then set row=\"${row}1\"; else set row=\"${row}0\"; fi\n", strings.Replace(a, "-", "~", 1), strings.Replace(b, "-", "~", 1))
		})
		fmt.Fprintf(&b, "set row=\n%secho \"r%d $row\"\n", compare, i)
	}
	for i, c := range cases {
		words := []string{"proa_0.0.1+3.efi=1"} // a file that is gone
		for _, f := range slices.Sorted(maps.Keys(c.counts)) {
			words = append(words, fmt.Sprintf("%s=%d", f, c.counts[f]))
		}
		fmt.Fprintf(&b, "set tries='%s'\nproa_choose %s\necho \"c%d $chosen\"\n", strings.Join(words, " "), strings.Join(c.files, " "), i)
		fmt.Fprintf(&b, "if [ -n \"$chosen\" -a \"$chosen_counted\" = 1 -a \"$chosen_spent\" = 0 ]; then if proa_count; then echo \"t%d $tries\"; else echo \"t%d not=1\"; fi; fi\n", i, i)
	}
	b.WriteString("echo 'all cases done'\nsleep 1000\n")
	return b.String()
}

const grubDiskSize = 300 << 20

// writeGRUBDisk makes a disk with an ESP and GRUB.
func writeGRUBDisk(t *testing.T, tools *tooltree.Tree, name string, files []fat.File) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(grubDiskSize); err != nil {
		t.Fatal(err)
	}
	table := &gpt.Table{DiskGUID: gpt.NewGUID([16]byte{1}), SectorSize: 4096, Sectors: grubDiskSize / 4096}
	for i, p := range []struct {
		name string
		kind gpt.GUID
		size int64
	}{{"esp", gpt.TypeESP, 280 << 20}, {"bios", gpt.TypeBIOSBoot, 1 << 20}} {
		if _, err := table.Add(gpt.Partition{TypeGUID: p.kind, GUID: gpt.NewGUID([16]byte{2, byte(i)}), Name: p.name}, p.size); err != nil {
			t.Fatal(err)
		}
	}
	if err := table.WriteBoth(f); err != nil {
		t.Fatal(err)
	}
	if err := grub.Install(t.Context(), tools, f, table); err != nil {
		t.Fatal(err)
	}
	esp, err := table.Find("esp")
	if err != nil {
		t.Fatal(err)
	}
	err = fat.Write(io.NewOffsetWriter(f, table.Offset(esp)), fat.Options{Size: table.Size(esp), Label: "ESP", Time: time.Unix(1767225600, 0), SectorSize: 4096,
		HiddenSectors: uint32(esp.FirstLBA)}, files)
	if err != nil {
		t.Fatal(err)
	}
}
