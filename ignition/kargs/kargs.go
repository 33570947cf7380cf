// Package kargs decides which kernel arguments a machine has to boot with so that they are as its config describes (spec 3.3: kernelArguments).
//
// The kernel command line is part of the signed boot program, and nothing changes it. What a config adds is put beside it, where the
// loaders find it whichever slot they start (package loader), behind a word that says how many words they are, so that a running system
// knows which of its arguments they are:
//
//	ignition.kargs=2 mitigations=auto,nosmt console=ttyS1
//
// The words are those of the config that are not on the line without them, in the config's order. What provisions a machine again with
// another config gets other words, or none. Refused: arguments that say what is booted, verified or provisioned (Protected); words that a
// loader cannot hand over; and taking away what the signed boot program, the firmware or somebody else's addon says.
package kargs

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/proa-os/proa/internal/cmdline"
)

// Marker is the word before those of provisioning.
const Marker = "ignition.kargs"

// maxLine is what Linux takes: COMMAND_LINE_SIZE of x86 and arm64, with the final NUL.
const maxLine = 2047

// A Change is what has to happen to the words beside the boot program.
type Change struct {
	Needed bool
	Words  []string // from now on; none: take the addon away
}

// Decide compares the running command line with what a config asks for. The error is a *Refusal.
func Decide(running cmdline.Line, want, unwanted []string) (Change, error) {
	base, added := split(running)
	for _, list := range [][]string{want, unwanted} {
		for _, w := range list {
			if err := Check(w); err != nil {
				return Change{}, err
			}
		}
	}
	for _, w := range unwanted {
		if slices.Contains(base, plain(w)) {
			return Change{}, &Refusal{Word: w, What: "kernel argument cannot be taken away", Expected: "an argument that provisioning has added",
				Found: "one of the boot program, which is signed, or of the image (image-builder platform)", Next: "add an argument that overrides it, or remove this one from the config"}
		}
	}
	var need []string
	for _, w := range want {
		if !slices.Contains(base, plain(w)) && !slices.Contains(need, plain(w)) {
			need = append(need, plain(w))
		}
	}
	if length := len(strings.Join(base, " ")) + len(Line(need)) + 1; len(need) > 0 && length > maxLine {
		return Change{}, &Refusal{Word: need[len(need)-1], What: "too many kernel arguments", Expected: fmt.Sprintf("at most %d bytes with the boot program's", maxLine),
			Found: strconv.Itoa(length), Next: "remove some from the config"}
	}
	return Change{Needed: !slices.Equal(need, added), Words: need}, nil
}

// split parts the words of provisioning from the others.
func split(l cmdline.Line) (base, added []string) {
	words := l.Words()
	for i := 0; i < len(words); i++ {
		n, err := strconv.Atoi(words[i].Value)
		if words[i].Key != Marker || err != nil || n < 0 || n > len(words)-i-1 {
			base = append(base, text(words[i]))
			continue
		}
		for _, w := range words[i+1:][:n] {
			added = append(added, text(w))
		}
		i += n
	}
	return base, added
}

// text is a word without the quotes that it may have.
func text(w cmdline.Word) string {
	if w.HasValue {
		return w.Key + "=" + w.Value
	}
	return w.Key
}

// plain is a config's word as text has those of the command line.
func plain(word string) string { return text(cmdline.Parse(word).Words()[0]) }

// Line is what is put beside the boot program.
func Line(words []string) string {
	return strings.Join(append([]string{Marker + "=" + strconv.Itoa(len(words))}, words...), " ")
}

// A Refusal says why a kernel argument cannot be had.
type Refusal struct{ Word, What, Expected, Found, Next string }

func (e *Refusal) Error() string {
	return fmt.Sprintf("%s: %q: expected %s, found %s; %s", e.What, e.Word, e.Expected, e.Found, e.Next)
}

// Check refuses what neither loader hands over as it is, and protected arguments. The error is a *Refusal.
func Check(word string) error {
	if bad := strings.IndexFunc(word, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`"'\$`, r) }); word == "" || bad >= 0 {
		return &Refusal{Word: word, What: "invalid kernel argument", Expected: "one word of printable ASCII without quotes, $ and backslashes", Found: "another character, or nothing",
			Next: "write each argument as an entry of its own"}
	}
	key := plain(word)
	if i := strings.IndexByte(key, '='); i > 0 {
		key = key[:i]
	}
	if Protected(key) {
		return &Refusal{Word: word, What: "protected kernel argument", Expected: "one that does not say what is booted, verified or provisioned", Found: key,
			Next: "remove it from the config; it belongs to the signed boot program, or to the platform"}
	}
	return nil
}

// Protected reports whether a key may not be set by a config, because it could change which root image is booted, whether it is verified,
// what a panic does, where the config comes from, or whether it is applied. The kernel takes "-" and "_" in keys for the same.
func Protected(key string) bool {
	key = strings.ReplaceAll(strings.ToLower(key), "-", "_")
	for _, prefix := range []string{"proa.", "ignition.", "dm_", "systemd.verity", "systemd.set_credential", "systemd.import_credentials", "rd."} {
		if strings.HasPrefix(key, prefix) {
			return true
		}
	}
	return slices.Contains([]string{
		"root", "rootfstype", "rootflags", "rootwait", "rootdelay", "ro", "rw", "roothash", "usrhash", // the root image
		"init", "rdinit", "initrd", "noinitrd", "__", // process 1; what stands behind "--" is its arguments
		"module.sig_enforce", "panic", // what is verified, and that a panic uses up a try
		"systemd.unit", "systemd.mask", "systemd.volatile", "systemd.confirm_spawn", "single", "s", "_s", "1", "2", "3", "4", "5", "emergency", "_b", "rescue", // what would keep provisioning from running
	}, key)
}

// Has reports whether a command line has a config's word, whoever has put it there.
func Has(running cmdline.Line, word string) bool {
	return slices.ContainsFunc(running.Words(), func(w cmdline.Word) bool { return text(w) == plain(word) })
}
