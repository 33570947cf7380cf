package signature

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
)

const (
	swapMark  = "SWAPSPACE2"
	swapUUID  = 1036
	swapLabel = 1052
)

// FormatSwap makes a swap area of a device of size bytes for a machine with pages of page bytes (the kernel's include/linux/swap.h,
// union swap_header). id is the text of a UUID.
func FormatSwap(w io.WriterAt, size int64, page int, label, id string) error {
	raw, err := hex.DecodeString(strings.ReplaceAll(id, "-", ""))
	switch {
	case err != nil || len(raw) != 16:
		return fmt.Errorf("make swap area: UUID %q is not 32 hexadecimal digits", id)
	case len(label) > 15:
		return fmt.Errorf("make swap area: label %q is longer than 15 bytes", label)
	case size < int64(10*page):
		return fmt.Errorf("make swap area: %d bytes are too few, expected %d", size, 10*page)
	}
	b := make([]byte, page)
	binary.LittleEndian.PutUint32(b[1024:], 1)
	binary.LittleEndian.PutUint32(b[1028:], uint32(min(size/int64(page), 1<<32-1)-1))
	copy(b[swapUUID:], raw)
	copy(b[swapLabel:], label)
	copy(b[page-len(swapMark):], swapMark)
	if _, err := w.WriteAt(b, 0); err != nil {
		return fmt.Errorf("make swap area: %w", err)
	}
	return nil
}
