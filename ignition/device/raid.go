package device

import (
	"fmt"
	"slices"
	"strings"

	"github.com/proa-os/proa/ignition/plan"
	"github.com/proa-os/proa/ignition/signature"
)

// homeHost goes into the name of an array, as upstream has it: the array belongs to no host in particular, and every one assembles it.
const homeHost = "any"

// raid makes an array. Devices that are already the members of one array of that name are assembled instead: what it holds stays.
func (r *run) raid(op plan.Raid) (string, error) {
	key, err := keyOf("raid", op.Raid)
	if err != nil {
		return "", err
	}
	c, err := r.members(op)
	if err != nil {
		return "", err
	}
	node := "/dev/md/" + op.Name
	_, begun := r.known(key, c.size)
	if !begun && sameArray(op.Name, c.members, len(c.paths)) {
		if c.assembled {
			return "as it was made before", nil
		}
		return "assembled the array that was there", r.exec(nil, "mdadm", append([]string{"--assemble", "--run", node}, c.paths...)...)
	}
	if c.assembled && !begun {
		return "", problem("the devices are in use", "devices that no array has", "another array", "stop that array, or choose other devices")
	}
	if name := homeHost + ":" + op.Name; !begun && slices.ContainsFunc(c.members, func(m signature.Signature) bool { return m.Label == name }) {
		return "", problem("the devices are not all of one array "+op.Name, "all of its members, or none", fmt.Sprintf("%d of %d", len(c.members), len(c.paths)),
			"add the new device with mdadm, or remove what the array holds with mdadm --zero-superblock")
	}
	if c.assembled { // a run before this one has come no further
		if err := r.exec(nil, "mdadm", "--stop", node); err != nil {
			return "", err
		}
	}
	if err := r.note(key, record{Size: c.size, Begun: true}); err != nil {
		return "", err
	}
	for _, name := range op.Devices { // mdadm leaves the marks of what was there before beside its own
		if _, err := r.withDevice(string(name), func(d Device) (string, error) { return "", r.erase(d, signature.Erase) }); err != nil {
			return "", err
		}
	}
	spares := 0
	if op.Spares != nil {
		spares = *op.Spares
	}
	args := []string{"--create", node, "--force", "--run", "--homehost", homeHost, "--level", *op.Level, "--raid-devices", fmt.Sprint(len(c.paths) - spares)}
	if spares > 0 {
		args = append(args, "--spare-devices", fmt.Sprint(spares))
	}
	for _, o := range op.Options {
		args = append(args, string(o))
	}
	if err := r.exec(nil, "mdadm", append(args, c.paths...)...); err != nil {
		return "", err
	}
	return "made it of " + strings.Join(c.paths, ", "), r.note(key, record{Size: c.size, Result: "array"})
}

// components are the devices of an array to be.
type components struct {
	paths     []string
	members   []signature.Signature // of those that are members of an array
	size      int64                 // bytes of all together
	assembled bool                  // some are in use by an array
}

func (r *run) members(op plan.Raid) (c components, err error) {
	for _, name := range op.Devices {
		_, err := r.withDevice(string(name), func(d Device) (string, error) {
			by, err := d.Busy(0)
			if err != nil {
				return "", err
			}
			if is, err := d.Own(0); err != nil {
				return "", err
			} else if is {
				by = "the running system needs it"
			}
			array := strings.HasPrefix(by, "array ")
			if by != "" && !array {
				return "", problem("refuse to change "+d.Path(), "a device that is not in use", "in use: "+by, "choose another device")
			}
			found, err := signature.Probe(d, d.Size())
			if err != nil {
				return "", err
			}
			c.paths, c.size, c.assembled = append(c.paths, d.Path()), c.size+d.Size(), c.assembled || array
			if len(found) == 1 && found[0].Type == "linux_raid_member" {
				c.members = append(c.members, found[0])
			}
			return "", nil
		})
		if err != nil {
			return c, err
		}
	}
	return c, nil
}

// sameArray reports whether all devices are members of one array called name.
func sameArray(name string, members []signature.Signature, devices int) bool {
	if len(members) != devices || devices == 0 {
		return false
	}
	for _, m := range members {
		if m.UUID != members[0].UUID || m.UUID == "" || m.Label != homeHost+":"+name {
			return false
		}
	}
	return true
}
