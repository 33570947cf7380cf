package stage

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/proa-os/proa/ignition/config"
)

// systemConfig puts a file into the image's directory of configs.
func systemConfig(t *testing.T, dir, name, text string) {
	t.Helper()
	name = filepath.Join(dir, "usr", name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func file(path, text string) string {
	return `{"ignition":{"version":"3.4.0"},"storage":{"files":[{"path":"` + path + `","contents":{"source":"data:,` + text + `"}}]}}`
}

// The image's base configs lie beneath the machine's; those for its platform over those for all.
func TestBaseConfigs(t *testing.T) {
	m, o, dir := machine(t, file("/etc/c", "machine"))
	systemConfig(t, dir, "base.d/10-a.ign", strings.ReplaceAll(file("/etc/a", "base"), `]}}`, `,{"path":"/etc/b","contents":{"source":"data:,base"}},{"path":"/etc/c","contents":{"source":"data:,base"}}]}}`))
	systemConfig(t, dir, "base.platform.d/qemu/10-b.ign", file("/etc/b", "platform"))
	systemConfig(t, dir, "base.platform.d/aws/10-b.ign", file("/etc/b", "wrong"))
	if err := runStages(t, m, o); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"a": "base", "b": "platform", "c": "machine"} {
		if got, err := os.ReadFile(dir + "/root/etc/" + name); string(got) != want {
			t.Errorf("/etc/%s: got %q, %v, want %s", name, got, err, want)
		}
	}
}

// user.ign of the image wins over the platform, a URL on the kernel command line over both.
func TestWhoseConfig(t *testing.T) {
	m, o, dir := machine(t, file("/etc/a", "platform"))
	systemConfig(t, dir, "user.ign", file("/etc/a", "image"))
	check := func(want string) {
		t.Helper()
		if err := runStages(t, m, o); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(dir + "/root/etc/a"); string(got) != want {
			t.Errorf("got %q, %v, want %s", got, err, want)
		}
	}
	check("image")
	if err := os.RemoveAll(dir + "/root/etc/a"); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir + "/root/var"); err != nil {
		t.Fatal(err)
	}
	m.CommandLine += " ignition.config.url=data:;base64,eyJpZ25pdGlvbiI6eyJ2ZXJzaW9uIjoiMy40LjAifSwic3RvcmFnZSI6eyJmaWxlcyI6W3sicGF0aCI6Ii9ldGMvYSIsImNvbnRlbnRzIjp7InNvdXJjZSI6ImRhdGE6LGxpbmUifX1dfX0="
	check("line")
}

// The URL on the kernel command line needs the network, and its server may come up later than the machine.
func TestConfigURL(t *testing.T) {
	tries := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if tries++; tries == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		io.WriteString(w, file("/etc/a", "served"))
	}))
	defer server.Close()
	m, o, dir := machine(t, "")
	m.CommandLine = "quiet ignition.platform.id=metal ignition.config.url=" + server.URL + "/c.ign\n"
	o.Stage = "fetch-offline"
	if err := Run(t.Context(), m, o); err != nil || tries > 0 {
		t.Fatalf("offline: got %v after %d requests", err, tries)
	}
	if _, err := os.Stat(o.NeedNet); err != nil {
		t.Errorf("flag file: %v", err)
	}
	o.Stage = "fetch,files"
	if err := Run(t.Context(), m, o); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(dir + "/root/etc/a"); string(got) != "served" || tries != 2 {
		t.Errorf("got %q, %v after %d requests", got, err, tries)
	}
}

// A server of the first config that is not there is on the screen as any other: who should have answered, and what came instead.
func TestNoFirstConfig(t *testing.T) {
	closed := httptest.NewServer(nil)
	closed.Close()
	address := strings.TrimPrefix(closed.URL, "http://")
	for line, host := range map[string]string{
		"ignition.platform.id=metal ignition.config.url=" + closed.URL + "/c.ign": address,
		"ignition.platform.id=digitalocean":                                       "169.254.169.254",
	} {
		m, o, _ := machine(t, "")
		m.CommandLine, m.Total, o.Stage = line, time.Second, "fetch"
		m.Route = func(string) string { return address }
		if err := Run(t.Context(), m, o); err == nil {
			t.Fatal("want an error")
		}
		screen, err := os.ReadFile(o.Failure)
		for _, want := range []string{": no answer\n", "expected:  an answer from " + host + "\n", "found:     dial tcp", "connection refused\n", "next step: check the address, the server and the network\n"} {
			if err != nil || !strings.Contains(string(screen), want) {
				t.Errorf("%s: want %q on the screen: %v\n%s", line, want, err, screen)
			}
		}
	}
}

// What a platform knows lies beneath the config: keys are added, a hostname of the config wins.
func TestMetadata(t *testing.T) {
	known, err := config.Metadata("metadata of platform x", operator, "meta1", []string{"ssh-ed25519 AAAA a"})
	if err != nil {
		t.Fatal(err)
	}
	load := func(text string) *config.Merged {
		t.Helper()
		m, err := config.Load(t.Context(), "c.ign", []byte(text), nil)
		if err != nil {
			t.Fatal(err)
		}
		m, err = config.Beneath(known, m)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	m := load(`{"ignition":{"version":"3.4.0"},"passwd":{"users":[{"name":"core","sshAuthorizedKeys":["ssh-rsa BBBB b","ssh-ed25519 AAAA a"]}]}}`)
	if keys := m.Config.Passwd.Users[0].SSHAuthorizedKeys; len(m.Config.Passwd.Users) != 1 || len(keys) != 2 {
		t.Errorf("got %v", m.Config.Passwd.Users)
	}
	if f := m.Config.Storage.Files[0]; f.Path != "/etc/hostname" || *f.Contents.Source != "data:,meta1" {
		t.Errorf("got %+v", f)
	}
	if got := m.Place("storage.files[0].path").String(); got != "metadata of platform x: storage.files[0].path" {
		t.Errorf("place: got %s", got)
	}
	m = load(file("/etc/hostname", "own"))
	if f := m.Config.Storage.Files; len(f) != 1 || *f[0].Contents.Source != "data:,own" {
		t.Errorf("got %+v", f)
	}
}

// A platform that cannot be asked is on the screen with what to do.
func TestPlatformFailure(t *testing.T) {
	m, o, dir := machine(t, "")
	if err := os.RemoveAll(dir + "/sys/firmware"); err != nil {
		t.Fatal(err)
	}
	if err := runStages(t, m, o); err == nil {
		t.Fatal("want an error")
	}
	b, err := os.ReadFile(o.Failure)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"config:    platform qemu\n", "is this machine QEMU?", "next step: check the platform's user data"} {
		if !strings.Contains(string(b), want) {
			t.Errorf("want %q in\n%s", want, b)
		}
	}
}
