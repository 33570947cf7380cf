package slot

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	good := map[string]Name{
		"proa_1.0.0.efi":          {Version: "1.0.0"},
		"proa_1.0.0+3.efi":        {Version: "1.0.0", Counted: true, Left: 3},
		"proa_1.0.0+2-1.efi":      {Version: "1.0.0", Counted: true, Left: 2, Done: 1},
		"proa_1.0.0+0-3.efi":      {Version: "1.0.0", Counted: true, Done: 3},
		"proa_1.3.0~rc.1+3.efi":   {Version: "1.3.0-rc.1", Counted: true, Left: 3},
		"proa_1.3.0~a-b.efi":      {Version: "1.3.0-a-b"},
		"proa_10.20.30+1-2.efi":   {Version: "10.20.30", Counted: true, Left: 1, Done: 2},
		"proa_0.0.1~0+99-99.efi":  {Version: "0.0.1-0", Counted: true, Left: 99, Done: 99},
		"proa_1.3.0~rc-1+0-1.efi": {Version: "1.3.0-rc-1", Counted: true, Done: 1},
	}
	for file, want := range good {
		got, err := Parse(file)
		if err != nil || got != want {
			t.Errorf("Parse(%q): got %+v, %v, want %+v", file, got, err, want)
		}
		if got.String() != file {
			t.Errorf("String: got %q, want %q", got.String(), file)
		}
	}
	for _, file := range []string{
		"", "proa_.efi", "proa_1.0.0", "proa_1.0.efi", "debian_1.0.0.efi", "proa_1.0.0+.efi", "proa_1.0.0+x.efi",
		"proa_1.0.0+3-.efi", "proa_1.0.0+-1.efi", "proa_1.0.0+03.efi", "proa_1.0.0+100.efi", "proa_1.0.0+3+3.efi",
		"proa_1.0.0-rc1.efi", "proa_1.0.0.part", "proa_1.0.0.efi.part", "proa_1.0.0~~rc.efi", "proa_01.0.0.efi",
		"proa_../1.0.0.efi", "PROA_1.0.0.EFI",
	} {
		if got, err := Parse(file); err == nil {
			t.Errorf("Parse(%q): got %+v, want an error", file, got)
		}
	}
}

// The expected column is what `systemd-analyze compare-versions` answers for the names' "~" form.
func TestCompare(t *testing.T) {
	for _, c := range []struct {
		older, newer string
	}{
		{"1.0.0", "1.0.1"}, {"1.0.9", "1.0.10"}, {"1.9.0", "1.10.0"}, {"9.0.0", "10.0.0"},
		{"1.0.0-rc.1", "1.0.0"}, {"1.0.0-rc.1", "1.0.0-rc.2"}, {"1.0.0-rc.9", "1.0.0-rc.10"},
		{"1.0.0-alpha", "1.0.0-beta"}, {"1.0.0-alpha", "1.0.0-alpha.1"}, {"0.9.9", "1.0.0-alpha"},
		{"1.0.0-alpha", "1.0.0-1"}, // semver says the opposite; the loader decides
		{"1.0.0-a-b", "1.0.0-a.b"},
	} {
		if got := Compare(c.older, c.newer); got >= 0 {
			t.Errorf("Compare(%q, %q): got %d, want negative", c.older, c.newer, got)
		}
		if got := Compare(c.newer, c.older); got <= 0 {
			t.Errorf("Compare(%q, %q): got %d, want positive", c.newer, c.older, got)
		}
		if got := Compare(c.newer, c.newer); got != 0 {
			t.Errorf("Compare(%q, itself): got %d, want 0", c.newer, got)
		}
	}
}

func TestChoose(t *testing.T) {
	for _, c := range []struct {
		name    string
		files   string
		next    string
		renamed string
	}{
		{"one good", "proa_1.0.0.efi", "proa_1.0.0.efi", "proa_1.0.0.efi"},
		{"newest of two good", "proa_1.0.9.efi proa_1.0.10.efi", "proa_1.0.10.efi", "proa_1.0.10.efi"},
		{"a try", "proa_1.0.0.efi proa_1.0.1+3.efi", "proa_1.0.1+3.efi", "proa_1.0.1+2-1.efi"},
		{"the last try", "proa_1.0.0.efi proa_1.0.1+1-2.efi", "proa_1.0.1+1-2.efi", "proa_1.0.1+0-3.efi"},
		{"exhausted", "proa_1.0.0.efi proa_1.0.1+0-3.efi", "proa_1.0.0.efi", "proa_1.0.0.efi"},
		{"nothing but exhausted", "proa_1.0.1+0-3.efi", "proa_1.0.1+0-3.efi", "proa_1.0.1+0-3.efi"},
		{"older but armed", "proa_1.0.2.efi proa_1.0.1+3.efi", "proa_1.0.2.efi", "proa_1.0.2.efi"},
		{"pre-release before release", "proa_1.0.0~rc.1+3.efi proa_1.0.0.efi", "proa_1.0.0.efi", "proa_1.0.0.efi"},
		{"not ours", "debian.efi proa_1.0.1.part proa_1.0.0.efi notes.txt", "proa_1.0.0.efi", "proa_1.0.0.efi"},
	} {
		files := strings.Fields(c.files)
		for range len(files) { // the order in the folder does not matter
			files = append(files[1:], files[0])
			next, renamed, ok := Choose(files)
			if !ok || next != c.next || renamed != c.renamed {
				t.Errorf("%s: Choose(%q): got %q, %q, %v, want %q, %q", c.name, files, next, renamed, ok, c.next, c.renamed)
			}
		}
	}
	if next, _, ok := Choose([]string{"notes.txt"}); ok {
		t.Errorf("an empty folder boots %q", next)
	}
}

func TestVerdicts(t *testing.T) {
	armed, err := Arm("1.0.1")
	if err != nil || armed != "proa_1.0.1+3.efi" {
		t.Errorf("Arm: got %q, %v", armed, err)
	}
	for _, v := range []string{"1.0.1+build", "1.0", "", "v1.0.0", "1.0.0/../x"} {
		if got, err := Arm(v); err == nil {
			t.Errorf("Arm(%q): got %q, want an error", v, got)
		}
	}
	for from, want := range map[string]string{
		"proa_1.0.1+2-1.efi": "proa_1.0.1+0-1.efi", "proa_1.0.1+3.efi": "proa_1.0.1+0-1.efi", "proa_1.0.1+0-3.efi": "proa_1.0.1+0-3.efi",
	} {
		if got, err := MarkBad(from); err != nil || got != want {
			t.Errorf("MarkBad(%q): got %q, %v, want %q", from, got, err, want)
		}
		if got, err := MarkGood(from); err != nil || got != "proa_1.0.1.efi" {
			t.Errorf("MarkGood(%q): got %q, %v", from, got, err)
		}
	}
	if got := Temporary("1.0.1-rc.1"); got != "proa_1.0.1~rc.1.part" {
		t.Errorf("Temporary: got %q", got)
	}
}

// A model of every machine with up to three boot programs, each release either booting well or always failing. Booted
// until the choice settles, the machine must run the newest release that works, after at most the counted tries, and the
// loaders of both firmwares must agree at every boot.
func TestEveryMachine(t *testing.T) {
	versions := []string{"1.0.0", "1.0.1-rc.1", "1.0.1"}
	counters := []string{"-", "", "+3", "+2-1", "+1-2", "+0-3"} // "-": not on the disk
	var machines int
	for a := range counters {
		for b := range counters {
			for c := range counters {
				for works := range 8 {
					var files []string
					broken := map[string]bool{}
					for i, k := range []int{a, b, c} {
						broken[versions[i]] = works&(1<<i) == 0
						if counters[k] != "-" {
							files = append(files, strings.Replace(prefix+versions[i]+counters[k]+suffix, "1-rc", "1~rc", 1))
						}
					}
					checkMachine(t, files, broken)
					machines++
				}
			}
		}
	}
	if machines != 6*6*6*8 {
		t.Errorf("%d machines", machines)
	}
}

func checkMachine(t *testing.T, files []string, broken map[string]bool) {
	t.Helper()
	want := expected(files, broken)
	machine := fmt.Sprintf("%q broken %v", files, broken)
	one, other := &uefi{slices.Clone(files)}, &bios{uefi: uefi{slices.Clone(files)}}
	for boot := 0; ; boot++ {
		version, counted, ok := one.boot()
		if v, c, o := other.boot(); v != version || c != counted || o != ok || !slices.Equal(one.seen(), other.seen()) {
			t.Fatalf("%s: systemd-boot starts %q (try: %v) and leaves %q, GRUB starts %q (try: %v) and leaves %q", machine, version, counted, one.seen(), v, c, other.seen())
		}
		if !ok {
			if len(files) != 0 {
				t.Errorf("%s: nothing boots", machine)
			}
			return
		}
		if !broken[version] {
			if version != want {
				t.Errorf("%s: runs %s, want %s", machine, version, want)
			}
			for _, l := range []loader{one, other} {
				l.good(version)
				if again, counted, _ := l.boot(); again != version || counted {
					t.Errorf("%s: after %s became good, %s boots (try: %v)", machine, version, again, counted)
				}
			}
			return
		}
		if !counted { // good or the last resort: it will fail for ever
			if want != "" {
				t.Errorf("%s: stuck on %s, want %s", machine, version, want)
			}
			return
		}
		if boot > 3*Tries {
			t.Fatalf("%s: never settles", machine)
		}
	}
}

// expected states the rule a second time, by search: the candidates in the order good-or-tries-left by version, then
// the rest; a broken one without a counter blocks what is behind it.
func expected(files []string, broken map[string]bool) string {
	for _, exhausted := range []bool{false, true} {
		for _, v := range []string{"1.0.1", "1.0.1-rc.1", "1.0.0"} {
			for _, f := range files {
				n, _ := Parse(f)
				if n.Version != v || n.Exhausted() != exhausted {
					continue
				}
				if !broken[v] {
					return v
				}
				if n.Good() || exhausted {
					return ""
				}
			}
		}
		if exhausted {
			break
		}
		// What had tries left is exhausted now and stands, by version, among the rest: only one that works and was
		// exhausted from the start can still run, if nothing newer that is broken stands before it.
		for _, v := range []string{"1.0.1", "1.0.1-rc.1", "1.0.0"} {
			for _, f := range files {
				if n, _ := Parse(f); n.Version == v {
					if broken[v] {
						return ""
					}
					return v
				}
			}
		}
	}
	return ""
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"proa_1.0.0.efi", "proa_1.3.0~rc.1+2-1.efi", "proa_1.0.0+0-3.efi", "proa_+.efi"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := Parse(s)
		if err != nil {
			return
		}
		again, err := Parse(n.String())
		if err != nil || again != n {
			t.Errorf("Parse(%q) = %+v, but its name %q parses to %+v, %v", s, n, n.String(), again, err)
		}
	})
}

func FuzzCompare(f *testing.F) {
	f.Add("1.0.0", "1.0.0-rc.1")
	f.Add("1.0^", "1.0..")
	f.Fuzz(func(t *testing.T, a, b string) {
		if x, y := Compare(a, b), Compare(b, a); x != -y {
			t.Errorf("Compare(%q, %q) = %d, the other way round %d", a, b, x, y)
		}
	})
}
