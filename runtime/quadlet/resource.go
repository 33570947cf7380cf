package quadlet

import (
	"slices"
	"strconv"
	"strings"
)

// volume makes the unit of a .volume file.
func (d *declaration) volume() {
	s := d.own
	args := append([]string{containerctl, "volume", "create", "--ignore"}, d.flags()...)
	if e, ok := s.last("Driver"); ok && e.value != "local" {
		s.add(e.problem("%.40q: expected local", e.value))
	}
	if yes, set := s.boolean("Copy"); set && !yes {
		args = append(args, "--opt", "nocopy")
	}
	device, hasDevice := s.last("Device")
	kind, hasType := s.last("Type")
	if hasDevice {
		args = append(args, "--opt", "device="+device.value)
	}
	switch {
	case hasType && !hasDevice && kind.value != "tmpfs":
		s.add(kind.problem("without Device="))
	case hasType:
		args = append(args, "--opt", "type="+kind.value)
		if kind.value == "bind" {
			d.mountsFor(device, device.value)
		}
	}
	if v := s.text("Options"); v != "" {
		args = append(args, "--opt", "o="+v)
	}
	args = append(args, d.podmanArgs()...)
	d.run("ExecStart", append(args, d.resource)...)
	d.oneshot()
}

// network makes the unit of a .network file.
func (d *declaration) network() {
	s := d.own
	args := append([]string{containerctl, "network", "create", "--ignore"}, d.flags()...)
	if e, ok := s.last("IPAMDriver"); ok && e.value != "host-local" {
		s.add(e.problem("%.40q: addresses are given out by the machine (host-local)", e.value))
	}
	if e, ok := s.last("Driver"); ok && e.value != "bridge" {
		s.add(e.problem("%.40q: networks are bridges of the machine: expected bridge", e.value))
	}
	subnets, gateways, ranges := s.each("Subnet"), s.each("Gateway"), s.each("IPRange")
	for _, list := range [][]entry{gateways, ranges} {
		if len(list) > len(subnets) {
			s.add(list[len(subnets)].problem("there is no Subnet= for it"))
		}
	}
	for i, e := range subnets {
		args = append(args, "--subnet", e.value)
		if i < len(gateways) {
			args = append(args, "--gateway", gateways[i].value)
		}
		if i < len(ranges) {
			args = append(args, "--ip-range", ranges[i].value)
		}
	}
	args = append(args, d.podmanArgs()...)
	d.run("ExecStart", append(args, d.resource)...)
	if yes, _ := s.boolean("NetworkDeleteOnStop"); yes {
		d.run("ExecStopPost", "-"+containerctl, "network", "rm", d.resource)
	}
	d.oneshot()
}

// image makes the unit of an .image file. Tries are systemd's.
func (d *declaration) image() {
	s := d.own
	e, ok := s.last("Image")
	if !ok || strings.HasPrefix(e.value, "-") {
		d.problem(0, "says no Image= in [Image]")
	}
	if transport, _, ok := strings.Cut(e.value, ":"); ok && slices.Contains([]string{"docker-archive", "oci-archive", "oci", "dir", "containers-storage", "docker-daemon"}, transport) {
		s.add(e.problem("%.80q: expected the name of an image in a registry: an archive is read by containerctl load", e.value))
	}
	args := append([]string{containerctl, "pull"}, d.flags()...)
	d.run("ExecStart", append(append(args, d.podmanArgs()...), imageName(e.value))...)
	if tag, ok := s.last("ImageTag"); ok && tag.value != e.value {
		d.run("ExecStart", containerctl, "tag", imageName(e.value), tag.value)
	}
	if retry, ok := s.last("Retry"); ok {
		n, err := strconv.Atoi(retry.value)
		if err != nil || n < 0 || n > 1000 {
			s.add(retry.problem("%.40q: expected a number of tries", retry.value))
		}
		d.suggest("Restart", "on-failure")
		d.inUnit = append(d.inUnit, "StartLimitIntervalSec=infinity", "StartLimitBurst="+strconv.Itoa(n+1))
		if delay := s.text("RetryDelay"); delay != "" {
			d.suggest("RestartSec", delay)
		}
	}
	d.oneshot()
}

// pod makes the unit of a .pod file: a network namespace that its containers are in.
func (d *declaration) pod() {
	s := d.own
	for _, c := range d.started {
		d.inUnit = append(d.inUnit, "Wants="+c, "Before="+c)
	}
	if e, ok := s.last("ExitPolicy"); !ok || e.value == "stop" {
		d.inUnit = append(d.inUnit, "StopWhenUnneeded=yes") // its containers are bound to it: it is needed while one runs
	} else if e.value != "continue" {
		s.add(e.problem("%.40q: expected stop or continue", e.value))
	}
	if e, ok := s.last("StopTimeout"); ok {
		if n, err := strconv.Atoi(e.value); err != nil || n < 0 {
			s.add(e.problem("%.40q: expected a number of seconds", e.value))
		}
	}
	networks := d.networks()
	if e, ok := s.last("Network"); ok && !attached(networks) && e.value != "none" {
		s.add(e.problem("%.80q: a pod has a network namespace of its own: say it in each container", e.value))
	}
	args := append([]string{containerctl, "network", "namespace", "up"}, d.flags()...)
	args = append(args, networks...)
	d.run("ExecStart", append(append(args, d.podmanArgs()...), d.resource)...)
	d.run("ExecStopPost", "-"+containerctl, "network", "namespace", "down", d.resource)
	for _, e := range s.each("Volume") {
		d.podVolume(d, e) // checks it; the containers mount it
	}
	d.oneshot()
}
