// Package grubenv reads and writes GRUB's environment block, in which GRUB keeps on a BIOS machine what systemd-boot writes into file
// names: the tries that counted boot programs have left.
//
// The block is the file EFI/Linux/grubenv on the ESP. image-builder makes an empty one, GRUB overwrites it in place, and the update
// agent empties it before it arms a release. The format (manual "GNU GRUB", section "Environment block"; util/grub-editenv.c):
//
//	# GRUB Environment Block\n      the signature
//	name=value\n                    any number of variables; \ and line breaks in a value have a \ before them
//	# comment\n                     lines that GRUB passes over
//	######...                       to the end, without a line break
//
// 1024 bytes in all, on which this package insists. There is one variable here, tries, and others are kept out:
//
//	tries=proa_1.0.1+3.efi=1 proa_1.0.2+3.efi=0
//
// are words of a file name and the tries that it has left, whatever its name says. A file that is not there counts as its name says.
package grubenv

import (
	"bytes"
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/proa-os/proa/internal/slot"
)

// File is the name of the block in the ESP's EFI/Linux.
const File = "grubenv"

// Size is that of every block, in bytes.
const Size = 1024

const (
	signature = "# GRUB Environment Block\n"
	variable  = "tries"
)

// Parse reads what a block says of boot programs. An unknown variable and a word that cannot be understood say nothing.
func Parse(block []byte) (slot.Counts, error) {
	text, ok := strings.CutPrefix(string(block), signature)
	if len(block) != Size || !ok {
		return nil, fmt.Errorf("read GRUB environment block: expected %d bytes that begin with %q, found %d that begin with %.24q",
			Size, strings.TrimSpace(signature), len(block), block)
	}
	counts := slot.Counts{}
	for text != "" {
		var line string
		line, text = cutLine(text)
		value, ok := strings.CutPrefix(line, variable+"=")
		if !ok {
			continue
		}
		clear(counts) // the last one wins, as in GRUB
		for _, word := range strings.Fields(value) {
			i := strings.LastIndexByte(word, '=')
			if i < 0 {
				continue
			}
			left, err := strconv.ParseUint(word[i+1:], 10, 8)
			if err == nil && strconv.FormatUint(left, 10) == word[i+1:] {
				counts[word[:i]] = int(left)
			}
		}
	}
	return counts, nil
}

// cutLine returns the first line without its escapes, and what follows it. A line that the end of the block cuts off is
// none: GRUB's padding has no line break.
func cutLine(text string) (line, rest string) {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		switch {
		case text[i] == '\\' && i+1 < len(text):
			i++
			b.WriteByte(text[i])
		case text[i] == '\n':
			return b.String(), text[i+1:]
		default:
			b.WriteByte(text[i])
		}
	}
	return "", ""
}

// Empty is a block in which nothing is counted.
func Empty() []byte {
	return append([]byte(signature), bytes.Repeat([]byte("#"), Size-len(signature))...)
}

// Two further blocks, on the ESP, hold kernel arguments; GRUB only reads them. grub.cfg takes the variable that is called as the file.
const (
	ArgumentsFile = "grub/ignition.env" // those that provisioning has added
	PlatformFile  = "grub/platform.env" // those that image-builder has put into the image: the platform, and how to come to the config
)

// Arguments is the block of ArgumentsFile or PlatformFile. Like every block it is a multiple of Size bytes. The words must be such that neither GRUB's
// shell nor its way to hand them to Linux would change them: printable ASCII without spaces, quotes and backslashes.
func Arguments(file string, words []string) ([]byte, error) {
	variable := strings.TrimSuffix(path.Base(file), ".env")
	for _, w := range words {
		if bad := strings.IndexFunc(w, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`"'\$`, r) }); w == "" || bad >= 0 {
			return nil, fmt.Errorf("write GRUB environment block: GRUB cannot hand over the kernel argument %q: expected printable ASCII without spaces, quotes, $ and backslashes", w)
		}
	}
	b := []byte(signature + variable + "=" + strings.Join(words, " ") + "\n")
	return append(b, bytes.Repeat([]byte("#"), (Size-len(b)%Size)%Size)...), nil
}
