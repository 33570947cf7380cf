package ctl

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/proa-os/proa/internal/registrytest"
)

// throughProxy is a machine whose registry speaks TLS with an authority that the machine trusts by certs.d. It answers to two names that only
// the proxy can find, of which one wants a password that a credential helper knows, and to 0.0.0.0, which is loopback to the kernel and not
// to net/http: that never asks a proxy for loopback addresses.
func throughProxy(t *testing.T) (m *machine, proxy *registrytest.Proxy, image, digest string) {
	t.Helper()
	m = bareMachine(t)
	m.reg.Close()
	reg, err := registrytest.StartTLS("0.0.0.0:0", []string{"registry.example", "private.example", "0.0.0.0"}, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if user, password, _ := r.BasicAuth(); r.Host == "private.example" && user+":"+password != "ann:secret" {
				w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
				http.Error(w, "{}", http.StatusUnauthorized)
				return
			}
			h.ServeHTTP(w, r)
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(reg.Addr)
	if err != nil {
		t.Fatal(err)
	}
	m.reg, reg.Addr = reg, "0.0.0.0:"+port
	t.Cleanup(func() { reg.Close() })
	proxy = &registrytest.Proxy{User: "bob", Password: "ge:hei m", Routes: map[string]string{"registry.example:443": reg.Addr, "private.example:443": reg.Addr, reg.Addr: reg.Addr}}
	if err := proxy.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { proxy.Close() })
	for _, host := range []string{"registry.example", "private.example", reg.Addr} {
		m.file("certs.d/"+host+"/ca.crt", string(reg.CA), 0o644)
	}
	return m, proxy, "registry.example/team/small:1", m.small("team/small:1")
}

// file writes a file below the machine's directory.
func (m *machine) file(name, text string, mode os.FileMode) {
	m.t.Helper()
	name = filepath.Join(m.dir, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), mode); err != nil {
		m.t.Fatal(err)
	}
}

// environ replaces what the machine of the test says of proxies.
func environ(t *testing.T, vars ...string) {
	t.Helper()
	for _, n := range []string{"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"} {
		t.Setenv(n, "")
	}
	for _, v := range vars {
		name, value, _ := strings.Cut(v, "=")
		t.Setenv(name, value)
	}
}

// TestProxy: the fetcher goes through the proxy with its user and password, TLS ends at the registry, whose authority is the one of
// certs.d, and nothing else is asked for: documents and blobs all come that way. NO_PROXY is asked directly.
func TestProxy(t *testing.T) {
	m, proxy, image, digest := throughProxy(t)
	via := "HTTPS_PROXY=http://bob:ge%3Ahei%20m@" + proxy.Addr
	environ(t, via)
	if got := strings.TrimSpace(m.must("pull", image)); got != digest {
		t.Errorf("pulled %s, want %s", got, digest)
	}
	if got := proxy.Asked(); !slices.Equal(got, []string{"CONNECT registry.example:443"}) {
		t.Errorf("the proxy was asked for %q", got)
	}
	m.must("rmi", image)

	direct := m.reg.Addr + "/team/small:1"
	m.must("pull", direct)
	if got := proxy.Asked(); !slices.Equal(got, []string{"CONNECT " + m.reg.Addr}) {
		t.Errorf("without NO_PROXY the proxy was asked for %q", got)
	}
	m.must("rmi", direct)
	environ(t, via, "no_proxy=0.0.0.0/8,other.example")
	m.must("pull", direct)
	if got := proxy.Asked(); len(got) > 0 {
		t.Errorf("in spite of no_proxy the proxy was asked for %q", got)
	}
	m.must("push", direct) // has no blobs: fetches them again, and finds them there

	// A registry that is private: a credential helper of the machine knows the password.
	m.file("auth.json", `{"credHelpers":{"private.example":"test"}}`, 0o644)
	m.file("bin/docker-credential-test", "#!/bin/sh\nread s || true\necho \"$s\" >>$0.asked\necho '{\"Username\":\"ann\",\"Secret\":\"secret\"}'\n", 0o755)
	t.Setenv("PATH", filepath.Join(m.dir, "bin")+":"+os.Getenv("PATH"))
	m.must("pull", "private.example/team/small:1")
	if b, err := os.ReadFile(filepath.Join(m.dir, "bin/docker-credential-test.asked")); err != nil || string(b) != "private.example\n" {
		t.Errorf("the helper was asked for %q %v", b, err)
	}
	m.file("auth.json", `{}`, 0o644)
	m.must("rmi", "private.example/team/small:1")
	m.mustFail("containerctl login private.example", "pull", "private.example/team/small:1")
}

// TestProxyPlain: a registry that registries.conf calls insecure, and that speaks no TLS, is asked for through HTTP_PROXY.
func TestProxyPlain(t *testing.T) {
	m := bareMachine(t)
	digest := m.small("small:1")
	proxy := &registrytest.Proxy{Routes: map[string]string{"plain.example:80": m.reg.Addr, "plain.example": m.reg.Addr}}
	if err := proxy.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { proxy.Close() })
	m.file("registries.conf", "[[registry]]\nlocation = \"plain.example\"\ninsecure = true\n", 0o644)
	environ(t, "http_proxy="+proxy.Addr, "https_proxy="+proxy.Addr) // without a scheme it is http
	if got := strings.TrimSpace(m.must("pull", "plain.example/small:1")); got != digest {
		t.Errorf("pulled %s, want %s", got, digest)
	}
	asked := proxy.Asked()
	if !slices.Contains(asked, "GET http://plain.example/v2/small/manifests/1") || !slices.ContainsFunc(asked, func(s string) bool { return strings.Contains(s, "/blobs/") }) {
		t.Errorf("the proxy was asked for %q", asked)
	}
}

// TestProxyErrors: what is wrong with the way is said, with the name of the proxy, and without its password.
func TestProxyErrors(t *testing.T) {
	m, proxy, image, _ := throughProxy(t)
	for _, c := range []struct{ proxy, image, want string }{
		{"http://bob:falsch@" + proxy.Addr, image, fmt.Sprintf("the proxy %s does not let us through to registry.example:443: \"407 Proxy Authentication Required\"", proxy.Addr)},
		{"http://bob:ge%3Ahei%20m@" + proxy.Addr, "elsewhere.example/x:1", "does not let us through to elsewhere.example:443: \"403 Forbidden\""},
		{"http://bob:falsch@127.0.0.1:1", image, "proxyconnect tcp: dial tcp 127.0.0.1:1"},
		{"http://bob:falsch%@" + proxy.Addr, image, "HTTPS_PROXY is no address of a proxy"},
		{"gopher://bob:falsch@" + proxy.Addr, image, "HTTPS_PROXY is no address of a proxy"},
	} {
		environ(t, "HTTPS_PROXY="+c.proxy)
		out, errs, code := m.ctl("pull", c.image)
		if code == 0 || !strings.Contains(errs, c.want) || strings.Contains(errs, "falsch") || strings.Contains(errs, "hei") {
			t.Errorf("%s: exit %d: %s%s; want %q and no password", c.proxy, code, out, errs, c.want)
		}
		if n := len(proxy.Asked()); n > 1 {
			t.Errorf("%s: asked %d times", c.proxy, n)
		}
	}
	// An authority that nobody knows stays unknown behind a proxy.
	if err := os.RemoveAll(filepath.Join(m.dir, "certs.d")); err != nil {
		t.Fatal(err)
	}
	environ(t, "HTTPS_PROXY=http://bob:ge%3Ahei%20m@"+proxy.Addr)
	m.mustFail("certificate signed by unknown authority", "pull", image)
	m.nothing()
}
