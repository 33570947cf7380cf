package butane

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/coreos/go-systemd/v22/unit"

	"github.com/proa-os/proa/ignition/secret"
)

// maxLocal is the largest local file, in bytes.
const maxLocal = 32 << 20

// desugar rewrites a document until it has the spec's keys only.
type desugar struct {
	files fs.FS
	proa  bool // our own variant
}

func (d *desugar) config(root *node, variant string) error {
	d.proa = variant == "proa"
	for _, key := range []string{"boot_device", "grub", "extensions"} {
		if n := root.get(key); n != nil && variant == "fcos" {
			return n.wrong(key+" is not supported: it is about another system's boot disk", "", "", "remove it")
		}
	}
	if variant == "proa" {
		if err := hostname(root); err != nil {
			return err
		}
	}
	if err := d.trees(root); err != nil {
		return err
	}
	if err := d.units(root); err != nil {
		return err
	}
	if err := d.keys(root); err != nil {
		return err
	}
	if err := d.resources(root); err != nil {
		return err
	}
	return mountUnits(root)
}

// hostname writes /etc/hostname.
func hostname(root *node) error {
	name := root.take("hostname")
	if name == nil {
		return nil
	}
	if name.kind != scalar || name.text == "" {
		return name.wrong("wrong type", "a name", name.what(), "")
	}
	files := root.child("storage", mapping, name).child("files", sequence, name)
	files.items = append(files.items, mapNode(name,
		pair{textNode("path", name), textNode("/etc/hostname", name)}, pair{textNode("mode", name), plainNode("420", name)},
		pair{textNode("overwrite", name), plainNode("true", name)},
		pair{textNode("contents", name), mapNode(name, pair{textNode("inline", name), textNode(name.text+"\n", name)})}))
	return nil
}

// resources replaces inline, local and, in our own variant, age by a data URL, wherever the spec has a resource.
func (d *desugar) resources(n *node) error {
	if sealed := n.get("age"); sealed != nil && d.proa {
		if n.get("inline") != nil || n.get("local") != nil || n.get("source") != nil {
			return n.wrong("more than one of age, inline, local and source", "one of them", "", "remove the others")
		}
		if sealed.kind != scalar {
			return sealed.wrong("wrong type", "an armored age file", sealed.what(), "")
		}
		if err := secret.Check([]byte(sealed.text)); err != nil {
			return sealed.wrong("damaged secret: "+err.Error(), "", "", "encrypt the value again: ignition secret encrypt, or age -a -r")
		}
		n.take("age")
		n.set("source", textNode("data:application/age;base64,"+base64.StdEncoding.EncodeToString([]byte(sealed.text)), sealed), sealed)
	}
	inline, local := n.get("inline"), n.get("local")
	if n.kind == mapping && (inline != nil || local != nil) {
		if inline != nil && local != nil || n.get("source") != nil {
			return n.wrong("more than one of inline, local and source", "one of them", "", "remove the others")
		}
		content, at, err := d.content(inline, local)
		if err != nil {
			return err
		}
		n.take("inline")
		n.take("local")
		n.set("source", textNode(dataURL(content), at), at)
	}
	for _, p := range n.pairs {
		if err := d.resources(p.value); err != nil {
			return err
		}
	}
	for _, item := range n.items {
		if err := d.resources(item); err != nil {
			return err
		}
	}
	return nil
}

func (d *desugar) content(inline, local *node) ([]byte, *node, error) {
	if inline != nil {
		if inline.kind != scalar {
			return nil, nil, inline.wrong("wrong type", "a string", inline.what(), "")
		}
		return []byte(inline.text), inline, nil
	}
	b, err := d.read(local)
	return b, local, err
}

func dataURL(content []byte) string {
	return "data:;base64," + base64.StdEncoding.EncodeToString(content)
}

// read reads the local file that n names.
func (d *desugar) read(n *node) ([]byte, error) {
	name := path.Clean(n.text)
	if strings.Contains(n.text, "\n") { // contents, which may be a secret
		return nil, n.wrong("invalid name of a local file", "a path below the config's directory", "several lines", "write contents as inline:")
	}
	if n.kind != scalar || !fs.ValidPath(name) {
		return nil, n.wrong("invalid name of a local file", "a path below the config's directory", fmt.Sprintf("%.80q", n.text), "")
	}
	if d.files == nil {
		return nil, n.wrong("read local file: "+errNoFiles.Error(), "", fmt.Sprintf("%.80q", n.text), "put the contents into the config")
	}
	info, err := fs.Stat(d.files, name)
	if err == nil && info.Size() > maxLocal {
		err = fmt.Errorf("expected at most %d bytes, found %d", maxLocal, info.Size())
	}
	var b []byte
	if err == nil {
		b, err = fs.ReadFile(d.files, name)
	}
	if err != nil {
		return nil, n.wrong("read local file: "+err.Error(), "", fmt.Sprintf("%.80q", n.text), "check the name; it is below the config's directory")
	}
	return b, nil
}

// units reads contents_local of units and drop-ins.
func (d *desugar) units(root *node) error {
	systemd := root.get("systemd")
	if systemd == nil {
		return nil
	}
	all := []*node{}
	if list := systemd.get("units"); list != nil {
		for _, u := range list.items {
			all = append(all, u)
			if dropins := u.get("dropins"); dropins != nil {
				all = append(all, dropins.items...)
			}
		}
	}
	for _, u := range all {
		local := u.take("contents_local")
		if local == nil {
			continue
		}
		if u.get("contents") != nil {
			return local.wrong("both contents and contents_local", "one of them", "", "remove the other")
		}
		b, err := d.read(local)
		if err != nil {
			return err
		}
		u.set("contents", textNode(string(b), local), local)
	}
	return nil
}

// keys reads ssh_authorized_keys_local: files of keys, one a line.
func (d *desugar) keys(root *node) error {
	passwd := root.get("passwd")
	if passwd == nil || passwd.get("users") == nil {
		return nil
	}
	for _, u := range passwd.get("users").items {
		local := u.take("ssh_authorized_keys_local")
		if local == nil {
			continue
		}
		list := u.child("ssh_authorized_keys", sequence, local)
		for _, name := range local.items {
			b, err := d.read(name)
			if err != nil {
				return err
			}
			for line := range strings.Lines(string(b)) {
				if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
					list.items = append(list.items, textNode(line, name))
				}
			}
		}
	}
	return nil
}

// trees copies directories: every file and link below "local" to below "path".
func (d *desugar) trees(root *node) error {
	storage := root.get("storage")
	if storage == nil {
		return nil
	}
	trees := storage.take("trees")
	if trees == nil {
		return nil
	}
	for _, t := range trees.items {
		if err := d.tree(storage, t); err != nil {
			return err
		}
	}
	return nil
}

func (d *desugar) tree(storage, t *node) error {
	local, target := t.get("local"), "/"
	if local == nil || local.kind != scalar {
		return t.wrong("missing local directory", "local: DIRECTORY", "nothing", "")
	}
	if p := t.get("path"); p != nil {
		target = p.text
	}
	if d.files == nil {
		return local.wrong("read local directory: "+errNoFiles.Error(), "", "", "use a merged config, or files")
	}
	base := path.Clean(local.text)
	owner := func(entry *node) {
		for _, key := range []string{"user", "group"} {
			if v := t.get(key); v != nil {
				entry.set(key, v, v)
			}
		}
	}
	err := fs.WalkDir(d.files, base, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		entry := mapNode(t, pair{textNode("path", t), textNode(path.Join(target, strings.TrimPrefix(name, base)), t)})
		owner(entry)
		switch {
		case e.Type().IsRegular():
			return d.treeFile(storage, t, entry, name)
		case e.Type()&fs.ModeSymlink != 0:
			to, err := fs.ReadLink(d.files, name)
			if err != nil {
				return err
			}
			entry.set("target", textNode(to, t), t)
			links := storage.child("links", sequence, t)
			links.items = append(links.items, entry)
		case e.IsDir() && name != base && (t.get("dir_mode") != nil || t.get("user") != nil || t.get("group") != nil):
			if mode := t.get("dir_mode"); mode != nil {
				entry.set("mode", mode, mode)
			}
			dirs := storage.child("directories", sequence, t)
			dirs.items = append(dirs.items, entry)
		case !e.IsDir():
			return fmt.Errorf("%s is neither file, directory nor link", name)
		}
		return nil
	})
	var known *Error
	if err != nil && !errors.As(err, &known) {
		return local.wrong("read local directory: "+err.Error(), "", fmt.Sprintf("%.80q", local.text), "check the name; it is below the config's directory")
	}
	return err
}

func (d *desugar) treeFile(storage, t, entry *node, name string) error {
	b, err := d.read(textNode(name, t))
	if err != nil {
		return err
	}
	info, err := fs.Stat(d.files, name)
	if err != nil {
		return err
	}
	mode := plainNode("420", t)
	if info.Mode()&0o111 != 0 {
		mode = plainNode("493", t)
	}
	if m := t.get("file_mode"); m != nil {
		mode = m
	}
	entry.set("mode", mode, t)
	entry.set("contents", mapNode(t, pair{textNode("source", t), textNode(dataURL(b), t)}), t)
	files := storage.child("files", sequence, t)
	files.items = append(files.items, entry)
	return nil
}

// mountUnits makes a mount or swap unit for each file system with with_mount_unit, unless the config has that unit itself.
func mountUnits(root *node) error {
	storage := root.get("storage")
	if storage == nil || storage.get("filesystems") == nil {
		return nil
	}
	made := 0
	for _, f := range storage.get("filesystems").items {
		with := f.take("with_mount_unit")
		if with == nil {
			continue
		}
		if yes, ok := with.boolean(); !ok {
			return with.wrong("wrong type", "true or false", with.what(), "")
		} else if !yes {
			continue
		}
		name, text, err := mountUnit(f, with, onNetwork(storage, f))
		if err != nil {
			return err
		}
		units := root.child("systemd", mapping, with).child("units", sequence, with)
		has := false
		for _, u := range units.items {
			n := u.get("name")
			has = has || n != nil && n.text == name
		}
		if !has {
			units.items = slices.Insert(units.items, made, mapNode(with, pair{textNode("name", with), textNode(name, with)},
				pair{textNode("enabled", with), plainNode("true", with)}, pair{textNode("contents", with), textNode(text, with)}))
			made++
		}
	}
	return nil
}

// onNetwork reports whether a file system is in a volume that servers on the network open. Nothing that is needed to boot may wait for it.
func onNetwork(storage, f *node) bool {
	device := f.get("device")
	luks := storage.get("luks")
	if device == nil || luks == nil {
		return false
	}
	for _, l := range luks.items {
		name, clevis := l.get("name"), l.get("clevis")
		if name == nil || clevis == nil || device.text != "/dev/mapper/"+name.text && device.text != "/dev/disk/by-id/dm-name-"+name.text {
			continue
		}
		if tang := clevis.get("tang"); tang != nil && len(tang.items) > 0 {
			return true
		}
		if custom := clevis.get("custom"); custom != nil && custom.get("needs_network") != nil {
			yes, _ := custom.get("needs_network").boolean()
			return yes
		}
	}
	return false
}

// mountUnit is the unit that Butane makes.
func mountUnit(f, with *node, network bool) (name, text string, err error) {
	value := func(key string) string {
		if n := f.get(key); n != nil && n.kind == scalar {
			return n.text
		}
		return ""
	}
	var options []string
	if list := f.get("mount_options"); list != nil {
		for _, o := range list.items {
			options = append(options, o.text)
		}
	}
	target, line := "local-fs.target", ""
	if network {
		target, options = "remote-fs.target", append(options, "_netdev")
	}
	if len(options) > 0 {
		line = "Options=" + strings.Join(options, ",") + "\n"
	}
	device, where, format := value("device"), value("path"), value("format")
	if device == "" || format == "" || where == "" && format != "swap" {
		return "", "", with.wrong("a mount unit needs device, format and path", "device, format, path", "not all of them", "add what is missing, or remove with_mount_unit")
	}
	for _, v := range append(options, device, where, format) {
		if strings.ContainsAny(v, "\n\r") {
			return "", "", with.wrong("a line break in what goes into a unit", "", "", "remove it")
		}
	}
	if format == "swap" {
		return unit.UnitNamePathEscape(device) + ".swap", "# Generated by Butane\n[Swap]\nWhat=" + device + "\n" + line + "\n[Install]\nRequiredBy=swap.target", nil
	}
	escaped := unit.UnitNamePathEscape(device)
	text = "# Generated by Butane\n[Unit]\nRequires=systemd-fsck@" + escaped + ".service\nAfter=systemd-fsck@" + escaped + ".service\n\n" +
		"[Mount]\nWhere=" + where + "\nWhat=" + device + "\nType=" + format + "\n" + line + "\n[Install]\nRequiredBy=" + target
	return unit.UnitNamePathEscape(where) + ".mount", text, nil
}
