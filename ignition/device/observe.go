package device

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/ignition/apply"
	"github.com/proa-os/proa/ignition/kargs"
	"github.com/proa-os/proa/ignition/signature"
	"github.com/proa-os/proa/internal/cmdline"
	"github.com/proa-os/proa/internal/gpt"
)

// An Observer looks at what provisioning has made of a machine, and changes nothing: devices are opened for reading, and nobody waits for one.
type Observer struct{ Sys, Dev, Proc string } // /sys, /dev, /proc

// Look is apply.Look. A device that is not there has nothing.
func (o Observer) Look(t apply.Thing) (map[string]string, error) {
	switch t.Kind {
	case apply.Partition:
		return o.with(t.Name, func(d *observed) (map[string]string, error) { return d.partition(t.Of[0], t.Of[1]) })
	case apply.Array:
		return o.array(t)
	case apply.Volume:
		return o.volume(t)
	case apply.FileSystem:
		return o.with(t.Name, (*observed).content)
	case apply.Arguments:
		return o.arguments(t.Of)
	}
	return nil, fmt.Errorf("unknown kind %q", t.Kind)
}

// observed is a device opened for reading.
type observed struct {
	*os.File
	name   string // the kernel's
	size   int64
	sector int
}

func (o Observer) with(name string, f func(*observed) (map[string]string, error)) (map[string]string, error) {
	path, err := links{sys: os.DirFS(o.Sys), dev: o.Dev}.resolve(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	d := &observed{File: file, name: filepath.Base(path), sector: 512}
	if d.size, err = file.Seek(0, io.SeekEnd); err != nil {
		return nil, fmt.Errorf("look at %s: %w", path, err)
	}
	if n, err := unix.IoctlGetInt(int(file.Fd()), unix.BLKSSZGET); err == nil { // an image file has no sectors of its own
		d.sector = n
	}
	state, err := f(d)
	if err != nil {
		return nil, fmt.Errorf("look at %s: %w", path, err)
	}
	return state, nil
}

// partition describes the one with a number, or the first with a label.
func (d *observed) partition(number, label string) (map[string]string, error) {
	have, err := Look(d, d.size, d.sector)
	if err != nil || have.Table == nil {
		return nil, err
	}
	at := slices.IndexFunc(have.Table.Partitions, func(p gpt.Partition) bool {
		return number == strconv.Itoa(p.Number) || number == "0" && p.Name == label
	})
	if at < 0 {
		return nil, nil
	}
	p := have.Table.Partitions[at]
	return map[string]string{"label": p.Name, "sectors": fmt.Sprintf("%d to %d", p.FirstLBA, p.LastLBA), "type": p.TypeGUID.String(), "GUID": p.GUID.String()}, nil
}

// content is what a device holds, as the reuse rules see it.
func (d *observed) content() (map[string]string, error) {
	found, err := signature.Probe(d, d.size)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	state := map[string]string{"format": found[0].Type, "label": found[0].Label, "UUID": found[0].UUID}
	for _, s := range found[1:] {
		state["format"] += " and " + s.Type
	}
	return state, nil
}

// array has its members' own word, and the kernel's where it is assembled. That a member is missing is no drift of the config, but of it.
func (o Observer) array(t apply.Thing) (map[string]string, error) {
	state := map[string]string{}
	for _, name := range t.Of {
		is, err := o.with(name, (*observed).content)
		if err != nil {
			return nil, err
		}
		if is["format"] == "linux_raid_member" {
			state["member "+name] = is["UUID"]
		}
	}
	is, err := o.with("/dev/md/"+t.Name, func(d *observed) (map[string]string, error) {
		return map[string]string{"level": o.block(d.name, "md/level"), "devices": o.block(d.name, "md/raid_disks")}, nil
	})
	maps.Copy(state, is)
	return state, err
}

// volume has its header's word: label, UUID, and which ways there are to open it; and whether it is open.
func (o Observer) volume(t apply.Thing) (map[string]string, error) {
	state, err := o.with(t.Of[0], func(d *observed) (map[string]string, error) {
		state, err := d.content()
		if err != nil || state["format"] != "luks2" {
			return state, err
		}
		slots, tokens, err := waysIn(d)
		state["key slots"], state["tokens"] = slots, tokens
		return state, err
	})
	if len(state) == 0 || err != nil {
		return state, err
	}
	if _, err := (links{sys: os.DirFS(o.Sys), dev: o.Dev}).resolve("/dev/mapper/" + t.Name); err == nil {
		state["open"] = "yes"
	}
	return state, nil
}

// maxHeader is the largest header of LUKS2 with its JSON (LUKS2 On-Disk Format Specification, 2.1).
const maxHeader = 4 << 20

// waysIn lists the key slots and the tokens of a volume: whoever has one of them can open it.
func waysIn(r io.ReaderAt) (slots, tokens string, err error) {
	const binaryHeader = 4096
	var b [16]byte
	if _, err := r.ReadAt(b[:], 0); err != nil {
		return "", "", err
	}
	size := binary.BigEndian.Uint64(b[8:])
	if size <= binaryHeader || size > maxHeader {
		return "", "", fmt.Errorf("read header of volume: expected one of %d to %d bytes, found %d", binaryHeader, maxHeader, size)
	}
	raw := make([]byte, size-binaryHeader)
	if _, err := r.ReadAt(raw, binaryHeader); err != nil {
		return "", "", err
	}
	text, _, _ := strings.Cut(string(raw), "\x00")
	var header struct {
		KeySlots map[string]struct{}              `json:"keyslots"`
		Tokens   map[string]struct{ Type string } `json:"tokens"`
	}
	if err := json.Unmarshal([]byte(text), &header); err != nil {
		return "", "", fmt.Errorf("read header of volume: %w", err)
	}
	var types []string
	for _, id := range slices.Sorted(maps.Keys(header.Tokens)) {
		types = append(types, id+" "+header.Tokens[id].Type)
	}
	return strings.Join(slices.Sorted(maps.Keys(header.KeySlots)), ", "), strings.Join(types, ", "), nil
}

// arguments says of each kernel argument whether this boot has it; "" stands between those that it shall have and the others.
func (o Observer) arguments(words []string) (map[string]string, error) {
	b, err := os.ReadFile(filepath.Join(o.Proc, "cmdline"))
	if err != nil {
		return nil, err
	}
	running := cmdline.Parse(string(b))
	state := map[string]string{"": ""} // there always is a command line
	for _, w := range words {
		if w != "" && kargs.Has(running, w) {
			state[w] = "set"
		}
	}
	return state, nil
}

func (o Observer) block(name, attribute string) string {
	return links{sys: os.DirFS(o.Sys), dev: o.Dev}.read(name, attribute)
}
