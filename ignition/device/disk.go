package device

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/proa-os/proa/ignition/apply"
	"github.com/proa-os/proa/ignition/partition"
	"github.com/proa-os/proa/ignition/plan"
	"github.com/proa-os/proa/ignition/signature"
	"github.com/proa-os/proa/internal/gpt"
)

// Look reads what a disk of size bytes has for a partition table. The backup at the end of a disk outlives what was since written to its
// beginning, and the kernel sees no table without the entry in sector 0 that protects it: then a table counts only if nothing else is there.
func Look(d io.ReaderAt, size int64, sectorSize int) (partition.Disk, error) {
	have := partition.Disk{Size: size, SectorSize: sectorSize}
	t, err := gpt.Read(d, size, sectorSize)
	if err == nil && t.PrimaryError == nil && protected(d) {
		have.Table = t
		return have, nil
	}
	found, perr := signature.Probe(d, size)
	if perr != nil {
		return have, perr
	}
	var holds []string
	for _, s := range found {
		switch s.Type {
		case "gpt":
			if err != nil {
				holds = append(holds, "a damaged GPT partition table")
			}
		case "dos":
			holds = append(holds, "a DOS partition table")
		default:
			holds = append(holds, s.String())
		}
	}
	if err == nil && len(holds) == 0 {
		have.Table = t
	}
	have.Holds = strings.Join(holds, ", ")
	return have, nil
}

// protected reports whether an MBR says that the disk has a GPT.
func protected(d io.ReaderAt) bool {
	b := make([]byte, 512)
	_, err := d.ReadAt(b, 0)
	return err == nil && (b[450] == 0xee || b[466] == 0xee || b[482] == 0xee || b[498] == 0xee)
}

// PlanDisk decides what happens to a disk; what the config does not allow is a problem that a person can act on.
func PlanDisk(op plan.Disk, have partition.Disk, id func() gpt.GUID) (*partition.Plan, error) {
	p, err := partition.Decide(have, op.Disk, id)
	var refusal *partition.Refusal
	if errors.As(err, &refusal) {
		return nil, apply.NewProblem(refusal.What, refusal.Expected, refusal.Found, refusal.Next)
	}
	return p, err
}

// disk makes a partition table be as op says.
func (r *run) disk(op plan.Disk) (string, error) {
	key, err := keyOf("disk", op.Disk)
	if err != nil {
		return "", err
	}
	return r.withDevice(op.Device, func(d Device) (string, error) {
		rec, begun := r.known(key, d.Size())
		if rec.Disk != d.ID() && rec.Disk != "" {
			rec, begun = record{}, false
		}
		if begun {
			return r.writeTable(key, d, rec)
		}
		have, err := Look(d, d.Size(), d.SectorSize())
		if err != nil {
			return "", err
		}
		if have.Table != nil && rec.Result == have.Table.Fingerprint() {
			return "as it was made before", d.Follow(have.Table)
		}
		var idErr error
		p, err := PlanDisk(op, have, func() gpt.GUID {
			id, err := r.m.UUID()
			idErr = errors.Join(idErr, err)
			return gpt.GUID(id)
		})
		if err := errors.Join(err, idErr); err != nil {
			return "", err
		}
		if !p.Writes() {
			return "as it shall be", d.Follow(have.Table)
		}
		if err := r.mayChange(d, p); err != nil {
			return "", err
		}
		rec = record{Size: d.Size(), Disk: d.ID(), Begun: true, Table: p.Table}
		if err := r.note(key, rec); err != nil {
			return "", err
		}
		if p.Erase {
			if err := r.erase(d, signature.Erase); err != nil {
				return "", err
			}
		}
		if _, err := r.writeTable(key, d, rec); err != nil {
			return "", err
		}
		return describe(p), nil
	})
}

// writeTable writes the table that was decided on; what a power cut has left of an erased one does not matter any more.
func (r *run) writeTable(key string, d Device, rec record) (string, error) {
	if rec.Table == nil {
		if err := r.erase(d, signature.Erase); err != nil {
			return "", err
		}
	} else {
		if err := r.step("write table of %s", d.Path()); err != nil {
			return "", err
		}
		if err := rec.Table.Write(d); err != nil {
			return "", err
		}
		rec.Result = rec.Table.Fingerprint()
	}
	if err := r.step("tell the kernel about %s", d.Path()); err != nil {
		return "", err
	}
	if err := d.Follow(rec.Table); err != nil {
		return "", err
	}
	rec.Begun, rec.Table = false, nil
	return "finished what was begun before", r.note(key, rec)
}

// mayChange refuses to touch what is in use, and what the running system needs.
func (r *run) mayChange(d Device, p *partition.Plan) error {
	check := func(number int, what string) error {
		own, err := d.Own(number)
		if err != nil {
			return err
		}
		if own {
			return problem("refuse to change "+what, "a disk or a partition that the running system does not need", "one of its own", "choose another disk")
		}
		by, err := d.Busy(number)
		if err != nil {
			return err
		}
		if by != "" {
			return problem("refuse to change "+what, "one that is not in use", "in use: "+by, "choose another, or stop what uses it")
		}
		return nil
	}
	if p.Erase {
		if err := check(0, "the partition table of "+d.Path()); err != nil {
			return err
		}
		if p.Before == nil {
			return nil
		}
		for _, q := range p.Before.Partitions {
			if err := check(q.Number, fmt.Sprintf("partition %d of %s", q.Number, d.Path())); err != nil {
				return err
			}
		}
		return nil
	}
	for _, c := range p.Changes {
		switch c.Kind {
		case partition.Delete, partition.Resize, partition.Replace:
			if err := check(c.Was.Number, fmt.Sprintf("partition %d of %s", c.Was.Number, d.Path())); err != nil {
				return err
			}
		}
	}
	return nil
}

// describe says what was done.
func describe(p *partition.Plan) string {
	var words []string
	if p.Erase {
		words = append(words, "new partition table")
	}
	for _, c := range p.Changes {
		words = append(words, Describe(c))
	}
	return strings.Join(words, "; ")
}

// Describe is a change for people: "create 1 "data"", "keep 2".
func Describe(c partition.Change) string {
	p := c.Is
	if c.Kind == partition.Delete {
		p = c.Was
	}
	text := fmt.Sprintf("%s %d", c.Kind, p.Number)
	if c.Kind == partition.Absent {
		return "no such partition, as it shall be"
	}
	if p.Name != "" {
		text += fmt.Sprintf(" %q", p.Name)
	}
	text += fmt.Sprintf(", sectors %d to %d", p.FirstLBA, p.LastLBA)
	if c.Why != "" {
		text += " (" + c.Why + ")"
	}
	return text
}
