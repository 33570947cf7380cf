package platform

import (
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/proa-os/proa/internal/certtest"
	"github.com/proa-os/proa/internal/testenv"
)

const ign = `{"ignition":{"version":"3.4.0"}}`

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func zipped(t *testing.T, text string) string {
	t.Helper()
	var b strings.Builder
	z := gzip.NewWriter(&b)
	_, err := z.Write([]byte(text))
	if err := errors.Join(err, z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// answer is what a fake metadata service says to one question: the headers it insists on, and the body.
type answer struct {
	need   []string // "Name: value"
	body   string
	status int // 0: 200
}

// cloud is a fake metadata service. It knows the address that it is asked at, refuses who does not show its headers, and fails once at
// each question before it answers.
type cloud struct {
	t       *testing.T
	host    string
	answers map[string]answer // "GET /path?query"
	lowPort bool
	mu      sync.Mutex
	asked   map[string]int
}

func (c *cloud) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	question := r.Method + " " + r.URL.RequestURI()
	c.mu.Lock()
	c.asked[question]++
	n := c.asked[question]
	c.mu.Unlock()
	a, ok := c.answers[question]
	_, port, _ := net.SplitHostPort(r.RemoteAddr)
	number, _ := strconv.Atoi(port)
	switch {
	case r.Host != c.host:
		c.t.Errorf("%s asked of %s, want %s", question, r.Host, c.host)
	case c.lowPort && number >= 1024:
		w.WriteHeader(http.StatusForbidden)
		return
	case n == 1:
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	for _, h := range a.need {
		name, value, _ := strings.Cut(h, ": ")
		if r.Header.Get(name) != value {
			c.t.Errorf("%s: header %s is %q, want %q", question, name, r.Header.Get(name), value)
		}
	}
	switch {
	case !ok:
		w.WriteHeader(http.StatusNotFound)
	case a.status != 0:
		w.WriteHeader(a.status)
	default:
		w.Write([]byte(a.body))
	}
}

// newMachine has empty /sys, /dev and /run in dir, and a network on which every address is the server's.
func newMachine(t *testing.T, dir, serverURL string) *Machine {
	t.Helper()
	m := &Machine{Getenv: func(string) string { return "" }, Total: 20 * time.Second,
		Load: func(context.Context, ...string) error { return nil }}
	for name, root := range map[string]**os.Root{"sys": &m.Sys, "dev": &m.Dev, "run": &m.Run} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
		r, err := os.OpenRoot(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close() })
		*root = r
	}
	if serverURL != "" {
		_, address, _ := strings.Cut(serverURL, "://")
		m.Route = func(to string) string {
			if strings.HasPrefix(to, "[fe80:") { // only OpenStack has that one, and needs a link for it
				return "127.0.0.1:1"
			}
			return address
		}
	}
	return m
}

// startTLS starts a server with the certificate of a name, and returns what trusts it.
func startTLS(t *testing.T, server *httptest.Server, name string) *x509.CertPool {
	t.Helper()
	ca, pair, err := certtest.Server(name)
	if err != nil {
		t.Fatal(err)
	}
	server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	server.StartTLS()
	return certtest.Pool(ca)
}

func serve(t *testing.T, c *cloud) (*Machine, *httptest.Server) {
	t.Helper()
	c.t, c.asked = t, map[string]int{}
	server := httptest.NewUnstartedServer(c)
	var pool *x509.CertPool
	if c.host == "metadata.packet.net" {
		pool = startTLS(t, server, c.host)
	} else {
		server.Start()
	}
	t.Cleanup(server.Close)
	m := newMachine(t, t.TempDir(), server.URL)
	m.Roots = pool
	return m, server
}

// clouds is every platform with a metadata service, as its documentation says it answers.
func clouds() map[string]*cloud {
	const imds = "169.254.169.254"
	ec2 := []string{"X-aws-ec2-metadata-token: t0ken"}
	azure := []string{"Metadata: true"}
	google := []string{"Metadata-Flavor: Google"}
	oracle := []string{"Authorization: Bearer Oracle"}
	akamai := []string{"Metadata-Token: t0ken"}
	plain := func(config, hostname, keys string) map[string]answer {
		return map[string]answer{"GET " + config: {body: ign}, "GET " + hostname: {body: "web1.example\n"}, "GET " + keys: {body: "ssh-ed25519 AAAA a\n\nssh-rsa BBBB b\n"}}
	}
	nova := map[string]answer{"GET /openstack/latest/user_data": {body: ign},
		"GET /openstack/latest/meta_data.json": {body: `{"hostname":"web1.example","public_keys":{"y":"ssh-rsa BBBB b\n","x":"ssh-ed25519 AAAA a"}}`}}
	return map[string]*cloud{
		"akamai": {host: imds, answers: map[string]answer{
			"PUT /v1/token":     {need: []string{"Metadata-Token-Expiry-Seconds: 300", "Accept: text/plain"}, body: "t0ken"},
			"GET /v1/user-data": {need: append(akamai, "Accept: */*"), body: b64(ign)},
			"GET /v1/ssh-keys":  {need: append(akamai, "Accept: application/json"), body: `{"users":{"root":["ssh-ed25519 AAAA a","ssh-rsa BBBB b"]}}`}}},
		"aliyun": {host: "100.100.100.200", answers: map[string]answer{
			"GET /latest/user-data": {body: ign}, "GET /latest/meta-data/hostname": {body: "web1.example"},
			"GET /latest/meta-data/public-keys/":              {body: "0/\n1/"},
			"GET /latest/meta-data/public-keys/0/openssh-key": {body: "ssh-ed25519 AAAA a"}, "GET /latest/meta-data/public-keys/1/openssh-key": {body: "ssh-rsa BBBB b"}}},
		"aws": {host: imds, answers: map[string]answer{
			"PUT /latest/api/token":                           {need: []string{"X-aws-ec2-metadata-token-ttl-seconds: 21600"}, body: "t0ken"},
			"GET /2019-10-01/user-data":                       {need: ec2, body: ign},
			"GET /2021-01-03/meta-data/hostname":              {need: ec2, body: "web1.example"},
			"GET /latest/meta-data/public-keys/":              {need: ec2, body: "0=mine\n1=yours"},
			"GET /latest/meta-data/public-keys/0/openssh-key": {need: ec2, body: "ssh-ed25519 AAAA a\n"}, "GET /latest/meta-data/public-keys/1/openssh-key": {need: ec2, body: "ssh-rsa BBBB b"}}},
		"azure": {host: imds, answers: map[string]answer{
			"GET /metadata/instance/compute/userData?api-version=2021-01-01&format=text": {need: azure, body: b64(ign)},
			"GET /metadata/instance/compute/name?api-version=2017-08-01&format=text":     {need: azure, body: "web1.example"},
			"GET /metadata/instance/compute/publicKeys?api-version=2021-02-01":           {need: azure, body: `[{"keyData":"ssh-ed25519 AAAA a","path":"x"},{"keyData":"ssh-rsa BBBB b\r\n"}]`}}},
		"brightbox":  {host: imds, answers: nova},
		"cloudstack": {host: "10.1.2.3", answers: plain("/latest/user-data", "/latest/meta-data/local-hostname", "/latest/meta-data/public-keys")},
		"digitalocean": {host: imds, answers: map[string]answer{"GET /metadata/v1/user-data": {body: ign},
			"GET /metadata/v1.json": {body: `{"hostname":"web1.example","public_keys":["ssh-ed25519 AAAA a","ssh-rsa BBBB b"],"interfaces":{}}`}}},
		"exoscale": {host: imds, answers: plain("/1.0/user-data", "/1.0/meta-data/local-hostname", "/1.0/meta-data/public-keys")},
		"gcp": {host: imds, answers: map[string]answer{
			"GET /computeMetadata/v1/instance/attributes/user-data": {need: google, body: ign},
			"GET /computeMetadata/v1/instance/hostname":             {need: google, body: "web1.example"},
			"GET /computeMetadata/v1/instance/attributes/ssh-keys":  {need: google, body: "me:ssh-ed25519 AAAA a\nme:ssh-rsa CCCC google-ssh {\"userName\":\"me\",\"expireOn\":\"2026-01-01\"}"},
			"GET /computeMetadata/v1/project/attributes/ssh-keys":   {need: google, body: "you:ssh-rsa BBBB b"}}},
		"hetzner": {host: imds, answers: map[string]answer{"GET /hetzner/v1/userdata": {body: ign},
			"GET /hetzner/v1/metadata/hostname": {body: "web1.example"}, "GET /hetzner/v1/metadata/public-keys": {body: `["ssh-ed25519 AAAA a","ssh-rsa BBBB b"]`}}},
		"openstack": {host: imds, answers: nova},
		"oraclecloud": {host: imds, answers: map[string]answer{
			"GET /opc/v2/instance/metadata/user_data": {need: oracle, body: b64(ign)},
			"GET /opc/v2/instance/":                   {need: oracle, body: `{"hostname":"web1.example","metadata":{"ssh_authorized_keys":"ssh-ed25519 AAAA a\nssh-rsa BBBB b\n"}}`}}},
		"packet": {host: "metadata.packet.net", answers: map[string]answer{
			"GET /userdata": {need: []string{"Accept: */*"}, body: ign},
			"GET /metadata": {body: `{"hostname":"web1.example","ssh_keys":["ssh-ed25519 AAAA a","ssh-rsa BBBB b"]}`}}},
		"scaleway": {host: "169.254.42.42", lowPort: true, answers: map[string]answer{"GET /user_data/cloud-init": {body: ign},
			"GET /conf?format=json": {body: `{"hostname":"web1.example","ssh_public_keys":[{"key":"ssh-ed25519 AAAA a"},{"key":"ssh-rsa BBBB b"}]}`}}},
		"upcloud": {host: imds, answers: plain("/metadata/v1/user_data", "/metadata/v1/hostname", "/metadata/v1/public_keys")},
		"vultr":   {host: imds, answers: plain("/user-data/user-data", "/v1/hostname", "/v1/public-keys")},
	}
}

// User data may be compressed before it is written in base64.
func TestCompressedUserData(t *testing.T) {
	t.Parallel()
	c := clouds()["akamai"]
	c.answers["GET /v1/user-data"] = answer{body: b64(zipped(t, ign))}
	m, _ := serve(t, c)
	if a, err := lookup(t, "akamai").Read(t.Context(), m, false); err != nil || string(a.Config) != ign {
		t.Errorf("got %+v, %v", a, err)
	}
}

// An instance of gcp can refuse the keys of its project: they are not even asked for.
func TestGoogleBlocksProjectKeys(t *testing.T) {
	t.Parallel()
	const attributes, project = "GET /computeMetadata/v1/instance/attributes/", "GET /computeMetadata/v1/project/attributes/ssh-keys"
	c := clouds()["gcp"]
	c.answers[attributes+"block-project-ssh-keys"] = answer{need: []string{"Metadata-Flavor: Google"}, body: "true\n"}
	m, _ := serve(t, c)
	a, err := lookup(t, "gcp").Read(t.Context(), m, false)
	if err != nil || !slices.Equal(a.Keys, []string{"ssh-ed25519 AAAA a"}) || c.asked[project] != 0 || c.asked[attributes+"block-project-ssh-keys"] != 2 {
		t.Errorf("got %+v, %v, asked %v", a, err, c.asked)
	}
}

// Each cloud is asked as it wants to be, though it fails first, and its config, hostname and keys arrive.
func TestClouds(t *testing.T) {
	for id, c := range clouds() {
		t.Run(id, func(t *testing.T) {
			t.Parallel()
			if c.lowPort && os.Geteuid() != 0 {
				testenv.Missing(t, "as an ordinary user: a source port below 1024 is for root")
			}
			m, _ := serve(t, c)
			if err := m.Run.MkdirAll("systemd/netif/leases", 0o755); err != nil {
				t.Fatal(err)
			}
			if err := m.Run.WriteFile("systemd/netif/leases/2", []byte("# private\nADDRESS=10.1.2.9\nSERVER_ADDRESS=10.1.2.3\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			p, err := Lookup(id)
			if err != nil {
				t.Fatal(err)
			}
			a, err := p.Read(t.Context(), m, false)
			if err != nil {
				t.Fatal(err)
			}
			hostname := "web1.example"
			if id == "akamai" { // has none
				hostname = ""
			}
			if string(a.Config) != ign || a.Hostname != hostname || !slices.Equal(a.Keys, []string{"ssh-ed25519 AAAA a", "ssh-rsa BBBB b"}) || len(a.Warnings) > 0 {
				t.Errorf("got %+v", a)
			}
			for question := range c.answers {
				if c.asked[question] < 2 {
					t.Errorf("%s was asked %d times", question, c.asked[question])
				}
			}
			if c.answers["PUT /latest/api/token"].body != "" && c.asked["PUT /latest/api/token"] != 2 {
				t.Error("the token was not kept")
			}
		})
	}
}

// Everything that is network only needs the network, and says so at once.
func TestCloudsOffline(t *testing.T) {
	for id := range clouds() {
		p, err := Lookup(id)
		if err != nil {
			t.Fatal(err)
		}
		m := newMachine(t, t.TempDir(), "")
		start := time.Now()
		if _, err := p.Read(t.Context(), m, true); err == nil || err.Error() != "needs the network" || time.Since(start) > time.Second {
			t.Errorf("%s: got %v after %s", id, err, time.Since(start))
		}
	}
}

// What a service says finally is final; a missing config is none.
func TestServiceAnswers(t *testing.T) {
	const config = "GET /hetzner/v1/userdata"
	tests := []struct {
		name   string
		answer answer
		want   string
	}{
		{"forbidden", answer{status: 403}, "fetch http://169.254.169.254/hetzner/v1/userdata: expected status 200, found 403 Forbidden"},
		{"redirect", answer{status: 302}, "fetch http://169.254.169.254/hetzner/v1/userdata: expected an answer, found a redirect; a metadata service does not send machines elsewhere"},
		{"too large", answer{body: strings.Repeat("x", 32<<20+1)}, "fetch http://169.254.169.254/hetzner/v1/userdata: expected at most 33554432 bytes, found more"},
		{"none", answer{status: 404}, ""},
		{"empty", answer{body: " \n"}, ""},
		{"no content", answer{status: 204}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m, _ := serve(t, &cloud{host: "169.254.169.254", answers: map[string]answer{config: tt.answer}})
			p, err := Lookup("hetzner")
			if err != nil {
				t.Fatal(err)
			}
			a, err := p.Read(t.Context(), m, false)
			if got := fmt.Sprint(err); tt.want != "" && got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			if tt.want == "" && (err != nil || a.Config != nil) {
				t.Errorf("got %+v, %v", a, err)
			}
		})
	}
}

// Without IMDSv2 there is no token; a token that has expired is fetched anew; a refusal is final.
func TestTokens(t *testing.T) {
	p, err := Lookup("aws")
	if err != nil {
		t.Fatal(err)
	}
	t.Run("version 1", func(t *testing.T) {
		t.Parallel()
		c := &cloud{host: "169.254.169.254", answers: map[string]answer{"GET /2019-10-01/user-data": {need: []string{"X-aws-ec2-metadata-token: "}, body: ign}}}
		m, _ := serve(t, c)
		if a, err := p.Read(t.Context(), m, false); err != nil || string(a.Config) != ign {
			t.Errorf("got %+v, %v", a, err)
		}
	})
	t.Run("expired", func(t *testing.T) {
		t.Parallel()
		var given, answered int
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.Method == http.MethodPut:
				given++
				fmt.Fprint(w, given)
			case r.URL.Path == "/2019-10-01/user-data" && r.Header.Get("X-aws-ec2-metadata-token") == "1":
				fmt.Fprint(w, ign)
			case r.Header.Get("X-aws-ec2-metadata-token") != "2":
				w.WriteHeader(http.StatusUnauthorized)
			case strings.HasSuffix(r.URL.Path, "hostname"):
				answered++
				fmt.Fprint(w, "web1")
			default:
				w.WriteHeader(http.StatusNotFound)
			}
		}))
		defer server.Close()
		m := newMachine(t, t.TempDir(), server.URL)
		if a, err := p.Read(t.Context(), m, false); err != nil || a.Hostname != "web1" || given != 2 || answered != 1 {
			t.Errorf("got %+v, %v, %d tokens", a, err, given)
		}
	})
	t.Run("refused", func(t *testing.T) {
		t.Parallel()
		m, _ := serve(t, &cloud{host: "169.254.169.254", answers: map[string]answer{"PUT /latest/api/token": {status: 403}}})
		want := "fetch http://169.254.169.254/2019-10-01/user-data: get a token: expected status 200, found 403 Forbidden"
		if _, err := p.Read(t.Context(), m, false); err == nil || err.Error() != want {
			t.Errorf("got %v", err)
		}
	})
}

// Some answer with a status that is final elsewhere while they are not ready: Azure with 404, 410 and 429, Oracle with 429.
func TestServicesAreLate(t *testing.T) {
	for id, late := range map[string][]int{"azure": {404, 410, 429}, "oraclecloud": {429, 429}} {
		t.Run(id, func(t *testing.T) {
			t.Parallel()
			var n atomic.Int32
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if n := int(n.Add(1)); n <= len(late) {
					w.WriteHeader(late[n-1])
					return
				}
				fmt.Fprint(w, b64(ign))
			}))
			defer server.Close()
			if a, err := lookup(t, id).Read(t.Context(), newMachine(t, t.TempDir(), server.URL), false); err != nil || string(a.Config) != ign {
				t.Errorf("got %+v, %v after %d", a, err, n.Load())
			}
		})
	}
}

// Nobody answers: the time is over, the error names the address.
func TestUnreachable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	m := newMachine(t, t.TempDir(), "http://"+address)
	m.Total = 300 * time.Millisecond
	p, err := Lookup("vultr")
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.Read(t.Context(), m, false)
	if err == nil || !strings.HasPrefix(err.Error(), "fetch http://169.254.169.254/user-data/user-data: gave up") || !strings.HasSuffix(err.Error(), "connection refused") {
		t.Errorf("got %v", err)
	}
}

// Equinix Metal is told how stages end.
func TestPhoneHome(t *testing.T) {
	var told string
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Method + " " + r.Host + r.URL.Path {
		case "GET metadata.packet.net/metadata":
			fmt.Fprint(w, `{"phone_home_url":"https://metadata.packet.net/phone-home"}`)
		case "POST metadata.packet.net/events":
			b := make([]byte, r.ContentLength)
			r.Body.Read(b)
			told = r.Header.Get("Content-Type") + " " + string(b)
		default:
			w.WriteHeader(http.StatusTeapot)
		}
	}))
	pool := startTLS(t, server, "metadata.packet.net")
	defer server.Close()
	m := newMachine(t, t.TempDir(), server.URL)
	m.Roots = pool
	p, err := Lookup("packet")
	if err != nil {
		t.Fatal(err)
	}
	err = p.Report(t.Context(), m, "files", fmt.Errorf("disk full"))
	if want := `application/json {"message":"[files] Ignition error: disk full","state":"failed"}`; err != nil || told != want {
		t.Errorf("got %q, %v", told, err)
	}
}
