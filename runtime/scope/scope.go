package scope

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/proa-os/proa/runtime/cgroup"
	"github.com/proa-os/proa/runtime/spec"
)

// A Property is one of a unit: a string, bool, uint64, []uint32 or []byte.
type Property struct {
	Name  string
	Value any
}

// A Unit is what linux.cgroupsPath says to this driver: slice:prefix:name.
type Unit struct {
	Slice string // "" for system.slice
	Name  string // with its suffix .scope
}

// ParseUnit reads linux.cgroupsPath of container id; the empty path is system.slice:oci-runtime:<id>.
func ParseUnit(path, id string) (Unit, error) {
	if path == "" {
		return Unit{Name: "oci-runtime-" + id + ".scope"}, nil
	}
	parts := strings.Split(path, ":")
	if len(parts) != 3 || parts[2] == "" || strings.ContainsAny(path, "/\x00") {
		return Unit{}, fmt.Errorf("linux.cgroupsPath: want slice:prefix:name with --systemd-cgroup, found %q", path)
	}
	if s := parts[0]; s != "" && !strings.HasSuffix(s, ".slice") {
		return Unit{}, fmt.Errorf("linux.cgroupsPath: want a slice before the first colon, found %q", s)
	}
	name := parts[2]
	if parts[1] != "" {
		name = parts[1] + "-" + name
	}
	return Unit{Slice: parts[0], Name: name + ".scope"}, nil
}

const (
	destination = "org.freedesktop.systemd1"
	path        = "/org/freedesktop/systemd1"
	manager     = "org.freedesktop.systemd1.Manager"
)

// Start makes the scope, with the properties that annotations of config.json add, and moves process pid into it. It returns when systemd
// has done so.
func Start(u Unit, id string, pid int, r *specs.LinuxResources, annotations map[string]string) error {
	more, err := FromAnnotations(annotations)
	if err != nil {
		return err
	}
	limits, err := properties(r)
	if err != nil {
		return err
	}
	slice := u.Slice
	if slice == "" {
		slice = "system.slice"
	}
	list := append([]Property{{"Description", "OCI container " + id}, {"Slice", slice}, {"PIDs", []uint32{uint32(pid)}},
		{"Delegate", true}, {"DefaultDependencies", false}, {"CollectMode", "inactive-or-failed"},
		{"CPUAccounting", true}, {"MemoryAccounting", true}, {"TasksAccounting", true}, {"IOAccounting", true}}, limits...)
	list = append(list, more...) // systemd takes the last of a name
	e := new(encoder)
	e.string(u.Name)
	e.string("replace")
	e.properties(list)
	e.array(8, func() {})
	return u.job("make scope", "StartTransientUnit", "ssa(sv)a(sa(sv))", e.b)
}

// Stop ends the scope with all that is in it. One that is gone is no error.
func Stop(name string) error {
	e := new(encoder)
	e.string(name)
	e.string("replace")
	err := Unit{Name: name}.job("stop scope", "StopUnit", "ss", e.b)
	var c *callError
	if errors.As(err, &c) && strings.HasSuffix(c.name, ".NoSuchUnit") {
		return nil
	}
	return err
}

// Update changes limits of the scope, so that systemd does not put the old ones back.
func Update(name string, r *specs.LinuxResources) error {
	list, err := properties(r)
	if err != nil || len(list) == 0 {
		return err
	}
	b, err := connect()
	if err != nil {
		return err
	}
	defer b.close()
	e := new(encoder)
	e.string(name)
	e.uint32(1) // until the unit is gone
	e.properties(list)
	if _, err := b.call(destination, path, manager, "SetUnitProperties", "sba(sv)", e.b); err != nil {
		return fmt.Errorf("change scope %s: %w", name, err)
	}
	return nil
}

// job calls a method that makes a job and waits for its result.
func (u Unit) job(what, method, signature string, body []byte) error {
	b, err := connect()
	if err != nil {
		return err
	}
	defer b.close()
	m := new(encoder)
	m.string("type='signal',sender='" + destination + "',path='" + path + "',interface='" + manager + "',member='JobRemoved'")
	if _, err := b.call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "AddMatch", "s", m.b); err != nil {
		return fmt.Errorf("%s %s: %w", what, u.Name, err)
	}
	answer, err := b.call(destination, path, manager, method, signature, body)
	if err != nil {
		return fmt.Errorf("%s %s: %w", what, u.Name, err)
	}
	job := answer.string()
	for {
		if result, ok := b.jobs[job]; ok {
			if result != "done" {
				return fmt.Errorf("%s %s: systemd says %s: see systemctl status %s", what, u.Name, result, u.Name)
			}
			return nil
		}
		if _, err := b.next(); err != nil {
			return fmt.Errorf("%s %s: wait for systemd: %w", what, u.Name, err)
		}
	}
}

// properties translates limits that systemd knows; the files of the group get all of them.
func properties(r *specs.LinuxResources) ([]Property, error) {
	var out []Property
	if r == nil {
		return nil, nil
	}
	number := func(name string, n *int64) {
		switch {
		case n == nil || *n == 0:
		case *n < 0:
			out = append(out, Property{name, uint64(math.MaxUint64)})
		default:
			out = append(out, Property{name, uint64(*n)})
		}
	}
	if c := r.CPU; c != nil {
		if c.Shares != nil && *c.Shares != 0 {
			out = append(out, Property{"CPUWeight", cgroup.Weight(*c.Shares)})
		}
		if c.Quota != nil && *c.Quota != 0 {
			out = append(out, Property{"CPUQuotaPerSecUSec", perSecond(*c.Quota, c.Period)})
		}
		if c.Period != nil && *c.Period != 0 {
			out = append(out, Property{"CPUQuotaPeriodUSec", *c.Period})
		}
		for _, l := range []struct{ name, field, list string }{{"AllowedCPUs", "cpus", c.Cpus}, {"AllowedMemoryNodes", "mems", c.Mems}} {
			mask, err := spec.Mask("linux.resources.cpu."+l.field, l.list)
			if err != nil {
				return nil, err
			}
			if len(mask) > 0 {
				out = append(out, Property{l.name, maskBytes(mask)})
			}
		}
	}
	if m := r.Memory; m != nil {
		number("MemoryMax", m.Limit)
		number("MemoryLow", m.Reservation)
		if m.Swap != nil && m.Limit != nil && *m.Swap > 0 && *m.Swap >= *m.Limit {
			out = append(out, Property{"MemorySwapMax", uint64(*m.Swap - *m.Limit)})
		}
	}
	if r.Pids != nil {
		number("TasksMax", r.Pids.Limit)
		if r.Pids.Limit != nil && *r.Pids.Limit == 0 {
			out = append(out, Property{"TasksMax", uint64(1)}) // as cgroup.Settings
		}
	}
	return out, nil
}

// perSecond is the quota in microseconds of each second; systemd takes steps of 10 ms.
func perSecond(quota int64, period *uint64) uint64 {
	if quota < 0 {
		return math.MaxUint64
	}
	per := uint64(100000)
	if period != nil && *period != 0 {
		per = *period
	}
	const step = 10000
	return (uint64(quota)*1000000/per + step - 1) / step * step
}

// maskBytes is a mask as an array of bytes, the lowest first.
func maskBytes(mask []uint64) []byte {
	var out []byte
	for _, w := range mask {
		for range 8 {
			out = append(out, byte(w))
			w >>= 8
		}
	}
	for len(out) > 1 && out[len(out)-1] == 0 {
		out = out[:len(out)-1]
	}
	return out
}
