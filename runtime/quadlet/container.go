package quadlet

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// container makes the unit of a .container file. The command that it starts is containerctl run's, with a name for the unit.
func (d *declaration) container() {
	s := d.own
	args := []string{containerctl, "declared", "--unit", "%n", "--name", d.resource}
	image := ""
	if e, ok := s.last("Image"); !ok {
		d.problem(0, "says no Image= in [Container]")
	} else if image = imageName(e.value); strings.HasSuffix(image, ".image") || strings.HasSuffix(image, ".build") {
		image = d.need(e, image)
	} else if strings.HasPrefix(image, "-") {
		s.add(e.problem("%.60q is no image", image))
	}
	if e, ok := s.last("HealthInterval"); ok && e.value == "disable" {
		s.add(e.problem("%q: a check that nobody makes: leave out HealthCmd=, or say HealthCmd=none", e.value))
	}
	serviceType := d.startup(&args)
	args = append(args, d.flags()...)
	args = append(args, d.identity()...)
	args = append(args, d.security()...)
	args = append(args, d.storage()...)
	networks := d.networks()
	args = append(args, networks...)
	args = append(args, d.limits()...)
	args = append(args, d.output()...)
	args = append(args, d.inPod()...)
	args = append(args, d.podmanArgs()...)
	args = append(args, image)
	if e, ok := s.last("Exec"); ok {
		e = s.each("Exec")[len(s.each("Exec"))-1] // with its quotes
		words, err := split(e.value, true)
		if err != nil {
			s.add(e.problem("%v", err))
		}
		args = append(args, words...)
	}
	d.run("ExecStart", args...)
	if serviceType != "oneshot" {
		d.run("ExecStartPost", "-"+containerctl, "watch", d.resource)
		d.run("ExecStop", "-"+containerctl, "declared-stop", d.resource)
	}
	switch {
	case serviceType != "oneshot":
		d.run("ExecStopPost", "-"+containerctl, "ended", d.resource) // notes how the workload ended, and gives back its addresses
	case d.wired():
		d.run("ExecStopPost", "-/usr/bin/oci-runtime", "delete", "--force", d.resource)
		d.run("ExecStopPost", "-"+containerctl, "network", "release", d.resource)
	default:
		d.run("ExecStopPost", "-/usr/bin/oci-runtime", "delete", "--force", d.resource)
	}
	d.reload()
}

// attached reports whether the container is in networks of its own, which it is if nothing is said.
func attached(flags []string) bool {
	for _, f := range flags {
		if f == "host" || f == "none" || strings.HasPrefix(f, "container:") || strings.HasPrefix(f, "ns:") {
			return false
		}
	}
	return true
}

// startup decides when the unit counts as started. The process that starts the workload ends then, and the workload is the unit's main
// process.
func (d *declaration) startup(args *[]string) string {
	kind := d.service.text("Type")
	notify := d.own.text("Notify")
	switch {
	case kind == "oneshot":
		d.set("Type", "oneshot")
		*args = append(*args, "--foreground")
	default:
		// The process of ExecStart= names the workload as the main one, and says when that is ready.
		kind = "notify"
		d.set("Type", kind)
		d.set("NotifyAccess", "all")
		if strings.EqualFold(notify, "healthy") {
			*args = append(*args, "--sdnotify", "healthy")
		} else if yes, _ := d.own.boolean("Notify"); yes {
			*args = append(*args, "--sdnotify", "container")
		}
		// An image may have to be fetched first.
		d.suggest("TimeoutStartSec", "15min")
	}
	stop := 10
	if e, ok := d.own.last("StopTimeout"); ok {
		n, err := strconv.Atoi(e.value)
		if err != nil || n < 1 || n > 1<<20 {
			d.own.add(e.problem("%.40q: expected a number of seconds", e.value))
		} else {
			stop = n
			*args = append(*args, "--stop-timeout", e.value)
		}
	}
	d.suggest("TimeoutStopSec", strconv.Itoa(stop+20))
	d.suggest("KillMode", "mixed")
	d.suggest("SuccessExitStatus", "143 SIGKILL")
	d.suggest("SyslogIdentifier", "%N")
	d.suggest("IgnoreSIGPIPE", "no")
	d.inServ = append(d.inServ, "Delegate=cpu io memory pids", "DevicePolicy=closed", "DeviceAllow=/dev/tty rwm", "DeviceAllow=char-pts rw")
	return kind
}

// identity is who runs in the container, with what.
func (d *declaration) identity() (out []string) {
	s := d.own
	user, group := s.text("User"), s.text("Group")
	if e, ok := s.last("Group"); ok && user == "" {
		s.add(e.problem("without User="))
	}
	if group != "" {
		user += ":" + group
	}
	if user != "" {
		out = append(out, "--user", user)
	}
	for i := len(s.entries) - 1; i >= 0; i-- { // an empty one is a value: no entrypoint
		if s.entries[i].key == "Entrypoint" {
			out = append(out, "--entrypoint="+unquote(s.entries[i].value))
			break
		}
	}
	for _, e := range s.words("EnvironmentFile", true) {
		out = append(out, "--env-file", d.absolute(e.value))
	}
	return out
}

func (d *declaration) security() (out []string) {
	s := d.own
	if yes, _ := s.boolean("NoNewPrivileges"); yes {
		out = append(out, "--security-opt", "no-new-privileges")
	}
	if v := s.text("SeccompProfile"); v == "unconfined" || path.IsAbs(v) || isSpecifier(v) {
		out = append(out, "--security-opt", "seccomp="+v)
	} else if v != "" {
		out = append(out, "--security-opt", "seccomp="+d.absolute(v))
	}
	if e, ok := s.last("UserNS"); ok {
		if !regexp.MustCompile(`^(host|auto(:size=[0-9]+)?)$`).MatchString(e.value) {
			s.add(e.problem("%.40q: expected host, auto or auto:size=N", e.value))
		}
		out = append(out, "--userns", e.value)
	}
	if v := s.text("AppArmor"); v != "" {
		out = append(out, "--security-opt", "apparmor="+v)
	}
	for _, key := range []string{"Mask", "Unmask"} {
		for _, e := range s.words(key, true) {
			out = append(out, "--security-opt", strings.ToLower(key)+"="+e.value)
		}
	}
	s.boolean("SecurityLabelDisable") // there are no labels to disable
	for _, e := range s.words("AddDevice", false) {
		name, optional := strings.CutPrefix(e.value, "-")
		source, _, _ := strings.Cut(name, ":")
		if !strings.HasPrefix(source, "/dev/") || path.Clean(source) != source {
			s.add(e.problem("%.80q: expected a path below /dev", source))
			continue
		}
		if optional && d.host.Exists != nil && !d.host.Exists(source) {
			continue
		}
		access := "rwm"
		if f := strings.Split(name, ":"); len(f) > 1 && regexp.MustCompile(`^[rwm]+$`).MatchString(f[len(f)-1]) {
			access = f[len(f)-1]
		}
		out = append(out, "--device", name)
		d.inServ = append(d.inServ, "DeviceAllow="+quote(source)+" "+access)
	}
	if yes, set := s.boolean("ReadOnly"); set {
		out = append(out, fmt.Sprintf("--read-only=%t", yes))
		if tmpfs, said := s.boolean("ReadOnlyTmpfs"); yes && (tmpfs || !said) {
			for _, dir := range []string{"/run", "/tmp", "/var/tmp"} { // what podman makes writable then
				if !slices.ContainsFunc(s.each("Tmpfs"), func(e entry) bool { t, _, _ := strings.Cut(e.value, ":"); return path.Clean(t) == dir }) {
					out = append(out, "--tmpfs", dir)
				}
			}
		}
	}
	return out
}

// storage are volumes and mounts.
func (d *declaration) storage() (out []string) {
	for _, e := range d.own.each("Volume") {
		out = append(out, "--volume", d.volumeFlag(e))
	}
	for _, e := range d.own.words("Mount", true) {
		fields := strings.Split(e.value, ",")
		kind := "volume"
		for _, f := range fields {
			if k, v, _ := strings.Cut(f, "="); k == "type" {
				kind = v
			}
		}
		for i, f := range fields {
			k, v, _ := strings.Cut(f, "=")
			if k != "source" && k != "src" {
				continue
			}
			switch {
			case kind == "volume" && strings.HasSuffix(v, ".volume"), kind == "image" && (strings.HasSuffix(v, ".image") || strings.HasSuffix(v, ".build")):
				fields[i] = "source=" + d.need(e, v)
			case kind == "bind" || kind == "glob":
				v = d.absolute(v)
				fields[i] = "source=" + v
				if path.IsAbs(v) {
					d.mountsFor(e, v)
				}
			}
		}
		out = append(out, "--mount", strings.Join(fields, ","))
	}
	return out
}

// volumeFlag is one [SOURCE:]TARGET[:OPTIONS].
func (d *declaration) volumeFlag(e entry) string {
	source, rest, ok := strings.Cut(e.value, ":")
	switch {
	case !ok:
		return e.value
	case source == "":
		return rest
	case strings.HasSuffix(source, ".volume"):
		source = d.need(e, source)
	case source[0] == '.' || source[0] == '/':
		source = d.absolute(source)
		d.mountsFor(e, source)
	}
	return source + ":" + rest
}

// wired reports whether the container is in networks itself, and not in a pod, another container's namespace or none.
func (d *declaration) wired() bool {
	if _, ok := d.own.last("Pod"); ok {
		return false
	}
	for _, e := range d.own.each("Network") {
		mode, _, _ := strings.Cut(e.value, ":")
		if mode == "host" || mode == "none" || mode == "ns" || mode == "container" || path.Ext(mode) == ".container" {
			return false
		}
	}
	return true
}

// networks are what [Container] or [Pod] joins.
func (d *declaration) networks() (out []string) {
	for _, e := range d.own.each("Network") {
		name, options, more := strings.Cut(e.value, ":")
		switch path.Ext(name) {
		case ".network":
			name = d.need(e, name)
			if more {
				name += ":" + options
			}
		case ".container":
			other := d.all[name]
			name = d.need(e, name)
			if other != nil {
				name = strings.ReplaceAll(name, "%N", strings.TrimSuffix(other.name, ".service"))
			}
			if strings.Contains(name, "%") {
				d.own.add(e.problem("the container's name is only known to systemd: say ContainerName= there"))
			}
			if more {
				d.own.add(e.problem("another container's network takes no options"))
			}
			name = "container:" + name
		default:
			name = e.value
		}
		out = append(out, "--network", name)
	}
	return out
}

// limits are the unit's: systemd keeps them, and systemctl set-property changes them.
func (d *declaration) limits() (out []string) {
	if e, ok := d.own.last("Memory"); ok {
		if m := regexp.MustCompile(`^([0-9]+)([bBkKmMgG]?)$`).FindStringSubmatch(e.value); m == nil {
			d.own.add(e.problem("%.40q: expected a size such as 512m", e.value))
		} else {
			d.inServ = append(d.inServ, "MemoryMax="+m[1]+strings.Trim(strings.ToUpper(m[2]), "B"))
		}
	}
	if e, ok := d.own.last("PidsLimit"); ok {
		n, err := strconv.Atoi(e.value)
		switch {
		case err != nil || n < -1 || n == 0:
			d.own.add(e.problem("%.40q: expected a number, or -1 for no limit", e.value))
		case n == -1:
			d.inServ = append(d.inServ, "TasksMax=infinity")
		default:
			d.inServ = append(d.inServ, "TasksMax="+strconv.Itoa(n))
		}
	}
	for _, e := range d.own.each("ExposeHostPort") {
		if !regexp.MustCompile(`^[0-9]+(-[0-9]+)?(/(tcp|udp|sctp))?$`).MatchString(strings.TrimSpace(e.value)) {
			d.own.add(e.problem("%.40q: expected PORT or PORT-PORT; to reach it from outside say PublishPort=", e.value))
		}
	}
	return out
}

// output goes to the journal, whatever it is called; what would send it elsewhere is refused.
func (d *declaration) output() (out []string) {
	s := d.own
	if e, ok := s.last("LogDriver"); ok {
		switch e.value {
		case "journald", "passthrough":
		case "none":
			d.suggest("StandardOutput", "null")
			d.suggest("StandardError", "null")
		default:
			s.add(e.problem("%.40q: output goes to the journal (journald), or nowhere (none)", e.value))
		}
	}
	for _, e := range s.words("LogOpt", false) {
		s.add(e.problem("%.40q: the journal has no options; SyslogIdentifier= in [Service] is a tag", e.value))
	}
	if e, ok := s.last("CgroupsMode"); ok && e.value != "split" && e.value != "enabled" && e.value != "no-conmon" {
		s.add(e.problem("%.40q: a container is in its unit's control group (split)", e.value))
	}
	if e, ok := s.last("AutoUpdate"); ok {
		if e.value != "registry" && e.value != "local" {
			s.add(e.problem("%.40q: expected registry or local", e.value))
		}
		out = append(out, "--label", "io.containers.autoupdate="+e.value)
	}
	return out
}

// inPod joins a pod, and takes what the pod says for all.
func (d *declaration) inPod() (out []string) {
	e, ok := d.own.last("Pod")
	if !ok {
		return nil
	}
	pod := d.all[e.value]
	if path.Ext(e.value) != ".pod" || pod == nil || pod.name == "" {
		d.own.add(e.problem("there is no %.80q", e.value))
		return nil
	}
	for _, key := range []string{"Network", "PublishPort", "NetworkAlias", "IP", "IP6"} {
		if own, ok := d.own.last(key); ok {
			d.own.add(own.problem("belongs into %s: the network is the pod's", e.value))
		}
	}
	d.inUnit = append(d.inUnit, "BindsTo="+pod.name, "After="+pod.name)
	if start, said := d.own.boolean("StartWithPod"); (start || !said) && !strings.HasSuffix(d.name, "@.service") && d.name != "" {
		pod.started = append(pod.started, d.name)
	}
	out = append(out, "--network", "ns:/run/proa/netns/"+pod.resource)
	for _, v := range pod.own.each("Volume") {
		out = append(out, "--volume", d.podVolume(pod, v))
	}
	for key, flag := range map[string]string{"HostName": "--hostname", "ShmSize": "--shm-size"} {
		if v := pod.own.text(key); v != "" && d.own.text(key) == "" {
			out = append(out, flag, v)
		}
	}
	for _, f := range [][2]string{{"AddHost", "--add-host"}, {"DNS", "--dns"}, {"DNSOption", "--dns-option"}, {"DNSSearch", "--dns-search"}} {
		for _, v := range pod.own.each(f[0]) {
			out = append(out, f[1], v.value)
		}
	}
	return out
}

// podVolume reads a pod's volume from where the pod's file lies.
func (d *declaration) podVolume(pod *declaration, e entry) string {
	if strings.HasPrefix(e.value, ".") {
		source, rest, _ := strings.Cut(e.value, ":")
		e.value = pod.absolute(source) + ":" + rest
	}
	return d.volumeFlag(e)
}

func (d *declaration) reload() {
	command, ok := d.own.last("ReloadCmd")
	sig, also := d.own.last("ReloadSignal")
	switch {
	case ok && also:
		d.own.add(sig.problem("there is a ReloadCmd= as well: expected one of them"))
	case ok:
		command = d.own.each("ReloadCmd")[len(d.own.each("ReloadCmd"))-1]
		words, err := split(command.value, true)
		if err != nil {
			d.own.add(command.problem("%v", err))
		}
		d.run("ExecReload", append([]string{containerctl, "exec", d.resource}, words...)...)
	case also:
		d.run("ExecReload", "/usr/bin/oci-runtime", "kill", d.resource, sig.value)
	}
}
