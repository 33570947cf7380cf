package ctl

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/proa-os/proa/internal/registrytest"
	"github.com/proa-os/proa/runtime/quadlet"
)

// documented are values as podman-systemd.unit(5) of podman 5 shows them, for every key that is carried out. Further lines of a value are further
// assignments.
var documented = map[string]map[string][]string{
	".container": {
		"AddCapability": {"CAP_DAC_OVERRIDE CAP_IPC_OWNER"}, "AddDevice": {"/dev/null", "-/dev/null:/dev/x:rw"}, "AddHost": {"example.com:192.168.10.11", "h:host-gateway"},
		"Annotation": {"XYZ", `a=b "c=d e"`}, "AppArmor": {"unconfined"}, "AutoUpdate": {"registry", "local"}, "CgroupsMode": {"no-conmon", "split"}, "ContainerName": {"name"},
		"DNS": {"192.168.55.1"}, "DNSOption": {"ndots:1"}, "DNSSearch": {"example.com", "."}, "DropCapability": {"all", "CAP_DAC_OVERRIDE CAP_IPC_OWNER"},
		"Entrypoint": {"/foo.sh", `["/foo.sh","-x"]`, ""}, "Environment": {"foo=bar", `A="one two" 'B=x;y'`}, "EnvironmentFile": {"@env"}, "EnvironmentHost": {"true"},
		"Exec": {"/usr/bin/command", `sh -c "echo 'a b'" --rm`}, "ExposeHostPort": {"50-59"}, "Group": {"1234\nUser=1"}, "GroupAdd": {"audio"},
		"HealthCmd": {"/usr/bin/command", "none", `["CMD","/x","y z"]`}, "HealthInterval": {"2m"}, "HealthOnFailure": {"kill", "none", "restart", "stop"}, "HealthRetries": {"5"},
		"HealthStartPeriod": {"1m"}, "HealthTimeout": {"20s", "1m33s"}, "HostName": {"example.com"}, "HttpProxy": {"false"},
		"Image": {"registry.example.org/ubi8", "x.image", "docker://registry.example.org/ubi8:1"}, "IP": {"192.5.0.1"}, "IP6": {"2001:db8::1"}, "Label": {`"XYZ"`, "a=b"}, "LogDriver": {"journald", "none"}, "LogOpt": nil,
		"Mask": {"/proc/sys/foo:/proc/sys/bar"}, "Memory": {"20g"}, "Mount": {"type=tmpfs,destination=/x,tmpfs-size=1m", "type=bind,source=/a,target=/b,ro=true", "type=volume,source=x.volume,target=/b"},
		"Network": {"host", "none", "x.network", "x.network:ip=10.1.0.9", "bridge", "other.container", "ns:/run/x"}, "NetworkAlias": {"name"}, "NoNewPrivileges": {"true"}, "Notify": {"true", "healthy"},
		"PidsLimit": {"10000", "-1"}, "Pod": {"x.pod"}, "PodmanArgs": {"--publish 8080:80"}, "PublishPort": {"8080:80", "127.0.0.1::80", "50-59:50-59", "80", "[::]:80:80", "0.0.0.0:53:53/udp"},
		"Pull": {"never", "always", "missing", "newer"}, "ReadOnly": {"true"}, "ReadOnlyTmpfs": {"true\nReadOnly=true"}, "ReloadCmd": {"/usr/bin/command -x"}, "ReloadSignal": {"SIGHUP"},
		"Retry": {"5"}, "RetryDelay": {"5s"}, "RunInit": {"false"}, "SeccompProfile": {"@seccomp.json", "unconfined"}, "Secret": {"secret", "secret,type=env,target=KEY"}, "SecurityLabelDisable": {"true"},
		"ServiceName": {"y"}, "ShmSize": {"100m"}, "StartWithPod": {"false\nPod=x.pod"}, "StopSignal": {"SIGINT"}, "StopTimeout": {"20"},
		"Sysctl": {"net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.all.use_tempaddr=1"}, "Tmpfs": {"/work", "/work:size=1m"}, "Ulimit": {"nofile=1000:10000"},
		"Unmask": {"ALL", "/path/1:/path/2", "/proc/*"}, "User": {"bin", "1000"}, "UserNS": {"auto", "auto:size=4096", "host"}, "Volume": {"/source:/dest", "x.volume:/dest:ro", "./here:/there:z", "/anonymous"}, "WorkingDir": {"/x"},
	},
	".volume": {
		"Copy": {"true", "false"}, "Device": {"tmpfs\nType=tmpfs", "/dev/vdb\nType=ext4"}, "Driver": {"local"}, "GID": {"192"}, "Group": {"192", "root"}, "Label": {`"foo=bar"`},
		"Options": {"uid=1,noatime\nDevice=/dev/vdb\nType=ext4"}, "PodmanArgs": {"--label a=b"}, "ServiceName": {"y"}, "Type": {"bind\nDevice=/srv\nOptions=bind"}, "UID": {"5"}, "User": {"123", "root"}, "VolumeName": {"foo"},
	},
	".network": {
		"DNS": {"192.168.55.1"}, "DisableDNS": {"true"}, "Driver": {"bridge"}, "Gateway": {"192.168.55.3\nSubnet=192.168.55.0/24"}, "IPAMDriver": {"host-local"},
		"IPRange": {"192.168.55.128/25\nSubnet=192.168.55.0/24", "192.168.55.100-192.168.55.120\nSubnet=192.168.55.0/24"}, "IPv6": {"true", "false"}, "InterfaceName": {"enp1"}, "Internal": {"true"}, "Label": {`"XYZ"`},
		"NetworkDeleteOnStop": {"true"}, "NetworkName": {"foo"}, "Options": {"isolate=true", "mtu=1400"}, "PodmanArgs": {"--dns=192.168.55.1"}, "ServiceName": {"y"}, "Subnet": {"192.5.0.0/16", "192.5.0.0/16\nSubnet=fd00::/64"},
	},
	".image": {
		"Image": {"registry.example.org/centos:latest", "docker://registry.example.org/centos"}, "ImageTag": {"registry.example.org/centos:latest"}, "PodmanArgs": {"--keep-blobs"}, "Policy": {"always", "missing", "newer", "never"},
		"Retry": {"5"}, "RetryDelay": {"10s"}, "ServiceName": {"y"}, "TLSVerify": {"false"},
	},
	".pod": {
		"AddHost": {"example.com:192.168.10.11"}, "DNS": {"192.168.55.1"}, "DNSOption": {"ndots:1"}, "DNSSearch": {"example.com"}, "ExitPolicy": {"stop", "continue"}, "HostName": {"name"},
		"IP": {"192.5.0.1"}, "IP6": {"2001:db8::1"}, "Network": {"x.network", "none"}, "NetworkAlias": {"name"}, "PodName": {"name"}, "PodmanArgs": {"--ip 10.1.0.9"}, "PublishPort": {"8080:80"},
		"ServiceName": {"y"}, "ShmSize": {"100m"}, "StopTimeout": {"20"}, "Volume": {"/source:/dest", "./here:/there"},
	},
}

// TestDeclaredCommands: every documented value of every key becomes a unit whose command lines containerctl's own parser takes, of the
// declaration itself and of a container in the pod. So neither can change without the other.
func TestDeclaredCommands(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"env": "A=b\n", "seccomp.json": `{"defaultAction":"SCMP_ACT_ALLOW"}`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	sections := map[string]string{".container": "Container", ".volume": "Volume", ".network": "Network", ".image": "Image", ".pod": "Pod"}
	total := 0
	for ext, section := range sections {
		for _, key := range quadlet.Keys(ext, false) {
			values, ok := documented[ext][key]
			if !ok {
				t.Errorf("%s: %s= is carried out, and this test has no value for it", ext, key)
			}
			for _, value := range values {
				text := "[" + section + "]\n" + key + "=" + strings.ReplaceAll(value, "@", dir+"/") + "\n"
				if (ext == ".container" || ext == ".image") && key != "Image" {
					text += "Image=registry.example.org/i:1\n"
				}
				files := []*quadlet.File{quadlet.Parse(dir+"/unit"+ext, []byte(text))}
				for _, other := range []string{"x.image\n[Image]\nImage=i", "x.volume\n[Volume]", "x.network\n[Network]", "x.pod\n[Pod]",
					"other.container\n[Container]\nImage=i\nContainerName=other", "in.container\n[Container]\nImage=i\nPod=unit.pod"} {
					if name, body, _ := strings.Cut(other, "\n"); ext == ".pod" || name != "in.container" {
						files = append(files, quadlet.Parse(dir+"/"+name, []byte(body)))
					}
				}
				for _, u := range quadlet.Convert(files, quadlet.Host{Exists: func(string) bool { return true }}) {
					for _, p := range u.Problems {
						t.Errorf("%s: %s=%s: %v", ext, key, value, p)
					}
					total += parseCommands(t, u)
				}
			}
		}
	}
	if total < 500 {
		t.Errorf("only %d command lines", total)
	}
}

// TestPullPolicy: what .image files say with Policy=.
func TestPullPolicy(t *testing.T) {
	m := bareMachine(t)
	want := m.small("small:1")
	name := m.reg.Addr + "/small:1"
	pull := func(policy string) []string { return []string{"pull", "--tls-verify=false", "--policy", policy, name} }
	m.mustFail("no such image", pull("never")...)
	m.mustFail("want missing, always, newer or never", pull("often")...)
	m.must(pull("missing")...)
	m.must("rmi", name)
	m.must(pull("newer")...)
	m.reg.Push("small:1", registrytest.Image{Layers: [][]registrytest.File{{{Name: "other"}}}})
	for _, policy := range []string{"missing", "never"} {
		if got := strings.TrimSpace(m.must(pull(policy)...)); got != want {
			t.Errorf("%s: %s, want the one that is here, %s", policy, got, want)
		}
	}
	changed := strings.TrimSpace(m.must(pull("newer")...))
	if changed == want {
		t.Error("newer: the registry's was not fetched")
	}
	m.reg.Close()
	if got := strings.TrimSpace(m.must(pull("newer")...)); got != changed {
		t.Errorf("newer without the registry: %s, want %s", got, changed)
	}
	m.mustFail("refused", pull("always")...)
}

var (
	execLine = regexp.MustCompile(`(?m)^Exec[A-Za-z]+=-?(\S+) (.*)$`)
	word     = regexp.MustCompile(`"(?:[^"\\]|\\.)*"|\S+`)
)

// parseCommands gives the command lines of a unit to the parser of the program that they name, and returns how many there were.
func parseCommands(t *testing.T, u quadlet.Unit) int {
	t.Helper()
	text := strings.NewReplacer("%n", u.Name, "%N", strings.TrimSuffix(u.Name, ".service"), "%%", "%").Replace(u.Text)
	lines := execLine.FindAllStringSubmatch(text, -1)
	for _, l := range lines {
		if filepath.Base(l[1]) == "oci-runtime" {
			continue // its command line is the OCI's
		}
		var args []string
		for _, w := range word.FindAllString(l[2], -1) {
			if s, err := strconv.Unquote(w); err == nil {
				w = s
			}
			args = append(args, w)
		}
		if err := parseOnly(args); err != nil || filepath.Base(l[1]) != "containerctl" {
			t.Errorf("%s: %s: %v", u.Source, l[0], err)
		}
	}
	return len(lines)
}

// parseOnly is the way of a command line through Main until it would be carried out.
func parseOnly(args []string) error {
	verbs := new(Env).verbs()
	for {
		i := slices.IndexFunc(verbs, func(v verb) bool { return v.name == args[0] })
		if i < 0 {
			return &unknownVerb{args[0]}
		}
		v := verbs[i]
		args = args[1:]
		if v.verbs != nil {
			verbs = v.verbs
			continue
		}
		set, _ := new(Env).own(v)
		rest, err := set.Parse(args)
		if err == nil && (len(rest) < v.min || v.max >= 0 && len(rest) > v.max) {
			return &unknownVerb{v.name + " with " + strconv.Itoa(len(rest)) + " arguments"}
		}
		return err
	}
}

type unknownVerb struct{ name string }

func (u *unknownVerb) Error() string { return "containerctl knows no " + u.name }
