package state

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
)

// Pointer is the file in state, relative to it, that says that a machine has its state elsewhere (`ignition` writes it when a config puts a
// file system at /var): a line "var 1", then one with the UUID of an ext4 file system.
const Pointer = "lib/ignition/var"

const pointerHeader = "var 1"

// An ID is the UUID of a file system.
type ID [16]byte

// String is the usual form, in lower case.
func (id ID) String() string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
}

// Elsewhere reads the pointer. ok is false if there is none, as on most machines.
func Elsewhere(state *os.Root) (id ID, ok bool, err error) {
	b, err := state.ReadFile(Pointer)
	if errors.Is(err, fs.ErrNotExist) {
		return id, false, nil
	}
	if err != nil {
		return id, false, fmt.Errorf("read where state is: %w", err)
	}
	lines := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
	if len(lines) == 2 && lines[0] == pointerHeader {
		if raw, err := hex.DecodeString(strings.ReplaceAll(lines[1], "-", "")); err == nil && len(raw) == len(id) {
			return ID(raw), true, nil
		}
	}
	return id, false, fmt.Errorf("read where state is: %s holds %.80q, expected the lines %q and a UUID; remove the file from another system to go on with the state beside it", Pointer, b, pointerHeader)
}

// Is reports whether a device holds the ext4 file system with that UUID (Documentation/filesystems/ext4/super.rst: s_magic at 0x38,
// s_uuid at 0x68).
func Is(r io.ReaderAt, id ID) bool {
	const superblock, magic = 1024, 0xef53
	var b [0x78]byte
	if _, err := r.ReadAt(b[:], superblock); err != nil {
		return false
	}
	return binary.LittleEndian.Uint16(b[0x38:]) == magic && bytes.Equal(b[0x68:0x78], id[:])
}
