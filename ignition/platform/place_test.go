package platform

import (
	"compress/gzip"
	"context"
	"encoding/binary"
	"encoding/xml"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	gotoken "go/token"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/proa-os/proa/ignition/platform/platformtest"
	"github.com/proa-os/proa/ignition/source"
	"github.com/proa-os/proa/internal/firstboot"
)

func lookup(t *testing.T, id string) Platform {
	t.Helper()
	p, err := Lookup(id)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// attach puts a disk into a machine: an entry of /sys/class/block with attributes, and a file in /dev.
func attach(t *testing.T, m *Machine, name string, content []byte, attributes map[string]string) {
	t.Helper()
	dir := "class/block/" + name
	if err := m.Sys.MkdirAll(dir+"/device", 0o755); err != nil {
		t.Fatal(err)
	}
	for file, text := range attributes {
		if err := m.Sys.WriteFile(dir+"/"+file, []byte(text+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Dev.WriteFile(name, content, 0o644); err != nil {
		t.Fatal(err)
	}
}

// disc is one of package medium's, which genisoimage has made; its label is overwritten.
func disc(t *testing.T, name, label string) []byte {
	t.Helper()
	f, err := os.Open("../medium/testdata/" + name + ".iso.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	copy(b[32768+40:], fmt.Sprintf("%-32s", label))
	return b
}

// The platforms that bring their config on a drive; the drive is there only after its driver was loaded.
func TestDrives(t *testing.T) {
	const nova, vendor = `{"ignition":{"version":"3.4.0"}}`, `{"ignition":{"version":"3.5.0"}}`
	tests := []struct {
		id, disc, label, config, hostname string
		keys                              []string
	}{
		{"openstack", "joliet", "CONFIG-2", nova, "web1.example", []string{"ssh-ed25519 AAAA a"}},
		{"brightbox", "joliet", "config-2", nova, "web1.example", []string{"ssh-ed25519 AAAA a"}},
		{"nutanix", "joliet", "config-2", nova, "web1.example", []string{"ssh-ed25519 AAAA a"}},
		{"powervs", "joliet", "config-2", nova, "web1.example", []string{"ssh-ed25519 AAAA a"}},
		{"kubevirt", "joliet", "config-2", nova, "web1.example", []string{"ssh-ed25519 AAAA a"}},
		{"kubevirt", "kubevirt", "cidata", ign, "kv1", []string{"ssh-ed25519 AAAA a"}},
		{"proxmoxve", "joliet", "cidata", vendor, "pve1", []string{"ssh-ed25519 BBBB b"}},
	}
	for _, tt := range tests {
		t.Run(tt.id+" "+tt.label, func(t *testing.T) {
			m := newMachine(t, t.TempDir(), "")
			attach(t, m, "vda", make([]byte, 1<<20), map[string]string{"size": "2048"})
			loads := 0
			m.Load = func(_ context.Context, names ...string) error {
				if loads++; !slices.Contains(names, "sr_mod") || !slices.Contains(names, "pci:v00001AF4d00001001") {
					t.Errorf("loaded %v", names)
				}
				attach(t, m, "sr0", disc(t, tt.disc, tt.label), map[string]string{"size": "768", "device/type": "5"})
				return nil
			}
			if err := errors.Join(m.Sys.MkdirAll("devices/pci0/0000:00:04.0", 0o755), m.Sys.WriteFile("devices/pci0/0000:00:04.0/modalias", []byte("pci:v00001AF4d00001001\n"), 0o644)); err != nil {
				t.Fatal(err)
			}
			a, err := lookup(t, tt.id).Read(t.Context(), m, true)
			if err != nil || string(a.Config) != tt.config || a.Hostname != tt.hostname || !slices.Equal(a.Keys, tt.keys) || loads != 1 {
				t.Errorf("got %+v, %v after %d loads", a, err, loads)
			}
			if !strings.Contains(a.Name, " on the drive labelled c") {
				t.Errorf("name: got %s", a.Name)
			}
		})
	}
}

// Azure takes custom data from a CD-ROM drive with ovf-env.xml, and from no other disk.
func TestAzureCustomData(t *testing.T) {
	m := newMachine(t, t.TempDir(), "")
	m.Total = 2 * time.Second
	raw := disc(t, "azure", "x")
	attach(t, m, "sda", raw, map[string]string{"device/type": "0", "size": "2048"})
	p := lookup(t, "azurestack")
	if _, err := p.Read(t.Context(), m, true); err == nil || err.Error() != "find a CD-ROM drive with /ovf-env.xml: gave up after 2s" {
		t.Errorf("a data disk: got %v", err)
	}
	attach(t, m, "sr0", raw, map[string]string{"device/type": "5"})
	if a, err := p.Read(t.Context(), m, true); err != nil || string(a.Config) != ign {
		t.Errorf("got %+v, %v", a, err)
	}
	// On Azure itself the metadata service is asked first; it has no user data here.
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/metadata/instance/compute/name") {
			fmt.Fprint(w, "web1")
		}
	}))
	defer server.Close()
	_, address, _ := strings.Cut(server.URL, "://")
	m.Route = func(string) string { return address }
	if a, err := lookup(t, "azure").Read(t.Context(), m, false); err != nil || string(a.Config) != ign || a.Hostname != "web1" {
		t.Errorf("got %+v, %v", a, err)
	}
}

func TestMetal(t *testing.T) {
	p := lookup(t, "metal")
	m := newMachine(t, t.TempDir(), "")
	attach(t, m, "sdb", disc(t, "rock", "IGNITION"), map[string]string{"size": "2048"})
	m.CommandLine = "ignition.config.device=/dev/sdb ignition.config.path=/vendor-data"
	if a, err := p.Read(t.Context(), m, true); err != nil || string(a.Config) != `{"ignition":{"version":"3.5.0"}}` || a.Name != "vendor-data on the /dev/sdb" {
		t.Errorf("got %+v, %v", a, err)
	}
	m.CommandLine = "ignition.config.device=/dev/sdb ignition.config.path=/none"
	if _, err := p.Read(t.Context(), m, true); err == nil || err.Error() != "find /none on /dev/sdb: no such file; correct ignition.config.path=" {
		t.Errorf("got %v", err)
	}
	m.CommandLine = ""
	attach(t, m, "sdb", disc(t, "azure", "x"), map[string]string{"size": "2048"}) // its label is IGNITION, and it holds config.ign
	if a, err := p.Read(t.Context(), m, true); err != nil || string(a.Config) != ign || a.Name != "config.ign on the drive labelled ignition" {
		t.Errorf("got %+v, %v", a, err)
	}
}

// appear gives the machine a device that wants a driver.
func appear(t *testing.T, m *Machine, name, modalias string) {
	t.Helper()
	if err := errors.Join(m.Sys.MkdirAll("devices/"+name, 0o755), m.Sys.WriteFile("devices/"+name+"/modalias", []byte(modalias+"\n"), 0o644)); err != nil {
		t.Error(err)
	}
}

// A stick shows itself after the drivers of what was there before were loaded, and its disk after its own: nothing else loads that one.
func TestLateStick(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t, t.TempDir(), "")
		m.Total = 0
		raw := disc(t, "azure", "IGNITION")
		appear(t, m, "pci0/usb1", "pci:v00001033d00000194")
		var loaded []string
		m.Load = func(_ context.Context, names ...string) error {
			loaded = append(loaded, names...)
			switch {
			case slices.Contains(names, "pci:v00001033d00000194"):
				time.AfterFunc(stickWait-1100*time.Millisecond, func() { appear(t, m, "pci0/usb1/1-1", "usb:v0781p5581ic08isc06ip50in00") })
			case slices.Contains(names, "usb:v0781p5581ic08isc06ip50in00"):
				time.AfterFunc(stickWait-1100*time.Millisecond, func() { attach(t, m, "sdb", raw, map[string]string{"size": "2048"}) })
			}
			return nil
		}
		a, err := lookup(t, "metal").Read(t.Context(), m, true)
		if err != nil || string(a.Config) != ign {
			t.Errorf("got %+v, %v", a, err)
		}
		if want := []string{"pci:v00001033d00000194", "sd_mod", "sr_mod", "usb:v0781p5581ic08isc06ip50in00"}; !slices.Equal(loaded, want) {
			t.Errorf("loaded %q, want %q", loaded, want)
		}
	})
}

// How long a machine without a drive waits for one, with all items of the platform together: on metal for each device that appears anew, up to
// a bound; elsewhere once.
func TestWaitForDrive(t *testing.T) {
	for _, tt := range []struct {
		id   string
		busy bool // devices never stop appearing
		want time.Duration
	}{
		{"metal", false, stickWait},
		{"metal", true, stickLongest},
		{"proxmoxve", false, 30 * time.Second},
		{"proxmoxve", true, 30 * time.Second},
		{"ibmcloud", true, 30 * time.Second},
	} {
		t.Run(fmt.Sprint(tt.id, tt.busy), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMachine(t, t.TempDir(), "")
				m.Total = 0
				devices := 0
				m.Load = func(context.Context, ...string) error {
					if tt.busy {
						devices++
						name := fmt.Sprint("usb", devices)
						time.AfterFunc(2900*time.Millisecond, func() { appear(t, m, name, "usb:"+name) })
					}
					return nil
				}
				start := time.Now()
				a, err := lookup(t, tt.id).Read(t.Context(), m, true)
				if err != nil || a.Config != nil || time.Since(start) != tt.want {
					t.Errorf("got %+v, %v after %s, want %s", a, err, time.Since(start), tt.want)
				}
			})
		})
	}
}

func TestCloudStackDrive(t *testing.T) {
	m := newMachine(t, t.TempDir(), "")
	attach(t, m, "sr0", disc(t, "cloudstack", "config-2"), map[string]string{"size": "2048"})
	a, err := lookup(t, "cloudstack").Read(t.Context(), m, true)
	if err != nil || string(a.Config) != ign || a.Hostname != "cs1" || !slices.Equal(a.Keys, []string{"ssh-rsa CCCC c"}) {
		t.Errorf("got %+v, %v", a, err)
	}
}

// IBM Cloud has ssh keys in its vendor data: of the parts of that message, those that are cloud-config, at their top. Its drive may come late.
func TestIBMCloud(t *testing.T) {
	t.Parallel()
	m := newMachine(t, t.TempDir(), "")
	keys := []string{"ssh-ed25519 AAAA a@example.com", "ssh-rsa BBBB b"}
	late := time.AfterFunc(100*time.Millisecond, func() {
		attach(t, m, "vdb", disc(t, "ibmcloud", "cidata"), map[string]string{"size": "2048"})
	})
	defer late.Stop()
	a, err := lookup(t, "ibmcloud").Read(t.Context(), m, true)
	if err != nil || string(a.Config) != ign || a.Hostname != "ibm1" || !slices.Equal(a.Keys, keys) || len(a.Warnings) > 0 {
		t.Errorf("got %+v, %v", a, err)
	}
	attach(t, m, "vdb", disc(t, "cloudstack", "cidata"), map[string]string{"size": "2048"}) // has no vendor data
	if a, err := lookup(t, "ibmcloud").Read(t.Context(), m, true); err != nil || len(a.Keys) > 0 || len(a.Warnings) > 0 {
		t.Errorf("no vendor data: got %+v, %v", a, err)
	}
}

func TestCloudConfigs(t *testing.T) {
	const head, part = "Content-Type: multipart/mixed; boundary=\"b\"\n\n", "--b\nContent-Type: text/cloud-config; charset=utf-8\n"
	wrong := "expected a MIME message of several parts, found something else"
	for _, tt := range []struct{ name, text, want, err string }{
		{"two parts", head + part + "\nk:\n- 'a\n  b'\n" + part + "\nk: [\n" + "--b--\n", "a b|[", ""},
		{"CR LF", strings.ReplaceAll(head+part+"\nk: a\n--b--\n", "\n", "\r\n"), "a", ""},
		{"base64", head + part + "Content-Transfer-Encoding: base64\n\n" + b64("k: a\n") + "\n--b--\n", "a", ""},
		{"no base64", head + part + "Content-Transfer-Encoding: base64\n\nk: a\n--b--\n", "", "expected base64, found something else"},
		{"no parts", head + "--b--\n", "", ""},
		{"cut off", head + part + "\nk: a", "", wrong},
		{"plain", "#cloud-config\nk: a\n", "", wrong},
		{"one part", "Content-Type: text/cloud-config\n\nk: a\n", "", wrong},
		{"empty", "", "", wrong},
	} {
		got, err := cloudConfigs(yamlValue("k"))(nil, []byte(tt.text))
		if strings.Join(got, "|") != tt.want || (err == nil) != (tt.err == "") || err != nil && err.Error() != tt.err {
			t.Errorf("%s: got %q, %v", tt.name, got, err)
		}
	}
}

// A drive that may be missing means no config after its time.
func TestNoDrive(t *testing.T) {
	m := newMachine(t, t.TempDir(), "")
	d := drive{labels: []string{"cidata"}, wait: 10 * time.Millisecond}
	p := Platform{ID: "test", origins: []origin{{at: d, config: []string{"/user-data"}}}}
	if a, err := p.Read(t.Context(), m, true); err != nil || a.Config != nil {
		t.Errorf("got %+v, %v", a, err)
	}
}

// A config drive without user data does not hide what the metadata service has, nor the other way round.
func TestRace(t *testing.T) {
	m, _ := serve(t, &cloud{host: "169.254.169.254", answers: map[string]answer{"GET /openstack/latest/user_data": {body: ign}}})
	attach(t, m, "sr0", disc(t, "cloudstack", "config-2"), map[string]string{"size": "2048"})
	p := lookup(t, "openstack")
	if _, err := p.Read(t.Context(), m, true); !errors.Is(err, source.ErrNeedNetwork) {
		t.Errorf("offline: got %v", err)
	}
	if a, err := p.Read(t.Context(), m, false); err != nil || string(a.Config) != ign {
		t.Errorf("got %+v, %v", a, err)
	}
	// A config that a service refuses to hand over is not one that there is none of.
	m, _ = serve(t, &cloud{host: "169.254.169.254", answers: map[string]answer{"GET /openstack/latest/user_data": {status: 403}}})
	attach(t, m, "sr0", disc(t, "cloudstack", "config-2"), map[string]string{"size": "2048"})
	if a, err := p.Read(t.Context(), m, false); err == nil || !strings.Contains(err.Error(), "403 Forbidden") {
		t.Errorf("refused: got %+v, %v", a, err)
	}
}

func TestQEMU(t *testing.T) {
	m := newMachine(t, t.TempDir(), "")
	p := lookup(t, "qemu")
	var loaded []string
	m.Load = func(_ context.Context, names ...string) error {
		loaded = append(loaded, names...)
		return nil
	}
	if _, err := p.Read(t.Context(), m, true); err == nil || !strings.Contains(err.Error(), "is this machine QEMU?") {
		t.Errorf("no device: got %v", err)
	}
	m.Load = func(context.Context, ...string) error {
		return m.Sys.MkdirAll("firmware/qemu_fw_cfg/by_name/opt", 0o755)
	}
	if a, err := p.Read(t.Context(), m, true); err != nil || a.Config != nil {
		t.Errorf("no config: got %+v, %v", a, err)
	}
	// As the kernel lays it out: by_name holds links into by_key.
	for _, err := range []error{
		m.Sys.MkdirAll("firmware/qemu_fw_cfg/by_name/opt/com.coreos", 0o755),
		m.Sys.MkdirAll("firmware/qemu_fw_cfg/by_key/32", 0o755),
		m.Sys.Symlink("../../../by_key/32", "firmware/qemu_fw_cfg/by_name/opt/com.coreos/config"),
		m.Sys.WriteFile("firmware/qemu_fw_cfg/by_key/32/raw", []byte("{}"), 0o400),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	a, err := p.Read(t.Context(), m, true)
	if err != nil || a.Name != "fw_cfg opt/com.coreos/config" || string(a.Config) != "{}" || strings.Join(loaded, " ") != "qemu_fw_cfg" {
		t.Errorf("got %+v, %v; loaded %v", a, err, loaded)
	}
}

func TestFile(t *testing.T) {
	m := newMachine(t, t.TempDir(), "")
	name := filepath.Join(t.TempDir(), "c.ign")
	m.Getenv = func(key string) string { return map[string]string{"IGNITION_CONFIG_FILE": name}[key] }
	p := lookup(t, "file")
	if _, err := p.Read(t.Context(), m, true); err == nil || !strings.HasSuffix(err.Error(), "; set IGNITION_CONFIG_FILE") {
		t.Errorf("missing: got %v", err)
	}
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	z := gzip.NewWriter(f)
	_, werr := z.Write([]byte(ign))
	if err := errors.Join(werr, z.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
	if a, err := p.Read(t.Context(), m, true); err != nil || a.Name != name || string(a.Config) != ign {
		t.Errorf("got %+v, %v", a, err)
	}
}

func TestBlueField(t *testing.T) {
	m := newMachine(t, t.TempDir(), "")
	const dir = "bus/platform/devices/MLNXBF04:00"
	if err := errors.Join(m.Sys.MkdirAll(dir, 0o755), m.Sys.WriteFile(dir+"/bootfifo", []byte(ign+"\x00\x00"), 0o644)); err != nil {
		t.Fatal(err)
	}
	if a, err := lookup(t, "nvidiabluefield").Read(t.Context(), m, true); err != nil || string(a.Config) != ign {
		t.Errorf("got %+v, %v", a, err)
	}
}

func TestAppleHV(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept") == "application/json" {
			fmt.Fprint(w, ign)
		}
	}))
	defer server.Close()
	m := newMachine(t, t.TempDir(), "")
	m.Guest.VSock = func(_ context.Context, cid, port uint32) (net.Conn, error) {
		if cid != 2 || port != 1024 {
			t.Errorf("got %d:%d", cid, port)
		}
		return net.Dial("tcp", server.Listener.Addr().String())
	}
	if a, err := lookup(t, "applehv").Read(t.Context(), m, true); err != nil || string(a.Config) != ign {
		t.Errorf("got %+v, %v", a, err)
	}
}

// kvpHost is the kernel's side of Hyper-V's key-value pairs: it wants to be registered with, and an answer to each message.
func kvpHost(t *testing.T, pairs [][2]string) KVPChannel {
	ours, theirs := net.Pipe()
	go func() {
		defer theirs.Close()
		message := make([]byte, 7432)
		if _, err := io.ReadFull(theirs, message); err != nil || message[0] != 100 {
			t.Errorf("registration: got operation %d, %v", message[0], err)
			return
		}
		if _, err := theirs.Write(message); err != nil {
			return
		}
		for _, p := range pairs {
			message = make([]byte, 7432)
			message[0] = 1
			binary.LittleEndian.PutUint32(message[4:], 1)
			binary.LittleEndian.PutUint32(message[8:], uint32(len(p[0])+1))
			binary.LittleEndian.PutUint32(message[12:], uint32(len(p[1])+1))
			copy(message[16:], p[0])
			copy(message[528:], p[1])
			if _, err := theirs.Write(message); err != nil {
				return
			}
			if _, err := io.ReadFull(theirs, message); err != nil || binary.LittleEndian.Uint32(message) != 0 {
				t.Errorf("answer: got %#x, %v", message[:4], err)
				return
			}
		}
		_, _ = theirs.Read(message) // until the other side closes
	}()
	return ours
}

func TestHyperV(t *testing.T) {
	tests := []struct {
		name  string
		pairs [][2]string
		want  string
	}{
		{"split", [][2]string{{"ignition.config.1", ign[10:]}, {"other", "x"}, {"ignition.config.0", ign[:10]}, {"ignition.config.3", "not this"}}, ign},
		{"single", [][2]string{{"ignition.config", ign}}, ign},
		{"none", nil, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t, t.TempDir(), "")
			m.Guest.KVP = func() (KVPChannel, error) { return kvpHost(t, tt.pairs), nil }
			if a, err := lookup(t, "hyperv").Read(t.Context(), m, true); err != nil || string(a.Config) != tt.want {
				t.Errorf("got %+v, %v", a, err)
			}
		})
	}
}

// ovfProperties reads what an XML decoder reads.
func TestOVFProperties(t *testing.T) {
	const head = `<?xml version="1.0" encoding="UTF-8"?><Environment xmlns="http://schemas.dmtf.org/ovf/environment/1" xmlns:oe="http://schemas.dmtf.org/ovf/environment/1">`
	for _, properties := range []string{
		`<Property oe:key="a" oe:value="1"/><Property oe:value='2"' oe:key='b'></Property>`,
		"<Property\n\toe:key = \"a\"\n oe:value=\"x>y &lt;&gt;&amp;&quot;&apos;&#65;&#x1F600;\"\n/>",
		`<!-- <Property oe:key="a" oe:value="1"/> --><oe:Property key="b" value=""/><Propertyless key="c" value="3"/>`,
		`<Property oe:key="a" oe:keyword="no" oe:value="1"/><Property oe:value="no key"/>`, ``,
	} {
		text := head + "<PlatformSection><Kind>VMware ESXi</Kind></PlatformSection><PropertySection>" + properties + "</PropertySection></Environment>"
		var e struct {
			Properties []struct {
				Key   string `xml:"key,attr"`
				Value string `xml:"value,attr"`
			} `xml:"PropertySection>Property"`
		}
		if err := xml.Unmarshal([]byte(text), &e); err != nil {
			t.Fatal(err)
		}
		want := map[string]string{}
		for _, p := range e.Properties {
			want[p.Key] = p.Value
		}
		if got := ovfProperties(text); !maps.Equal(got, want) {
			t.Errorf("%s\ngot  %q\nwant %q", properties, got, want)
		}
	}
	for _, broken := range []string{"", "no XML", `<Property oe:key="a`, "<Property", `<Property x=&#99999999999;>`} {
		if got := ovfProperties(broken); len(got) > 1 {
			t.Errorf("%q: got %q", broken, got)
		}
	}
}

func TestVMware(t *testing.T) {
	const ovf = `<?xml version="1.0"?><Environment xmlns="http://schemas.dmtf.org/ovf/environment/1" xmlns:oe="http://schemas.dmtf.org/ovf/environment/1">
<PropertySection><Property oe:key="guestinfo.ignition.config.data" oe:value="%s"/><Property oe:key="guestinfo.ignition.config.data.encoding" oe:value="base64"/></PropertySection></Environment>`
	tests := []struct {
		name, want, err string
		info            map[string]string
	}{
		{"plain", ign, "", map[string]string{guestConfig: ign}},
		{"base64", ign, "", map[string]string{guestConfig: b64(ign), guestEncoding: "b64"}},
		{"gzip", ign, "", map[string]string{guestConfig: b64(zipped(t, ign)), guestEncoding: "gzip+base64"}},
		{"OVF", ign, "", map[string]string{guestOVF: fmt.Sprintf(ovf, b64(ign))}},
		{"none", "", "", map[string]string{guestOVF: "no XML"}},
		{"unknown encoding", "", `read guestinfo.ignition.config.data.encoding: expected base64, gzip+base64 or nothing, found "zstd"`, map[string]string{guestConfig: ign, guestEncoding: "zstd"}},
		{"secret", "", "expected base64, found something else", map[string]string{guestConfig: "hunter2!", guestEncoding: "base64"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := &platformtest.Hypervisor{T: t, Info: tt.info}
			m := newMachine(t, t.TempDir(), "")
			m.Guest.Backdoor = backdoorOf(h)
			a, err := lookup(t, "vmware").Read(t.Context(), m, true)
			if tt.err != "" && (err == nil || err.Error() != tt.err) || tt.err == "" && (err != nil || string(a.Config) != tt.want) {
				t.Errorf("got %+v, %v", a, err)
			}
			if h.Open() {
				t.Error("the channel is still open")
			}
		})
	}
	h := &platformtest.Hypervisor{T: t, Info: map[string]string{guestConfig: ign}}
	m := newMachine(t, t.TempDir(), "")
	m.Guest.Backdoor = backdoorOf(h)
	if ok, err := lookup(t, "vmware").Delete(t.Context(), m); !ok || err != nil || h.Info[guestConfig] != "e30K" || h.Info[guestEncoding] != "base64" {
		t.Errorf("delete: got %v, %v, %v", ok, err, h.Info)
	}
	m.Guest.Backdoor = nil
	if _, err := lookup(t, "vmware").Read(t.Context(), m, true); err == nil || !strings.Contains(err.Error(), "find the hypervisor: expected VMware") {
		t.Errorf("elsewhere: got %v", err)
	}
}

func backdoorOf(h *platformtest.Hypervisor) func(*Registers) error {
	return func(r *Registers) error { return h.Call(&r.AX, &r.BX, &r.CX, &r.DX, &r.SI, &r.DI) }
}

// vboxHost is the kernel's side of /dev/vboxguest with VirtualBox's service of guest properties behind it.
type vboxHost struct {
	t         *testing.T
	values    map[string]string
	connected bool
}

func (h *vboxHost) do(request uintptr, m []byte) error {
	u32 := func(at int) uint32 { return binary.NativeEndian.Uint32(m[at:]) }
	fail := func(rc int32) error {
		binary.NativeEndian.PutUint32(m[12:], uint32(rc))
		return nil
	}
	if u32(4) != 0x10001 || int(u32(0)) > len(m) || int(u32(16)) > len(m) || int(request>>16&0x3fff) != len(m) && request != vboxConnect {
		h.t.Errorf("request %#x: got header % x", request, m[:24])
	}
	switch request {
	case 0xc02c5600:
		return nil
	case 0xc09c5604:
		if u32(24) != 2 || !strings.HasPrefix(string(m[28:]), "VBoxGuestPropSvc\x00") {
			return fail(-78)
		}
		h.connected = true
		binary.NativeEndian.PutUint32(m[24:], 5)
		return nil
	case 0xc01c5605:
		h.connected = u32(24) != 5
		return nil
	}
	if !h.connected || u32(24) != 5 || m[36] != 1 {
		return fail(-1)
	}
	memory := func(n int) []byte { // what parameter n points to, in this process
		at := vboxNumber + 16*n
		address := *(*unsafe.Pointer)(unsafe.Pointer(&m[at+8]))
		return unsafe.Slice((*byte)(address), u32(at+4))
	}
	name := strings.TrimSuffix(string(memory(0)), "\x00")
	value, ok := h.values[name]
	if u32(28) == 4 {
		delete(h.values, name)
		return nil
	}
	if !ok {
		return fail(-78)
	}
	data := value + "\x00READONLY\x00"
	binary.NativeEndian.PutUint32(m[vboxNumber+52:], uint32(len(data)))
	if len(memory(1)) < len(data) {
		return fail(-41)
	}
	copy(memory(1), data)
	return nil
}

func TestVirtualBox(t *testing.T) {
	h := &vboxHost{t: t, values: map[string]string{"/Ignition/Config": ign}}
	m := newMachine(t, t.TempDir(), "")
	m.Guest.VBox = h.do
	p := lookup(t, "virtualbox")
	if a, err := p.Read(t.Context(), m, true); err != nil || string(a.Config) != ign || h.connected {
		t.Errorf("got %+v, %v", a, err)
	}
	if ok, err := p.Delete(t.Context(), m); !ok || err != nil || len(h.values) > 0 {
		t.Errorf("delete: got %v, %v, %v", ok, err, h.values)
	}
	if a, err := p.Read(t.Context(), m, true); err != nil || a.Config != nil {
		t.Errorf("none: got %+v, %v", a, err)
	}
	h.values["/Ignition/Config/Encoding"] = "zstd"
	if _, err := p.Read(t.Context(), m, true); err == nil || err.Error() != `read guest property /Ignition/Config/Encoding: expected none, found "zstd"` {
		t.Errorf("encoding: got %v", err)
	}
}

// Every platform of the table is read by a test: by its name there, in a row of the test's table, or in clouds, which TestClouds reads.
func TestEveryPlatformIsTested(t *testing.T) {
	names, err := filepath.Glob("*_test.go")
	if err != nil || len(names) == 0 {
		t.Fatal("no tests", err)
	}
	tested := map[string]bool{}
	for _, name := range names {
		f, err := parser.ParseFile(gotoken.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && (f.Name.Name == "clouds" || strings.HasPrefix(f.Name.Name, "Test") && reads(f)) {
				ast.Inspect(f, func(n ast.Node) bool {
					tested[subject(n)] = true
					return true
				})
			}
		}
	}
	for _, id := range IDs() {
		if !tested[strconv.Quote(id)] {
			t.Errorf("platform %s is read by no test", id)
		}
	}
}

// reads reports whether a test asks a platform for its config.
func reads(f *ast.FuncDecl) (does bool) {
	ast.Inspect(f, func(n ast.Node) bool {
		s, ok := n.(*ast.SelectorExpr)
		does = does || ok && s.Sel.Name == "Read"
		return true
	})
	return does
}

// subject is the text by which a piece of a test may name a platform: what it looks up, the key of an entry, the first field of a row.
func subject(n ast.Node) string {
	var x ast.Expr
	switch n := n.(type) {
	case *ast.CallExpr:
		if f, ok := n.Fun.(*ast.Ident); ok && strings.EqualFold(f.Name, "lookup") {
			x = n.Args[len(n.Args)-1]
		}
	case *ast.KeyValueExpr:
		x = n.Key
	case *ast.CompositeLit:
		if n.Type == nil && len(n.Elts) > 0 {
			x = n.Elts[0]
		}
	}
	if text, ok := x.(*ast.BasicLit); ok {
		return text.Value
	}
	return ""
}

func TestArgument(t *testing.T) {
	tests := []struct{ line, want, err string }{
		{"quiet ignition.platform.id=qemu x=y\n", "qemu", ""},
		{"ignition.platform.id=qemu ignition.platform.id=qemu", "qemu", ""},
		{"ignition.platform.id=", "", "read the kernel command line: expected ignition.platform.id=, found none; add it"},
		{"ignition.platform.id=qemu ignition.platform.id=aws", "", `read the kernel command line: expected one ignition.platform.id=, found "qemu" and "aws"; remove one of them`},
	}
	for _, tt := range tests {
		got, err := Argument(tt.line)
		if got != tt.want && tt.err == "" || (err == nil) != (tt.err == "") || err != nil && err.Error() != tt.err {
			t.Errorf("%s: got %q, %v", tt.line, got, err)
		}
	}
	if _, err := ConfigURL("ignition.config.url=http://u:hunter2@h/a ignition.config.url=http://h/b"); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("got %v", err)
	}
	if got, want := IDs(), firstboot.Platforms(); !slices.Equal(got, want) {
		t.Errorf("image-builder knows the platforms %q, this table has %q", want, got)
	}
	if _, err := Lookup("amazon"); err == nil || !strings.HasPrefix(err.Error(), `find platform "amazon": expected one of akamai, aliyun, applehv, aws, `) {
		t.Errorf("got %v", err)
	}
}

// Metadata that is no hostname or key is a warning, and is not used.
func TestBadMetadata(t *testing.T) {
	m, _ := serve(t, &cloud{host: "169.254.169.254", answers: map[string]answer{
		"GET /hetzner/v1/metadata/hostname":    {body: "web_1\nevil"},
		"GET /hetzner/v1/metadata/public-keys": {body: `["ssh-ed25519 AAAA a\u0000b", "x", "ssh-ed25519 AAAA ok", 7]`}}})
	a, err := lookup(t, "hetzner").Read(t.Context(), m, false)
	if err != nil || a.Hostname != "" || !slices.Equal(a.Keys, []string{"ssh-ed25519 AAAA ok"}) || len(a.Warnings) != 3 {
		t.Errorf("got %+v, %v", a, err)
	}
	s := newSession(m, false)
	long := strings.Repeat("a", 30) + "." + strings.Repeat("b", 40)
	o := origin{at: guestPlace{read: func(context.Context, *session) ([]byte, error) { return []byte(long), nil }}, hostname: item{path: "x", as: lines}}
	if name, warnings := s.hostname(t.Context(), o); name != long[:30] || len(warnings) > 0 {
		t.Errorf("long name: got %q, %v", name, warnings)
	}
}
