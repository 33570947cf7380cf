package slot

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

func TestSeen(t *testing.T) {
	counts := Counts{"proa_1.0.1+3.efi": 1, "proa_1.0.2+3.efi": 0, "proa_1.0.3+2-1.efi": 2, "proa_1.0.4+1-2.efi": 3, "proa_1.0.5.efi": 0, "notes": 1, "proa_1.0.6+3.efi": -1}
	for file, want := range map[string]string{
		"proa_1.0.1+3.efi":   "proa_1.0.1+1-2.efi",
		"proa_1.0.2+3.efi":   "proa_1.0.2+0-3.efi",
		"proa_1.0.3+2-1.efi": "proa_1.0.3+2-1.efi",
		"proa_1.0.4+1-2.efi": "proa_1.0.4+1-2.efi", // a count only takes tries away
		"proa_1.0.5.efi":     "proa_1.0.5.efi",     // good is good
		"proa_1.0.6+3.efi":   "proa_1.0.6+3.efi",
		"proa_1.0.1+2-1.efi": "proa_1.0.1+2-1.efi", // another name was counted
	} {
		if n, err := counts.Seen(file); err != nil || n.String() != want {
			t.Errorf("Seen(%q): got %q, %v, want %q", file, n, err, want)
		}
		if n, err := Counts(nil).Seen(file); err != nil || n.String() != file {
			t.Errorf("Seen(%q) without counts: got %q, %v", file, n, err)
		}
	}
	if n, err := counts.Seen("notes"); err == nil {
		t.Errorf("Seen: got %+v for a file that is not ours", n)
	}
}

func TestChooseBIOS(t *testing.T) {
	for _, c := range []struct {
		name, files  string
		before       Counts
		next         string
		after        Counts
		nothingBoots bool
	}{
		{"good", "proa_1.0.0.efi", Counts{"proa_0.9.0+3.efi": 0}, "proa_1.0.0.efi", Counts{"proa_0.9.0+3.efi": 0}, false},
		{"first try", "proa_1.0.0.efi proa_1.0.1+3.efi", nil, "proa_1.0.1+3.efi", Counts{"proa_1.0.1+3.efi": 2}, false},
		{"last try", "proa_1.0.0.efi proa_1.0.1+3.efi", Counts{"proa_1.0.1+3.efi": 1}, "proa_1.0.1+3.efi", Counts{"proa_1.0.1+3.efi": 0}, false},
		{"none left", "proa_1.0.0.efi proa_1.0.1+3.efi", Counts{"proa_1.0.1+3.efi": 0}, "proa_1.0.0.efi", Counts{"proa_1.0.1+3.efi": 0}, false},
		{"tries begun under UEFI", "proa_1.0.0.efi proa_1.0.1+2-1.efi", Counts{"proa_1.0.1+3.efi": 0}, "proa_1.0.1+2-1.efi", Counts{"proa_1.0.1+2-1.efi": 1}, false},
		{"two armed, one keeps its count", "proa_1.0.1+3.efi proa_1.0.2+3.efi", Counts{"proa_1.0.2+3.efi": 0, "proa_9.0.0+3.efi": 1}, "proa_1.0.1+3.efi",
			Counts{"proa_1.0.1+3.efi": 2, "proa_1.0.2+3.efi": 0}, false},
		{"nothing but exhausted", "proa_1.0.1+3.efi", Counts{"proa_1.0.1+3.efi": 0}, "proa_1.0.1+3.efi", Counts{"proa_1.0.1+3.efi": 0}, false},
		{"not ours", "notes.txt", nil, "", nil, true},
	} {
		files := strings.Fields(c.files)
		slices.Reverse(files)
		next, after, ok := ChooseBIOS(files, c.before)
		if ok == c.nothingBoots || next != c.next || !maps.Equal(after, c.after) {
			t.Errorf("%s: got %q, %v, %v; want %q, %v", c.name, next, after, ok, c.next, c.after)
		}
	}
}

// A loader is a model of one, with the ESP it works on.
type loader interface {
	// boot returns the program that is started, by version.
	boot() (version string, counted, ok bool)
	good(version string) // the running one has proven itself
	seen() []string      // all names as the loader understands them
}

type uefi struct{ files []string }

func (l *uefi) boot() (string, bool, bool) {
	next, renamed, ok := Choose(l.files)
	if !ok {
		return "", false, false
	}
	l.files[slices.Index(l.files, next)] = renamed
	n, _ := Parse(renamed)
	return n.Version, renamed != next, true
}

func (l *uefi) good(version string) {
	for i, f := range l.files {
		if n, _ := Parse(f); n.Version == version {
			l.files[i], _ = MarkGood(f)
		}
	}
}

func (l *uefi) seen() []string { return slices.Sorted(slices.Values(l.files)) }

type bios struct {
	uefi
	counts Counts
}

func (l *bios) boot() (string, bool, bool) {
	next, after, ok := ChooseBIOS(l.files, l.counts)
	if !ok {
		return "", false, false
	}
	n, _ := Parse(next)
	counted := !maps.Equal(after, l.counts)
	l.counts = after
	return n.Version, counted, true
}

func (l *bios) seen() (names []string) {
	for _, f := range l.files {
		n, _ := l.counts.Seen(f)
		names = append(names, n.String())
	}
	return slices.Sorted(slices.Values(names))
}
