package apply

import (
	"strconv"

	"github.com/coreos/ignition/v2/config/util"
	"github.com/coreos/ignition/v2/config/v3_6/types"

	"github.com/proa-os/proa/ignition/plan"
)

// A Thing is something that an operation has made, with what is needed to look at it again without the config.
type Thing struct {
	Kind string   `json:"kind"`
	Name string   `json:"name"`
	Of   []string `json:"of,omitempty"` // what else its kind needs
}

// Kinds of things that a tree does not have. Machine.Look, of package device, looks at them.
const (
	Partition  = "partition"        // Name is the disk; Of its number, or "0", and its label
	Array      = "array"            // Of are its devices
	Volume     = "volume"           // Of is the device it lies on
	FileSystem = "file system"      // Name is its device
	Arguments  = "kernel arguments" // Of are those that shall be there, "", and those that shall not
)

// A Look says what a thing that is not in the tree is like now; nothing: it does not exist.
type Look func(t Thing) (map[string]string, error)

func (t Thing) onMachine() bool {
	switch t.Kind {
	case Partition, Array, Volume, FileSystem, Arguments:
		return true
	}
	return false
}

// subject is what people call a thing.
func (t Thing) subject() string {
	switch t.Kind {
	case Partition:
		name := t.Of[0]
		if name == "0" {
			name = strconv.Quote(t.Of[1])
		}
		return "partition " + name + " of " + t.Name
	case FileSystem:
		return "file system on " + t.Name
	case Arguments:
		return Arguments
	}
	return t.Kind + " " + t.Name
}

// thingsOf says what to look at after op.
func thingsOf(op plan.Op) []Thing {
	one := func(kind, name string, of ...string) []Thing { return []Thing{{kind, name, of}} }
	switch op := op.(type) {
	case plan.Arguments:
		return one(Arguments, "", append(append(append([]string{}, op.Exist...), ""), op.NotExist...)...)
	case plan.Disk:
		return partitionsOf(op.Device, op.Partitions)
	case plan.Raid:
		var devices []string
		for _, d := range op.Devices {
			devices = append(devices, string(d))
		}
		return one(Array, op.Name, devices...)
	case plan.Luks:
		return one(Volume, op.Name, *op.Luks.Device)
	case plan.Filesystem:
		return one(FileSystem, op.Device)
	case plan.Group:
		return one("group", op.Name)
	case plan.User:
		return one("user", op.Name)
	case plan.Keys:
		return one("ssh keys", op.User)
	case plan.Directory:
		return one("directory", op.Path)
	case plan.File:
		return one("file", op.Path)
	case plan.Link:
		return one("link", op.Path)
	case plan.Unmask:
		return one("mask", op.Unit)
	case plan.Enable:
		return one("unit", op.Unit)
	case plan.Disable:
		return one("unit", op.Unit)
	}
	return nil
}

// partitionsOf are the partitions that a config names. One without a number and a label is whichever there was room for.
func partitionsOf(disk string, parts []types.Partition) (all []Thing) {
	for _, p := range parts {
		if p.Number != 0 || util.NotEmpty(p.Label) {
			label := ""
			if p.Label != nil {
				label = *p.Label
			}
			all = append(all, Thing{Partition, disk, []string{strconv.Itoa(p.Number), label}})
		}
	}
	return all
}
