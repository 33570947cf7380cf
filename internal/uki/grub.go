package uki

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/proa-os/proa/internal/cmdline"
)

// reserveGRUB appends an empty script at its fixed place.
func (h *header) reserveGRUB(out []byte) ([]byte, error) {
	if len(out) > GRUBOffset {
		return nil, fmt.Errorf("the stub has %d bytes, expected at most %d in front of the section", len(out), GRUBOffset)
	}
	out = append(out, make([]byte, GRUBOffset-len(out))...)
	return h.add(out, SectionGRUB, bytes.Repeat([]byte("\n"), GRUBSize), sectionInitialized|sectionRead)
}

// grubScript is the content of .grub once the places of the other sections are known.
func (h *header) grubScript(line string) (string, error) {
	words, err := grubWords(line)
	if err != nil {
		return "", err
	}
	blocks := map[string]string{}
	for _, s := range h.sections {
		blocks[s.Name] = fmt.Sprintf("%d+%d", s.Offset/fileAlign, s.padded/fileAlign)
	}
	script := fmt.Sprintf("linux (uki)%s %s $proa_extra\ninitrd (uki)%s\n", blocks[SectionLinux], strings.Join(words, " "), blocks[SectionInitrd])
	if len(script) > GRUBSize {
		return "", fmt.Errorf("the script has %d bytes, expected at most %d: the command line is too long", len(script), GRUBSize)
	}
	return script, nil
}

// grubWords writes the words of a kernel command line as words of GRUB's shell. GRUB puts double quotes around a word with a space in it
// before it hands it to the kernel, so the ones that are there are dropped; quotes and backslashes inside it would escape with
// backslashes, of which the kernel knows nothing (grub-core/lib/cmdline.c).
func grubWords(line string) ([]string, error) {
	var words []string
	for _, w := range cmdline.Parse(line).Words() {
		text := w.Key
		if w.HasValue {
			text += "=" + w.Value
		}
		if strings.ContainsAny(text, "'\"\\\n") {
			return nil, fmt.Errorf("command line: GRUB cannot hand over the word %q with its quote, backslash or line break", text)
		}
		words = append(words, "'"+text+"'")
	}
	return words, nil
}
