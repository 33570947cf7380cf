package tang

import (
	"bytes"
	"context"
	"crypto/elliptic"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/proa-os/proa/ignition/jose"
	"github.com/proa-os/proa/ignition/tang/tangtest"
)

func server(t *testing.T, curve elliptic.Curve) *tangtest.Server {
	t.Helper()
	s, err := tangtest.New(curve)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// What was shared when something was locked comes back from the server, on every curve, below a path too.
func TestLockAndUnlock(t *testing.T) {
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P521()} {
		s := server(t, curve)
		url := serve(t, s) + "/below/"
		for _, thumbprint := range []string{s.Thumbprint(), s.Signer().ThumbprintSHA1()} {
			raw, err := Get(t.Context(), url, thumbprint)
			if err != nil {
				t.Fatal(err)
			}
			set, _, err := Check(raw, thumbprint)
			if err != nil {
				t.Fatal(err)
			}
			key, err := Exchange(set)
			if err != nil {
				t.Fatal(err)
			}
			public, want, err := Lock(key)
			if err != nil {
				t.Fatal(err)
			}
			got, err := Unlock(t.Context(), url, key.Thumbprint(), key, public)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: got %x, %v, want %x", curve.Params().Name, got, err, want)
			}
		}
	}
}

// Nobody but the owner of the trusted key is believed.
func TestAdvertisementsOfOthers(t *testing.T) {
	s, other := server(t, elliptic.P521()), server(t, elliptic.P521())
	good := string(s.Advertisement())
	trusted := s.Thumbprint()
	signer, foreign := s.Signer(), other.Signer()
	noOps := signer
	noOps.KeyOps = nil
	for name, tc := range map[string]struct{ doc, thumbprint, want string }{
		"another server":          {string(other.Advertisement()), trusted, "did not sign"},
		"a key that did not sign": {string(other.Advertise(jose.Set{Keys: []jose.Key{foreign, signer}})), trusted, "wrong signature"},
		"no signing key":          {string(other.Advertise(jose.Set{Keys: []jose.Key{noOps}})), trusted, "no signing key"},
		"changed payload":         {strings.Replace(good, `"payload":"ey`, `"payload":"e3`, 1), trusted, ""},
		"changed signature":       {strings.Replace(good, `"signature":"A`, `"signature":"B`, 1), trusted, "wrong signature"},
		"no JSON":                 {"<html>", trusted, "parse signed document"},
		"no payload":              {"{}", trusted, "no payload"},
		"half a thumbprint":       {good, trusted[:27], "did not sign"},
		"all is empty":            {`{"payload":"e30","signatures":[]}`, "", "no signing key"},
	} {
		if _, _, err := Check([]byte(tc.doc), tc.thumbprint); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", name, err, tc.want)
		}
	}
	if _, _, err := Check([]byte(good), other.Thumbprint()); !errors.Is(err, ErrThumbprint) || !strings.Contains(err.Error(), trusted) {
		t.Errorf("got %v", err)
	}
	if set, _, err := Check([]byte(good), ""); err != nil || len(set.Keys) != 2 {
		t.Errorf("any: got %v, %v", set, err)
	}
}

// hostile answers every connection with the same bytes, and then does what more says.
func hostile(t *testing.T, answer string, more func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = c.Read(make([]byte, 4096))
				_, _ = io.WriteString(c, answer)
				if more != nil {
					more(c)
				}
			}()
		}
	}()
	return "http://" + l.Addr().String()
}

func endless(text string) func(net.Conn) {
	return func(c net.Conn) {
		for {
			if _, err := io.WriteString(c, text); err != nil {
				return
			}
		}
	}
}

func TestHostileServers(t *testing.T) {
	for name, tc := range map[string]struct {
		url, want string
	}{
		"endless body":     {hostile(t, "HTTP/1.1 200 OK\r\n\r\n", endless(strings.Repeat("x", 4096))), "expected an answer of at most"},
		"endless headers":  {hostile(t, "HTTP/1.1 200 OK\r\n", endless("X: y\r\n")), ""},
		"endless line":     {hostile(t, "", endless("x")), ""},
		"endless chunks":   {hostile(t, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", endless("1000\r\n"+strings.Repeat("x", 4096)+"\r\n")), "expected"},
		"endless 100":      {hostile(t, "", endless("HTTP/1.1 100 Continue\r\n\r\n")), ""},
		"a huge chunk":     {hostile(t, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n", nil), "unexpected EOF"},
		"a negative chunk": {hostile(t, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", nil), ""},
		"a huge length":    {hostile(t, "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n", nil), ""},
		"a short body":     {hostile(t, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx", nil), "unexpected EOF"},
		"nothing":          {hostile(t, "", nil), "EOF"},
		"another protocol": {hostile(t, "SSH-2.0-OpenSSH\r\n", nil), "malformed HTTP"},
		"another encoding": {hostile(t, "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", nil), "unsupported transfer encoding"},
		"a redirection":    {hostile(t, "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\n\r\n", nil), "answers 302 Found"},
		"an escape":        {hostile(t, "HTTP/1.1 500 \x1b[2J\r\n\r\n", nil), "answers 500 Internal Server Error"},
		"not there":        {hostile(t, "HTTP/1.1 404 Not Found\r\n\r\n", nil), "does not have the key"},
		"no URL":           {"ftp://h", "unsupported protocol scheme"},
		"refused":          {"http://127.0.0.1:1", "connection refused"},
	} {
		b, err := Get(t.Context(), tc.url, "x")
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %.40q, %v, want %q", name, b, err, tc.want)
		}
	}
}

// A server that answers a byte a second is left when the caller's time is over.
func TestSlowServer(t *testing.T) {
	url := hostile(t, "HTTP/1.1 200 OK\r\n", func(c net.Conn) { _, _ = c.Read(make([]byte, 1)) })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	begun := time.Now()
	if _, err := Get(ctx, url, "x"); err == nil || time.Since(begun) > 5*time.Second {
		t.Errorf("got %v after %s", err, time.Since(begun))
	}
}

// An answer that is no point of the curve is not calculated with; one that is some other point gives another secret, which opens nothing.
func TestWrongAnswers(t *testing.T) {
	s := server(t, elliptic.P256())
	set, _, err := Check(s.Advertisement(), "")
	if err != nil {
		t.Fatal(err)
	}
	key, err := Exchange(set)
	if err != nil {
		t.Fatal(err)
	}
	public, want, err := Lock(key)
	if err != nil {
		t.Fatal(err)
	}
	other := server(t, elliptic.P521()).Signer()
	for name, tc := range map[string]struct{ body, want string }{
		"no JSON":       {"x", "parse the server's answer"},
		"no key":        {"{}", "expected a point on P-256"},
		"another curve": {fmt.Sprintf(`{"kty":"EC","crv":"P-521","x":"%s","y":"%s"}`, other.X, other.Y), "expected a point on P-256"},
		"no point":      {fmt.Sprintf(`{"kty":"EC","crv":"P-256","x":"%s","y":"%s"}`, key.X, key.X), "not on the curve"},
	} {
		url := hostile(t, fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(tc.body), tc.body), nil)
		if _, err := Unlock(t.Context(), url, key.Thumbprint(), key, public); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", name, err, tc.want)
		}
	}
	body := fmt.Sprintf(`{"kty":"EC","crv":"P-256","x":"%s","y":"%s"}`, public.X, public.Y)
	url := hostile(t, fmt.Sprintf("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x;x=y\r\n%s\r\n0\r\n\r\n", len(body), body), nil)
	if got, err := Unlock(t.Context(), url, key.Thumbprint(), key, public); err != nil || bytes.Equal(got, want) {
		t.Errorf("another point: got %x, %v", got, err)
	}
}

// The server sees another point each time: it cannot tell whose secret it opens.
func TestServerLearnsNothing(t *testing.T) {
	s := server(t, elliptic.P256())
	var seen []string
	url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		seen = append(seen, string(b))
		r.Body = io.NopCloser(bytes.NewReader(b))
		s.ServeHTTP(w, r)
	}))
	set, _, _ := Check(s.Advertisement(), "")
	key, _ := Exchange(set)
	public, _, err := Lock(key)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := Unlock(t.Context(), url, key.Thumbprint(), key, public); err != nil {
			t.Fatal(err)
		}
	}
	if len(seen) != 2 || seen[0] == seen[1] || strings.Contains(seen[0]+seen[1], public.X) {
		t.Errorf("the server sees %q", seen)
	}
}
