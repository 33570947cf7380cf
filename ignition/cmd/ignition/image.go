package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/proa-os/proa/ignition/device"
	"github.com/proa-os/proa/ignition/partition"
	"github.com/proa-os/proa/ignition/plan"
	"github.com/proa-os/proa/ignition/signature"
	"github.com/proa-os/proa/internal/command"
	"github.com/proa-os/proa/internal/gpt"
)

// image is a disk image in the place of a device, and the table that the plan leaves there, nil if there is none.
type image struct {
	name  string
	table *gpt.Table
}

// images are those that a plan is held against, by their devices.
type images map[string]*image

// imagesOf reads DEVICE=IMAGE, or an image alone for the one disk that the config describes.
func imagesOf(flags []string, ops []plan.Op) (images, error) {
	var disks []string
	for _, op := range ops {
		if d, ok := op.(plan.Disk); ok {
			disks = append(disks, d.Device)
		}
	}
	all := images{}
	if len(flags) > 0 && len(disks) == 0 {
		return nil, command.Wrong("--image %s: expected a config that describes disks, found one without; to hold its files against an image of the system, unpack that and plan with --root: fsck.erofs --extract=DIR root.img", flags[0])
	}
	for _, f := range flags {
		device, file, named := strings.Cut(f, "=")
		if !named && len(disks) == 1 {
			device, file = disks[0], f
		}
		if file == "" || !slices.Contains(disks, device) {
			return nil, command.Wrong("--image %s: expected DEVICE=IMAGE with one of the disks that the config describes: %s", f, strings.Join(disks, ", "))
		}
		all[device] = &image{name: file}
	}
	return all, nil
}

// partition decides about a disk as the machine would, with sectors of 512 bytes, or of 4096 where the image has such a table.
func (d *image) partition(op plan.Disk) ([]string, error) {
	f, err := os.Open(d.name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	have, err := device.Look(f, info.Size(), 512)
	if err != nil {
		return nil, err
	}
	if large, lerr := device.Look(f, info.Size(), 4096); lerr == nil && have.Table == nil && large.Table != nil {
		have = large
	}
	n := byte(0)
	p, err := device.PlanDisk(op, have, func() gpt.GUID {
		n++
		return gpt.NewGUID([16]byte{15: n})
	})
	if err != nil {
		return nil, err
	}
	if d.table = p.Table; d.table == nil && !p.Erase {
		d.table = have.Table
	}
	if !p.Writes() && len(p.Changes) == 0 {
		return []string{"nothing to do"}, nil
	}
	return lines(p), nil
}

func lines(p *partition.Plan) []string {
	var all []string
	if p.Erase {
		all = append(all, "new partition table; what the disk holds is lost")
	}
	for _, c := range p.Changes {
		all = append(all, device.Describe(c))
	}
	return all
}

// filesystem holds what is now where the partition of op will be against what op says, as the machine does: a new partition table does not
// wipe what lies between the partitions. It says nothing of other devices.
func (all images) filesystem(op plan.Filesystem) ([]string, error) {
	for _, disk := range slices.Sorted(maps.Keys(all)) {
		d := all[disk]
		if d.table == nil {
			continue
		}
		for _, p := range d.table.Partitions {
			if !named(path.Clean(op.Device), disk, p) {
				continue
			}
			found, err := d.probe(p)
			if err != nil {
				return nil, err
			}
			return fits(op, found)
		}
	}
	return nil, nil
}

// named reports whether device is a name of a partition of a disk: the kernel's, or the one by its label or GUID.
func named(device, disk string, p gpt.Partition) bool {
	if last := disk[len(disk)-1]; '0' <= last && last <= '9' {
		disk += "p"
	}
	return device == fmt.Sprint(disk, p.Number) || p.Name != "" && device == "/dev/disk/by-partlabel/"+p.Name ||
		strings.EqualFold(device, "/dev/disk/by-partuuid/"+p.GUID.String())
}

func (d *image) probe(p gpt.Partition) ([]signature.Signature, error) {
	f, err := os.Open(d.name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return signature.Probe(io.NewSectionReader(f, d.table.Offset(p), d.table.Size(p)), d.table.Size(p))
}

func fits(op plan.Filesystem, found []signature.Signature) ([]string, error) {
	reuse, err := device.FitsFilesystem(op, found)
	var words []string
	for _, s := range found {
		words = append(words, s.String())
	}
	holds := strings.Join(words, ", ")
	switch {
	case err != nil:
		return nil, err
	case reuse && holds != "":
		return []string{"reuse " + holds}, nil
	case reuse:
		return []string{"there is none"}, nil
	case holds != "":
		return []string{"made anew; what is there is lost: " + holds}, nil
	}
	return []string{"made; nothing is there"}, nil
}
