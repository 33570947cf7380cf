package device

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/proa-os/proa/ignition/signature"
	"github.com/proa-os/proa/internal/gpt"
)

// links finds devices by the names that udev's rules give them (60-persistent-storage.rules), without udev: by what sysfs says, and
// by what is on them. Names whose rules ask the hardware itself are udev's alone. A link is believed when it leads to what has the name now:
// where udev runs it is late, and another device may have had the name before.
type links struct {
	sys fs.FS
	dev string // /dev
}

// resolve returns the node of a device. The error wraps fs.ErrNotExist if there is none yet.
func (l links) resolve(name string) (string, error) {
	rest, ok := strings.CutPrefix(path.Clean(name), "/dev/")
	if !ok {
		return "", fmt.Errorf("find device %s: expected a name below /dev", name)
	}
	dir, value := path.Split(rest)
	linked, lerr := filepath.EvalSymlinks(filepath.Join(l.dev, rest))
	var is func(block string) bool
	value = unescape(value)
	switch dir {
	case "disk/by-partlabel/":
		is = func(b string) bool { name, _ := l.entry(b); return name == value }
	case "disk/by-partuuid/":
		is = func(b string) bool { _, id := l.entry(b); return strings.EqualFold(id, value) }
	case "disk/by-label/":
		is = func(b string) bool { return l.holds(b, func(s signature.Signature) bool { return s.Label == value }) }
	case "disk/by-uuid/":
		is = func(b string) bool {
			return l.holds(b, func(s signature.Signature) bool { return strings.EqualFold(s.UUID, value) })
		}
	case "disk/by-id/":
		is = func(b string) bool { return l.id(b, value) }
	case "mapper/":
		is = func(b string) bool { return l.read(b, "dm/name") == value }
	}
	if lerr == nil && (is == nil || is(filepath.Base(linked))) {
		return linked, nil
	}
	if is == nil {
		return "", fmt.Errorf("find device %s: %w", name, fs.ErrNotExist)
	}
	blocks, err := fs.ReadDir(l.sys, "class/block")
	if err != nil {
		return "", fmt.Errorf("find device %s: %w", name, err)
	}
	for _, b := range blocks {
		if is(b.Name()) {
			return l.node(b.Name()), nil
		}
	}
	if lerr == nil { // made by a rule that is not known here
		return linked, nil
	}
	return "", fmt.Errorf("find device %s: %w", name, fs.ErrNotExist)
}

// unescape undoes udev's \x20 for characters that names of links do not have.
func unescape(s string) string {
	var b strings.Builder
	for {
		before, after, ok := strings.Cut(s, `\x`)
		b.WriteString(before)
		if !ok {
			return b.String()
		}
		if len(after) < 2 {
			b.WriteString(`\x`)
			s = after
			continue
		}
		n, err := strconv.ParseUint(after[:2], 16, 8)
		if err != nil {
			b.WriteString(`\x`)
			s = after
			continue
		}
		b.WriteByte(byte(n))
		s = after[2:]
	}
}

func (l links) read(block, name string) string {
	b, err := fs.ReadFile(l.sys, path.Join("class/block", block, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// property reads a line of uevent.
func (l links) property(block, key string) string {
	for line := range strings.Lines(l.read(block, "uevent") + "\n") {
		if value, ok := strings.CutPrefix(line, key+"="); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// entry has the name and the GUID of a partition: from the table, as the kernel does not know those of partitions that it was told about one at
// a time (BLKPG), and else from the kernel.
func (l links) entry(block string) (name, id string) {
	number := l.read(block, "partition")
	if number == "" {
		return "", ""
	}
	if t, err := l.table(l.whole(block, number)); err == nil {
		for _, p := range t.Partitions {
			if strconv.Itoa(p.Number) == number {
				return p.Name, p.GUID.String()
			}
		}
	}
	return l.property(block, "PARTNAME"), l.property(block, "PARTUUID")
}

// table reads a disk's.
func (l links) table(whole string) (*gpt.Table, error) {
	sectors, err := strconv.ParseInt(l.read(whole, "size"), 10, 64)
	if err != nil {
		return nil, err
	}
	sector, err := strconv.Atoi(l.read(whole, "queue/logical_block_size"))
	if err != nil {
		return nil, err
	}
	f, err := os.Open(l.node(whole))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return gpt.Read(f, sectors*512, sector)
}

// whole is the disk of a partition.
func (l links) whole(block, number string) string {
	whole := strings.TrimSuffix(strings.TrimSuffix(block, number), "p")
	if l.read(whole, "size") == "" {
		whole += "p" // the disk's own name ends in p
	}
	return whole
}

// node is where a device is.
func (l links) node(block string) string {
	return filepath.Join(l.dev, strings.ReplaceAll(block, "!", "/"))
}

func (l links) holds(block string, is func(signature.Signature) bool) bool {
	sectors, err := strconv.ParseInt(l.read(block, "size"), 10, 64)
	if err != nil || sectors == 0 || strings.HasPrefix(block, "fd") || strings.HasPrefix(block, "sr") {
		return false
	}
	f, err := os.Open(l.node(block))
	if err != nil {
		return false
	}
	defer f.Close()
	found, err := signature.Probe(f, sectors*512)
	// What a member of an array or a group of volumes seems to hold is in the array: with metadata at the end its first bytes are the same.
	if err != nil || slices.ContainsFunc(found, func(s signature.Signature) bool { return strings.HasSuffix(s.Type, "_member") }) {
		return false
	}
	return slices.ContainsFunc(found, is)
}

// id knows the names that are made of what sysfs says: virtio-SERIAL, nvme-MODEL_SERIAL, the same with _NSID, nvme-WWID and wwn-0xWWN, each with -partN.
func (l links) id(block, value string) bool {
	whole := block
	if number := l.read(block, "partition"); number != "" {
		var ok bool
		if value, ok = strings.CutSuffix(value, "-part"+number); !ok {
			return false
		}
		whole = l.whole(block, number)
	}
	clean := func(s string) string { return strings.ReplaceAll(strings.TrimSpace(s), " ", "_") }
	serial, model, wwid := l.read(whole, "serial"), l.read(whole, "device/model"), l.read(whole, "wwid")
	if wwid == "" {
		wwid = l.read(whole, "device/wwid")
	}
	var names []string
	switch {
	case strings.HasPrefix(whole, "vd") && serial != "":
		names = []string{"virtio-" + clean(serial)}
	case strings.HasPrefix(whole, "nvme"):
		if serial == "" {
			serial = l.read(whole, "device/serial")
		}
		name := "nvme-" + clean(model) + "_" + clean(serial)
		names = []string{name, name + "_" + l.read(whole, "nsid"), "nvme-" + wwid}
	default:
		if naa, ok := strings.CutPrefix(wwid, "naa."); ok {
			names = []string{"wwn-0x" + naa}
		}
	}
	return slices.Contains(names, value)
}
