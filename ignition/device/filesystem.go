package device

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/coreos/ignition/v2/config/util"

	"github.com/proa-os/proa/ignition/plan"
	"github.com/proa-os/proa/ignition/signature"
)

// FitsFilesystem is the reuse rule of the specification: whether what was found is what op describes (reuse), or whether it may be made
// (create). If it may not, the error says why.
func FitsFilesystem(op plan.Filesystem, found []signature.Signature) (reuse bool, err error) {
	wipe, none := util.IsTrue(op.WipeFilesystem), *op.Format == "none"
	switch {
	case wipe:
		return false, nil
	case len(found) == 0:
		return none, nil
	case len(found) == 1 && matches(op, found[0]):
		return true, nil
	}
	expected := "nothing, or " + *op.Format
	if none {
		expected = "nothing"
	}
	if op.Label != nil {
		expected += fmt.Sprintf(" with label %q", *op.Label)
	}
	if op.Filesystem.UUID != nil {
		expected += " with UUID " + strings.ToLower(*op.Filesystem.UUID)
	}
	var all []string
	for _, s := range found {
		all = append(all, s.String())
	}
	return false, problem("the device holds something else", expected, strings.Join(all, ", "),
		"correct the config, or set \"wipeFilesystem\": true to lose what is there")
}

func matches(op plan.Filesystem, s signature.Signature) bool {
	return s.Type == *op.Format && (op.Label == nil || *op.Label == s.Label) &&
		(op.Filesystem.UUID == nil || canonical(s.Type, *op.Filesystem.UUID) == canonical(s.Type, s.UUID))
}

// canonical makes equal UUIDs equal texts; vfat's has eight digits, with or without a dash.
func canonical(format, uuid string) string {
	if uuid = strings.ToLower(uuid); format == "vfat" {
		return strings.ReplaceAll(uuid, "-", "")
	}
	return uuid
}

func (r *run) filesystem(op plan.Filesystem) (string, error) {
	key, err := keyOf("filesystem", op.Filesystem)
	if err != nil {
		return "", err
	}
	return r.withDevice(op.Device, func(d Device) (string, error) {
		if util.NotEmpty(op.Path) && path.Clean(*op.Path) == plan.StatePath {
			if by, err := d.Busy(0); err != nil || by == "mounted on "+plan.StatePath {
				return "holds the machine's state already", err
			}
			if err := plain(d); err != nil {
				return "", err
			}
		}
		found, err := signature.Probe(d, d.Size())
		if err != nil {
			return "", err
		}
		rec, begun := r.known(key, d.Size())
		if !begun {
			if rec.Result != "" && len(found) == 1 && found[0].String() == rec.Result || rec.Result == "nothing" && len(found) == 0 {
				return "as it was made before", nil
			}
			reuse, err := FitsFilesystem(op, found)
			if err != nil {
				return "", err
			}
			if reuse && len(found) > 0 {
				return "reuse " + found[0].String(), nil
			}
			if reuse {
				return "there is none", nil
			}
		}
		return r.makeFilesystem(op, key, d)
	})
}

// plain refuses for state what only systemd opens, later than the initramfs mounts state.
func plain(d Device) error {
	switch dir, name := filepath.Split(d.Path()); {
	case strings.HasPrefix(name, "dm-") || dir == "/dev/mapper/":
		return problem("cannot put /var there", "a disk or a partition", "a volume", "put what needs a volume below /var, such as /var/lib/containers")
	case strings.HasPrefix(name, "md"):
		return problem("cannot put /var there", "a disk or a partition", "an array", "put what needs an array below /var, such as /var/lib/containers")
	}
	return nil
}

func (r *run) makeFilesystem(op plan.Filesystem, key string, d Device) (string, error) {
	for _, ask := range []func(int) (string, error){d.Busy, own(d)} {
		by, err := ask(0)
		if err != nil {
			return "", err
		}
		if by != "" {
			return "", problem("refuse to change "+d.Path(), "a device that is not in use", "in use: "+by, "choose another device")
		}
	}
	if err := r.note(key, record{Size: d.Size(), Begun: true}); err != nil {
		return "", err
	}
	if err := r.erase(d, signature.Erase); err != nil {
		return "", err
	}
	if err := r.mkfs(op, d); err != nil {
		return "", err
	}
	if err := d.Sync(); err != nil {
		return "", err
	}
	found, err := signature.Probe(d, d.Size())
	if err != nil {
		return "", err
	}
	result := "nothing"
	if len(found) > 0 {
		result = found[0].String()
	}
	if (len(found) == 0) != (*op.Format == "none") || len(found) > 1 {
		return "", fmt.Errorf("look at what was made on %s: expected one file system of type %s, found %v", d.Path(), *op.Format, found)
	}
	return "made " + result, r.note(key, record{Size: d.Size(), Result: result})
}

// own is Own in the form of Busy.
func own(d Device) func(int) (string, error) {
	return func(int) (string, error) {
		is, err := d.Own(0)
		if is {
			return "the running system needs it", err
		}
		return "", err
	}
}

// mkfs makes the file system. The options of the config come first, as upstream has them.
func (r *run) mkfs(op plan.Filesystem, d Device) error {
	var args []string
	for _, o := range op.Filesystem.Options {
		args = append(args, string(o))
	}
	label, id := util.NotEmpty(op.Label), util.NotEmpty(op.Filesystem.UUID)
	add := func(given bool, flag string, value *string) {
		if given {
			args = append(args, flag, canonical(*op.Format, *value))
		}
	}
	program := "mkfs." + *op.Format
	switch *op.Format {
	case "none":
		return nil
	case "swap":
		return r.mkswap(op, d)
	case "ext4":
		args = append(args, "-q", "-F")
		add(id, "-U", op.Filesystem.UUID)
	case "btrfs":
		args = append(args, "-q", "--force")
		add(id, "-U", op.Filesystem.UUID)
	case "xfs":
		args = append(args, "-q", "-f")
		if id {
			args = append(args, "-m", "uuid="+canonical("xfs", *op.Filesystem.UUID))
		}
	case "vfat":
		add(id, "-i", op.Filesystem.UUID)
	default:
		return problem("unknown file system", "ext4, xfs, btrfs, vfat, swap or none", *op.Format, "choose one of these")
	}
	if label {
		flag := "-L"
		if *op.Format == "vfat" {
			flag = "-n"
		}
		args = append(args, flag, *op.Label)
	}
	return r.exec(nil, program, append(args, d.Path())...)
}

// mkswap needs no program; package plan has refused the options that one would take.
func (r *run) mkswap(op plan.Filesystem, d Device) error {
	id, label := "", ""
	if op.Label != nil {
		label = *op.Label
	}
	if util.NotEmpty(op.Filesystem.UUID) {
		id = *op.Filesystem.UUID
	} else {
		var err error
		if id, err = r.m.UUID(); err != nil {
			return err
		}
	}
	if err := r.step("make swap on %s", d.Path()); err != nil {
		return err
	}
	return signature.FormatSwap(d, d.Size(), os.Getpagesize(), label, id)
}
