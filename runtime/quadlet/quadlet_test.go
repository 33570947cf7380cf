package quadlet

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/proa-os/proa/internal/testenv"
	"github.com/proa-os/proa/internal/tooltree"
)

// declare converts files written as "name: text", below /etc/containers/systemd.
func declare(t testing.TB, files ...string) map[string]Unit {
	t.Helper()
	var list []*File
	for _, f := range files {
		name, text, _ := strings.Cut(f, "\n")
		list = append(list, Parse("/etc/containers/systemd/"+name, []byte(text)))
	}
	units := make(map[string]Unit)
	for _, u := range Convert(list, Host{
		Taken: func(unit string) string {
			return map[string]string{"sshd.service": "/usr/lib/systemd/system/sshd.service"}[unit]
		},
		Exists: func(path string) bool { return path == "/dev/kvm" },
	}) {
		units[u.Name] = u
	}
	return units
}

// shop declares one of everything.
var shop = []string{`web.container
# The shop's front.
[Unit]
Description=The shop
After=db.container
[Container]
Image=front.image
ContainerName=web
Volume=data.volume:/data:ro
Volume=./conf:/conf
Volume=/srv/a b:/b
Mount=type=bind,src=./m,dst=/m
Network=back.network:ip=10.9.0.7
PublishPort=8080:80
PublishPort=
PublishPort=80:80
Environment=A="one two" 'B=x;y' \
            # of no effect
            C=%i
Environment=A=three
EnvironmentFile=env/web
User=app
Group=www
Entrypoint=
Exec=serve "hello world" \x41 ; 'it''s' 100%%
Memory=512m
PidsLimit=-1
AddDevice=/dev/fuse
AddDevice=-/dev/kvm:/dev/kvm:r
AddDevice=-/dev/gone
ReadOnly=yes
Tmpfs=/tmp:size=1m
Notify=healthy
HealthCmd="wget -q http://localhost/"
ReloadSignal=HUP
StopTimeout=70
Secret=key,type=env,target=KEY
Secret=tls
PodmanArgs=--cpus 2
[Service]
Restart=always
[Install]
WantedBy=multi-user.target
Alias=shop.service
`, `db.container
[Container]
Image=registry.example.org/db:1
Pod=shop.pod
[Quadlet]
DefaultDependencies=no
`, `job@.container
[Container]
Image=registry.example.org/job:1
Pull=newer
[Service]
Type=oneshot
[Install]
WantedBy=timers.target
DefaultInstance=night
`, `data.volume
[Volume]
Device=/dev/disk/by-label/data
Type=ext4
Options=noatime
Label=a=b
`, `back.network
[Network]
Subnet=10.9.0.0/24
Gateway=10.9.0.1
Internal=true
NetworkDeleteOnStop=yes
`, `front.image
[Image]
Image=registry.example.org/front:2
ImageTag=localhost/front:2
Retry=3
RetryDelay=5s
`, `shop.pod
[Pod]
PublishPort=5432:5432
HostName=shop
Volume=./share:/share
`}

func TestConvert(t *testing.T) {
	units := declare(t, shop...)
	for _, u := range units {
		for _, p := range u.Problems {
			t.Error(p)
		}
	}
	want, err := os.ReadFile("testdata/units.txt")
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, name := range []string{"web.service", "db.service", "job@.service", "data-volume.service", "back-network.service", "front-image.service", "shop-pod.service"} {
		u, ok := units[name]
		if !ok {
			t.Errorf("no unit %s", name)
		}
		fmt.Fprintf(&b, "---%s---\n%s", name, u.Text)
		for _, l := range u.Links {
			fmt.Fprintf(&b, "# %s -> %s\n", l.Path, l.Target)
		}
	}
	if os.Getenv("PROA_UPDATE_GOLDEN") == "1" {
		if err := os.WriteFile("testdata/units.txt", []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got := b.String(); got != string(want) {
		t.Errorf("got\n%s\nwant testdata/units.txt (PROA_UPDATE_GOLDEN=1 writes it)", got)
	}
}

// Each of these files has one thing wrong, which is named with file, line and key, and costs its own unit only.
func TestProblems(t *testing.T) {
	const good = "good.container\n[Container]\nImage=a\n"
	for _, tc := range []struct{ file, want string }{
		{"x.container\n[Container]\nImage=a\nImgae=b", `x.container:3: unknown key "Imgae" in [Container]: did you mean Image=?`},
		{"x.container\n[Container]\nImage=a\npublishport=1", `:3: unknown key "publishport" in [Container]: did you mean PublishPort=?`},
		{"x.container\n[Container]\nImage=a\nZzzzzzzz=1", `:3: unknown key "Zzzzzzzz" in [Container]`},
		{"x.container\n[Container]\nImage=a\n[Instal]", `:3: unknown section [Instal]: did you mean [Install]?`},
		{"x.container\n[Container]\nImage=a\n[Volume]", `:3: unknown section [Volume]: expected [Container]`},
		{"x.container\n[Container]\nGlobalArgs=--debug\nImage=a", `:2: GlobalArgs=: is not carried out: is an option of podman`},
		{"x.container\n[Container]\nImage=a\nReadOnly=maybe", `:3: ReadOnly=: "maybe" is no boolean`},
		{"x.container\n[Container]\nImage=a\nExec=sh -c \"x", `:3: Exec=: the quote " is not closed`},
		{"x.container\n[Container]\nImage=a\nEnvironment='A=\\q'", `:3: Environment=: unknown escape`},
		{"x.container\n[Container]\nImage=a\nEnvironment==b", `:3: Environment=: "=b" has no name`},
		{"x.container\n[Container]\nImage=a\nVolume=no.volume:/x", `:3: Volume=: there is no "no.volume"`},
		{"x.container\n[Container]\nImage=a\nNetwork=no.network", `:3: Network=: there is no "no.network"`},
		{"x.container\n[Container]\nImage=a\nPod=no.pod", `:3: Pod=: there is no "no.pod"`},
		{"x.container\n[Container]\nImage=no.image", `:2: Image=: there is no "no.image"`},
		{"x.container\n[Unit]\nAfter=no.container\n[Container]\nImage=a", `:2: After=: there is no "no.container"`},
		{"x.container\n[Container]\nImage=a\n[Service]\nUser=joe", `:4: User=: is not carried out in [Service]`},
		{"x.container\n[Container]\nImage=a\n[Service]\nExecStart=/bin/sh", `:4: ExecStart=: is made from [Container]`},
		{"x.container\n[Container]\nImage=a\n[Service]\nType=dbus", `:4: Type=: "dbus": expected oneshot`},
		{"x.container\n[Container]\nImage=a\n[Service]\nKillMode=none", `:4: KillMode=: "none": expected mixed`},
		{"x.container\n[Container]\nImage=a\n[Install]\nAlso=y.service", `:4: Also=: is not carried out`},
		{"x.container\n[Container]\nImage=a\n[Install]\nAlias=../../etc/passwd.service", `:4: Alias=: "../../etc/passwd.service": expected the name of a unit`},
		{"x.container\n[Container]\nImage=a\n[Install]\nWantedBy=multi-user", `:4: WantedBy=: "multi-user": expected the name of a unit`},
		{"x.container\n[Container]\nImage=a\nGroup=g", `:3: Group=: without User=`},
		{"x.container\n[Container]\nImage=a\nMemory=lots", `:3: Memory=: "lots": expected a size`},
		{"x.container\n[Container]\nImage=a\nAddDevice=/etc/passwd", `:3: AddDevice=: "/etc/passwd": expected a path below /dev`},
		{"x.container\n[Container]\nImage=a\nAddDevice=/dev/../etc/passwd", `:3: AddDevice=: "/dev/../etc/passwd": expected a path below /dev`},
		{"x.container\n[Container]\nImage=a\nRunInit=maybe", `:3: RunInit=`},
		{"x.container\n[Container]\nImage=a\nUserNS=keep-id", `:3: UserNS=: "keep-id": expected host, auto`},
		{"x.container\n[Container]\nImage=a\nUIDMap=0:1:2", `:3: UIDMap=: is not carried out: the system gives out`},
		{"x.container\n[Container]\nImage=a\nLogDriver=json-file", `:3: LogDriver=: "json-file": output goes to the journal`},
		{"x.container\n[Container]\nImage=a\nReloadCmd=a\nReloadSignal=HUP", `:4: ReloadSignal=: there is a ReloadCmd=`},
		{"x.container\n[Container]\nImage=-a", `:2: Image=: "-a" is no image`},
		{"x.container\n[Unit]\n", `x.container: has no section [Container]`},
		{"x.container\n[Container]\n", `x.container: says no Image=`},
		{"x.container\nImage=a\n[Container]\nImage=a", `:1: "Image=a" stands before the first [Section]`},
		{"x.container\n[Container]\nImage", `:2: "Image" is neither [Section] nor Key=value`},
		{"x.container\n[Container\nImage=a", `:1: "[Container" is no [Section]`},
		{"x.container\n[Container]\nImage=a\nLabel=a\rb", `:3: has a control character`},
		{"x.container\n[Container]\nImage=a\nLabel=\xff", `:3: is not UTF-8`},
		{"x.container\n[Container]\nImage=a\nLabel=\x00", `:3: has a NUL byte`},
		{"x.container\n[Container]\nImage=a\n" + strings.Repeat("#", MaxSize), `: has 1048`},
		{"x.network\n[Network]\nGateway=10.0.0.1", `:2: Gateway=: there is no Subnet=`},
		{"x.network\n[Network]\nDriver=macvlan", `:2: Driver=: "macvlan": networks are bridges`},
		{"x.network\n[Network]\nIPAMDriver=dhcp", `:2: IPAMDriver=: "dhcp": addresses are given out by the machine`},
		{"x.volume\n[Volume]\nDriver=image", `:2: Driver=: "image": expected local`},
		{"x.image\n[Image]\nImage=docker-archive:/x.tar", `:2: Image=: "docker-archive:/x.tar": expected the name of an image in a registry`},
		{"x.container\n[Container]\nImage=a\nHealthInterval=disable", `:3: HealthInterval=: "disable": a check that nobody makes`},
		{"x.pod\n[Pod]\nNetwork=host", `:2: Network=: "host": a pod has a network namespace of its own`},
		{"x.volume\n[Volume]\nType=ext4", `:2: Type=: without Device=`},
		{"x.image\n[Image]\nCreds=a:b", `:2: Creds=: is not carried out: a password has no place in a unit`},
		{"x.kube\n[Kube]\nYaml=a", `x.kube: is not carried out: Kubernetes YAML is not read`},
		{"x.build\n[Build]\nFile=a", `x.build: is not carried out: images are not built`},
		{"x.container\n[Container]\nImage=a\nServiceName=a/b", `x.container: makes no unit: "a/b.service" is no name of one`},
		{"x.container\n[Container]\nImage=a\nServiceName=good", `x.container: makes the unit good.service, which /etc/containers/systemd/good.container makes already`},
		{"sshd.container\n[Container]\nImage=a", `sshd.container: makes no unit: sshd.service is the system's own`},
	} {
		units := declare(t, good, tc.file)
		if g := units["good.service"]; len(g.Problems) > 0 || !strings.Contains(g.Text, "ExecStart=/usr/bin/containerctl declared ") {
			t.Errorf("%q: the other unit is harmed: %v", tc.file, g.Problems)
		}
		var bad Unit
		for name, u := range units {
			if name != "good.service" {
				bad = u
			}
		}
		var all []string
		for _, p := range bad.Problems {
			all = append(all, p.Error())
		}
		if len(all) == 0 || !strings.Contains(strings.Join(all, "\n"), tc.want) {
			t.Errorf("%q: got %q, want %q", tc.file, all, tc.want)
		}
		if bad.Name != "" && !strings.Contains(bad.Text, "\nExecStart="+Generator+" --fail /etc/containers/systemd/") || strings.Contains(bad.Text, "containerctl") {
			t.Errorf("%q: the unit does not fail:\n%s", tc.file, bad.Text)
		}
	}
}

// A drop-in's assignments come after the file's, and an empty one empties a list.
func TestMerge(t *testing.T) {
	f := Parse("/x/web.container", []byte("[Container]\nImage=a\nDNS=1.1.1.1\nDNS=2.2.2.2\n"))
	f.Merge(Parse("/x/web.container.d/10.conf", []byte("[Container]\nDNS=\nDNS=3.3.3.3\nImage=b\nUlimt=x\n")))
	u := Convert([]*File{f}, Host{})[0]
	if len(u.Problems) != 1 || u.Problems[0].Error() != `/x/web.container.d/10.conf:5: unknown key "Ulimt" in [Container]: did you mean Ulimit=?` {
		t.Errorf("got %v", u.Problems)
	}
	f = Parse("/x/web.container", []byte("[Container]\nImage=a\nDNS=1.1.1.1\nDNS=2.2.2.2\n"))
	f.Merge(Parse("/x/web.container.d/10.conf", []byte("[Container]\nDNS=\nDNS=3.3.3.3\nImage=b\n")))
	if u := Convert([]*File{f}, Host{})[0]; !strings.Contains(u.Text, " --dns 3.3.3.3 b\n") || strings.Contains(u.Text, "1.1.1.1") {
		t.Errorf("got %v\n%s", u.Problems, u.Text)
	}
}

// A job that has links and addresses of its own gives them back; a service does when its end is noted.
func TestRelease(t *testing.T) {
	for network, want := range map[string]bool{"": true, "Network=x\n": true, "Network=host\n": false, "Network=none\n": false, "Network=container:x\n": false, "Network=ns:/x\n": false, "Pod=p.pod\n": false} {
		text := declare(t, "x.container\n[Container]\nImage=a\n"+network+"[Service]\nType=oneshot\n", "p.pod\n[Pod]\n")["x.service"].Text
		if got := strings.Contains(text, "\nExecStopPost=-/usr/bin/containerctl network release systemd-%N\n"); got != want {
			t.Errorf("%q: got %t, want %t:\n%s", network, got, want, text)
		}
	}
}

func TestDropIns(t *testing.T) {
	for name, want := range map[string]string{
		"web.container":     "web.container.d container.d",
		"a-b-c.container":   "a-b-c.container.d a-b-.container.d a-.container.d container.d",
		"job@x-y.container": "job@x-y.container.d job@.container.d container.d",
		"a-b@.volume":       "a-b@.volume.d a-.volume.d volume.d",
	} {
		if got := strings.Join(DropIns(name), " "); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
}

func TestSplit(t *testing.T) {
	for _, tc := range []struct {
		in   string
		want []string
	}{
		{``, nil}, {`  a  b `, []string{"a", "b"}}, {`"a b"c 'd"e'`, []string{"a bc", `d"e`}}, {`"" ''`, []string{"", ""}},
		{`a\x20b \101 \u00e9 \n`, []string{"a b", "A", "é", "\n"}}, {`\s\\`, []string{` \`}},
	} {
		if got, err := split(tc.in, true); err != nil || !slices.Equal(got, tc.want) {
			t.Errorf("%s: got %q, %v, want %q", tc.in, got, err, tc.want)
		}
	}
	for _, bad := range []string{`"`, `'a`, `\`, `\q`, `\x2`, `\x00`, `\U00110000`, `\777`} {
		if got, err := split(bad, true); err == nil {
			t.Errorf("%s: got %q, want an error", bad, got)
		}
	}
	if got, err := split(`a\.b`, false); err != nil || !slices.Equal(got, []string{`a\.b`}) {
		t.Errorf("without escapes: got %q, %v", got, err)
	}
	for _, w := range []string{"", "a", "a b", `a"b'c\d`, ";", "a\nb\tc\x01\x7f", "%n $A ${B}", "é\u2028\u0085", "\xff\xfe"} {
		if got, err := split(quote(w), true); err != nil || !slices.Equal(got, []string{w}) {
			t.Errorf("quote(%q) = %s: read again as %q, %v", w, quote(w), got, err)
		}
	}
}

// Every key is either carried out or refused with a reason: one that is in the table without code would be silently ignored.
func TestKeys(t *testing.T) {
	for ext, k := range kinds() {
		seen := make(map[string]bool)
		for _, r := range k.rules {
			if seen[r.key] {
				t.Errorf("%s: %s= twice", ext, r.key)
			}
			seen[r.key] = true
			if r.form != own && r.form != ignored && r.flag == "" {
				t.Errorf("%s: %s= without a flag or a reason", ext, r.key)
			}
		}
	}
	if n := len(Keys(".container", false)); n < 60 {
		t.Errorf("%d keys of [Container] are carried out", n)
	}
	values := map[string]string{"Image": "i", "Driver": "bridge", "Secret": "s", "Environment": "A=b", "AddDevice": "/dev/x", "Memory": "1m", "PidsLimit": "3", "Mount": "type=tmpfs,dst=/x",
		"StopTimeout": "3", "ReloadSignal": "HUP", "Pod": "p.pod", "Notify": "yes", "User": "u", "Group": "u", "LogDriver": "none", "Subnet": "10.0.0.0/8", "Device": "/dev/x",
		"Type": "ext4", "Copy": "no", "ExitPolicy": "continue", "StopSignal": "QUIT", "UserNS": "auto", "HealthOnFailure": "kill", "Retry": "3", "Label": "a=b", "AutoUpdate": "registry", "Volume": "/a:/b"}
	without := map[string][]string{ // of no effect by themselves
		".container": {"Image", "StartWithPod", "ReadOnlyTmpfs", "Pod", "Group", "CgroupsMode", "LogOpt", "SecurityLabelDisable", "ExposeHostPort", "ServiceName"},
		".volume":    {"Driver", "Type", "ServiceName"}, ".network": {"Gateway", "IPRange", "IPAMDriver", "ServiceName"}, ".image": {"Image", "RetryDelay", "ServiceName"},
		".pod": {"AddHost", "DNS", "DNSOption", "DNSSearch", "HostName", "ShmSize", "Volume", "StopTimeout", "ServiceName"},
	}
	for ext, skip := range without {
		base := "x" + ext + "\n[" + kinds()[ext].section + "]\n"
		if ext == ".container" || ext == ".image" {
			base += "Image=i\n"
		}
		plain := declare(t, base)["x"+kinds()[ext].suffix+".service"].Text
		for _, key := range Keys(ext, false) {
			if slices.Contains(skip, key) {
				continue
			}
			value := values[key]
			if value == "" {
				value = "yes"
			}
			more := ""
			if key == "Group" {
				more = "User=u\n"
			}
			u := declare(t, base+more+key+"="+value+"\n")["x"+kinds()[ext].suffix+".service"]
			if len(u.Problems) > 0 || u.Text == plain {
				t.Errorf("%s: %s=%s changes nothing: %v", ext, key, value, u.Problems)
			}
		}
	}
}

// systemd itself reads the units and finds nothing to say about them.
func TestVerify(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("SKIPPED, NOT CHECKED by systemd-analyze verify: ", err)
	}
	dir := t.TempDir()
	var paths []string
	for name, u := range declare(t, append(shop, "bad.container\n[Container]\nImagge=x\n")...) {
		text := strings.NewReplacer("/usr/bin/containerctl", "/bin/true", "/usr/bin/oci-runtime", "/bin/true", Generator, "/bin/true").Replace(u.Text)
		name = strings.Replace(name, "@.", "@x.", 1)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, filepath.Join(dir, name))
	}
	out, err := exec.Command(analyze, append([]string{"verify", "--man=no", "--generators=no"}, paths...)...).CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, dir) || strings.Contains(line, ".service") {
			t.Error(strings.TrimSpace(line))
		}
	}
	if err != nil && !t.Failed() {
		t.Logf("%v: %s", err, out)
	}
}

// podman's own generator makes units of the same names with the same order, links and flags.
func TestPodman(t *testing.T) {
	judges := testenv.Judges(t)
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED, NOT CHECKED by podman's quadlet: needs root")
	}
	dir, out := t.TempDir(), t.TempDir()
	var list []*File
	for _, f := range shop {
		name, text, _ := strings.Cut(f, "\n")
		text = strings.NewReplacer("Memory=512m\n", "", "ReloadSignal=HUP\n", "", "Retry=3\nRetryDelay=5s\n", "", "NetworkDeleteOnStop=yes\n", "", "HostName=shop\n", "", "=db.container", "=db.service", "Volume=./share:/share\n", "", "/srv/a b", "/srv/ab").Replace(text) // of later podmans
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		list = append(list, Parse(filepath.Join(dir, name), []byte(text)))
	}
	room, err := judges.Enter(tooltree.RoomOptions{Binds: []string{dir, out}})
	if err != nil {
		t.Fatal(err)
	}
	defer room.Close()
	cmd := room.Command(t.Context(), "/usr/libexec/podman/quadlet", out)
	cmd.Env = append(cmd.Env, "QUADLET_UNIT_DIRS="+dir)
	if _, err := room.Output(cmd); err != nil {
		t.Fatal(err)
	}
	for _, u := range Convert(list, Host{}) {
		text, err := os.ReadFile(filepath.Join(out, u.Name))
		if err != nil {
			t.Error(err)
			continue
		}
		theirs, ours := Parse("podman/"+u.Name, text), Parse("ours/"+u.Name, []byte(u.Text))
		for _, key := range []string{"Wants", "Requires", "BindsTo", "Before", "After", "RequiresMountsFor"} {
			if got, want := dependencies(t, ours, key), dependencies(t, theirs, key); !slices.Equal(got, want) {
				t.Errorf("%s: %s=: got %v, podman has %v", u.Name, key, got, want)
			}
		}
		for _, l := range u.Links {
			if got, err := os.Readlink(filepath.Join(out, l.Path)); err != nil || got != l.Target {
				t.Errorf("%s: link %s to %s; podman has %q, %v", u.Name, l.Path, l.Target, got, err)
			}
		}
		if len(u.Links) == 0 {
			continue
		}
		ourArgs, theirArgs := command(t, ours), command(t, theirs)
		for _, f := range []string{"--name", "--env", "--env-file", "--publish", "--network", "--mount", "--user", "--health-cmd", "--stop-timeout", "--secret", "--pull", "--tmpfs", "--cpus"} {
			got, want := valuesOf(ourArgs, f), valuesOf(theirArgs, f)
			if f == "--tmpfs" {
				want = append([]string{"/run", "/var/tmp"}, want...) // podman makes them with --read-only
				if u.Name != "web.service" {
					want = nil
				}
			}
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("%s: %s: got %q, podman has %q", u.Name, f, got, want)
			}
		}
	}
}

func dependencies(t *testing.T, f *File, key string) []string {
	var out []string
	for _, e := range f.entries("Unit") {
		if e.key == key {
			words, err := split(e.value, true)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, words...)
		}
	}
	slices.Sort(out)
	return slices.DeleteFunc(slices.Compact(out), func(w string) bool { return w == "%t/containers" || w == "/var/lib/proa/containers" })
}

func command(t *testing.T, f *File) []string {
	s := settings{entries: f.entries("Service")}
	words, err := split(s.text("ExecStart"), true)
	if err != nil {
		t.Fatal(err)
	}
	return words
}

func valuesOf(args []string, flag string) []string {
	var out []string
	for i, a := range args {
		if v, ok := strings.CutPrefix(a, flag+"="); ok {
			out = append(out, v)
		} else if a == flag && i+1 < len(args) {
			out = append(out, args[i+1])
		}
	}
	return out
}

// Whatever a file says, the unit has the lines that it is meant to have and no other program to start.
func FuzzConvert(f *testing.F) {
	for _, s := range shop {
		name, text, _ := strings.Cut(s, "\n")
		f.Add(name, []byte(text))
	}
	f.Add("x.container", []byte("[Container]\nImage=a\nExec=a\\nExecStart=/bin/evil\nVolume=/a\\\n\\\nb:/c\n[Service]\nA=b\\\\\n"))
	f.Add("a\n[Service].container", []byte("[Container]\nImage=a\n"))
	f.Fuzz(func(t *testing.T, name string, text []byte) {
		if !Known(filepath.Base(name)) {
			return
		}
		file := Parse("/etc/"+filepath.Base(name), text)
		u := Convert([]*File{file}, Host{})[0]
		if u.Name == "" {
			if len(u.Problems) == 0 {
				t.Error("no unit and no problem")
			}
			return
		}
		for _, l := range u.Links {
			if strings.HasPrefix(l.Path, "/") || strings.HasPrefix(filepath.Clean(l.Path)+"/", "../") {
				t.Errorf("link %q", l.Path)
			}
		}
		again := Parse("again", []byte(u.Text))
		for _, p := range again.problems {
			t.Errorf("%v in\n%s", p, u.Text)
		}
		for _, s := range again.sections {
			if s.name != "Unit" && s.name != "Service" && s.name != "Install" {
				t.Errorf("section [%s] in\n%s", s.name, u.Text)
			}
		}
		starts := 0
		for _, e := range again.entries("Service") {
			if e.key == "ExecStart" {
				starts++
				if !strings.HasPrefix(e.value, containerctl+" ") && !strings.HasPrefix(e.value, Generator+" --fail ") {
					t.Errorf("starts %q", e.value)
				}
			}
		}
		if starts == 0 || starts > 2 {
			t.Errorf("%d lines ExecStart= in\n%s", starts, u.Text)
		}
	})
}
