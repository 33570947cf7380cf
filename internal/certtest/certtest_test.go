package certtest

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestServer has a client that trusts the authority, and one that trusts another one of the same name, ask a server.
func TestServer(t *testing.T) {
	ca, pair, err := Server("lab.example", "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	other, _, err := Server("lab.example")
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	server.StartTLS()
	defer server.Close()
	for _, c := range []struct {
		trusts []byte
		name   string // "" for the address
		want   string // of the error
	}{
		{ca, "", ""}, {ca, "lab.example", ""}, {ca, "other.example", "not other.example"}, {other, "lab.example", "unknown authority"},
	} {
		conn, err := tls.Dial("tcp", server.Listener.Addr().String(), &tls.Config{RootCAs: Pool(c.trusts), ServerName: c.name})
		if err == nil {
			conn.Close()
		}
		if got := ""; err != nil {
			got = err.Error()
			if c.want == "" || !strings.Contains(got, c.want) {
				t.Errorf("as %q: got %v, want %q", c.name, err, c.want)
			}
		} else if c.want != "" {
			t.Errorf("as %q: got no error, want %q", c.name, c.want)
		}
	}
}
