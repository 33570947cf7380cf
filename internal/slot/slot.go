// Package slot is the rule by which a machine chooses what it boots, as pure functions over file names.
//
// The rule: newest first; a boot program is tried while it has tries left; a good one has no counter; when the tries
// run out the older one boots. The loader applies it on the ESP's EFI/Linux folder, the update agent writes names that
// steer it, and tests model whole machines with it. Nothing here reads a disk: which slot a boot program belongs to is
// its content (its command line's root hash), never its name.
//
// Names are those of the Automatic Boot Assessment (UAPI group, systemd.boot(7)):
//
//	proa_1.2.3.efi        good, for ever
//	proa_1.2.3+3.efi      armed: three tries left
//	proa_1.2.3+2-1.efi    two left, one done: this boot is a try
//	proa_1.2.3+0-3.efi    exhausted or bad: last in the order
//
// A pre-release's "-" is written "~" (proa_1.3.0~rc.1.efi), because the loader's version order puts "~" before the
// release and "-" behind it. Under a BIOS, GRUB follows the same rule but cannot rename: it keeps the tries that are left beside the
// names (Counts, package grubenv), and Seen is the name that a file has with them. Build metadata ("+...") cannot be written and is refused. Other names are not ours:
// Parse refuses them and Choose does not see them.
package slot

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/coreos/go-semver/semver"
)

// Tries is how often an armed boot program is tried before the older one boots.
const Tries = 3

const (
	prefix = "proa_"
	suffix = ".efi"
	// maxCount bounds both counters; the loader's bound is INT_MAX, nobody means more than this.
	maxCount = 99
)

// A Name is the parsed file name of a boot program.
type Name struct {
	Version string // semver, with "-" before a pre-release
	Counted bool   // has a counter: not good yet, or no longer
	Left    int    // tries left; meaningful if Counted
	Done    int    // tries done; meaningful if Counted
}

// Parse reads a file name such as "proa_1.0.1+2-1.efi".
func Parse(file string) (Name, error) {
	body, ok := strings.CutPrefix(file, prefix)
	if !ok {
		return Name{}, fmt.Errorf("parse boot program name %q: want %s<version>[+left[-done]]%s", file, prefix, suffix)
	}
	if body, ok = strings.CutSuffix(body, suffix); !ok {
		return Name{}, fmt.Errorf("parse boot program name %q: want the ending %s", file, suffix)
	}
	version, counter, counted := strings.Cut(body, "+")
	n := Name{Version: strings.Replace(version, "~", "-", 1), Counted: counted}
	if counted {
		left, done, tried := strings.Cut(counter, "-")
		var err error
		if n.Left, err = parseCount(left); err != nil {
			return Name{}, fmt.Errorf("parse boot program name %q: tries left: %w", file, err)
		}
		if tried {
			if n.Done, err = parseCount(done); err != nil {
				return Name{}, fmt.Errorf("parse boot program name %q: tries done: %w", file, err)
			}
		}
	}
	if err := checkVersion(n.Version); err != nil {
		return Name{}, fmt.Errorf("parse boot program name %q: %w", file, err)
	}
	if strings.Contains(version, "-") && !strings.Contains(version, "~") {
		return Name{}, fmt.Errorf("parse boot program name %q: a pre-release is written with ~", file)
	}
	return n, nil
}

func parseCount(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 || n > maxCount || strconv.Itoa(n) != s {
		return 0, fmt.Errorf("%q is not a number from 0 to %d", s, maxCount)
	}
	return n, nil
}

// checkVersion refuses what no file name can carry.
func checkVersion(version string) error {
	v, err := semver.NewVersion(version)
	if err != nil {
		return fmt.Errorf("version %q: %w", version, err)
	}
	if v.Metadata != "" {
		return fmt.Errorf("version %q: build metadata (+%s) cannot be part of a boot program's name", version, v.Metadata)
	}
	if v.String() != version || strings.ContainsAny(version, "~/\\") {
		return fmt.Errorf("version %q: not in its canonical form %q", version, v)
	}
	return nil
}

// String is the file name; it is the inverse of Parse, except that "+2-0" becomes "+2".
func (n Name) String() string {
	s := prefix + strings.Replace(n.Version, "-", "~", 1)
	if n.Counted {
		s += "+" + strconv.Itoa(n.Left)
		if n.Done > 0 {
			s += "-" + strconv.Itoa(n.Done)
		}
	}
	return s + suffix
}

// Good reports whether the boot program has proven itself.
func (n Name) Good() bool { return !n.Counted }

// Exhausted reports whether no try is left: it boots only if there is nothing else.
func (n Name) Exhausted() bool { return n.Counted && n.Left == 0 }

// Temporary is the name under which the boot program of version is written before the commit point.
// The loader does not see it, because it does not end in .efi.
func Temporary(version string) string {
	return strings.TrimSuffix(Name{Version: version}.String(), suffix) + ".part"
}

// Arm is the name that makes version the next to try. Giving a file this name is the commit point of an update.
func Arm(version string) (string, error) {
	if err := checkVersion(version); err != nil {
		return "", fmt.Errorf("arm: %w", err)
	}
	return Name{Version: version, Counted: true, Left: Tries}.String(), nil
}

// MarkGood is the name of the same boot program once it has proven itself.
func MarkGood(file string) (string, error) {
	n, err := Parse(file)
	if err != nil {
		return "", err
	}
	return Name{Version: n.Version}.String(), nil
}

// MarkBad is the name of the same boot program once it must not be tried any more.
func MarkBad(file string) (string, error) {
	n, err := Parse(file)
	if err != nil {
		return "", err
	}
	return Name{Version: n.Version, Counted: true, Left: 0, Done: max(n.Done, 1)}.String(), nil
}

// Choose says which of the files in EFI/Linux boots next, and which name it has once it is running: the loader takes
// one try before it starts a counted boot program. ok is false when there is nothing to boot.
func Choose(files []string) (next, renamed string, ok bool) {
	order := Order(files)
	if len(order) == 0 {
		return "", "", false
	}
	n, _ := Parse(order[0])
	if n.Counted && n.Left > 0 {
		n.Left--
		n.Done = min(n.Done+1, maxCount)
		return order[0], n.String(), true
	}
	return order[0], order[0], true
}

// Order returns our boot programs among files in the loader's order, first what boots next
// (systemd 257, boot.c, boot_entry_compare for entries of one sort key).
func Order(files []string) []string {
	var ours []string
	for _, f := range files {
		if _, err := Parse(f); err == nil {
			ours = append(ours, f)
		}
	}
	slices.SortStableFunc(ours, func(a, b string) int {
		x, _ := Parse(a)
		y, _ := Parse(b)
		return compareNames(x, y)
	})
	return ours
}

func compareNames(x, y Name) int {
	if r := compareBool(x.Exhausted(), y.Exhausted()); r != 0 {
		return r
	}
	if r := -Compare(x.Version, y.Version); r != 0 {
		return r
	}
	if !x.Counted || !y.Counted {
		// The loader compares whole names next, in which a counted one is the longer and so the newer.
		return -compareBool(x.Counted, y.Counted)
	}
	if r := -cmp.Compare(x.Left, y.Left); r != 0 {
		return r
	}
	return cmp.Compare(x.Done, y.Done)
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}
