package client_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/proa-os/proa/update-engine/client"
)

func once() client.Retry { return client.Retry{Attempts: 1} }

// through are the sources that go by way of a network.
func through(t *testing.T, n client.Network) map[string]client.Source {
	t.Helper()
	h, err := n.HTTP(5 * time.Second)
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return map[string]client.Source{"http": h, "child": &client.Child{Command: []string{exe, "fetch"}, Network: n}}
}

func fetch(t *testing.T, s client.Source, url string) (string, error) {
	t.Helper()
	b, err := (&client.Client{Source: s, Retry: once()}).Fetch(t.Context(), url, 1<<20)
	return string(b), err
}

func hello(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }

// tlsServer has a certificate of an authority that only the returned PEM knows.
func tlsServer(t *testing.T, h http.Handler) (*httptest.Server, string) {
	t.Helper()
	web := httptest.NewUnstartedServer(h)
	web.Config.ErrorLog = log.New(io.Discard, "", 0) // refused handshakes are what is tested
	web.StartTLS()
	t.Cleanup(web.Close)
	return web, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw}))
}

func TestOwnCA(t *testing.T) {
	web, ca := tlsServer(t, http.HandlerFunc(hello))
	for name, s := range through(t, client.Network{}) {
		if _, err := fetch(t, s, web.URL); err == nil || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("%s: a stranger's certificate: %v", name, err)
		}
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, []byte("# a comment\n"+ca), 0o600); err != nil {
		t.Fatal(err)
	}
	n, err := client.ReadNetwork("", file)
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range through(t, n) {
		if got, err := fetch(t, s, web.URL); err != nil || got != "hello" {
			t.Errorf("%s: with the CA file: %q, %v", name, got, err)
		}
	}
	for content, want := range map[string]string{"": "empty", "no certificate": "no certificate", strings.Repeat("#", 2<<20): "more than"} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := client.ReadNetwork("", file); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("CA file %.20q: %v, want %q", content, err, want)
		}
	}
	if _, err := client.ReadNetwork("", file+".missing"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no CA file: %v", err)
	}
}

// A proxy forwards requests and CONNECTs for who has the password.
func proxyServer(t *testing.T, password string) (url string, requests, tunnels *atomic.Int32) {
	t.Helper()
	requests, tunnels = new(atomic.Int32), new(atomic.Int32)
	want := "Basic " + base64.StdEncoding.EncodeToString([]byte("proa:"+password))
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Proxy-Authorization") != want {
			w.Header().Set("Proxy-Authenticate", "Basic")
			http.Error(w, "who are you?", http.StatusProxyAuthRequired)
			return
		}
		if r.Method != http.MethodConnect {
			requests.Add(1)
			fmt.Fprintf(w, "by proxy: %s", r.URL.Host)
			return
		}
		tunnels.Add(1)
		out, err := net.Dial("tcp", r.Host)
		if err != nil {
			t.Error(err)
			return
		}
		defer out.Close()
		in, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer in.Close()
		_, _ = io.WriteString(in, "HTTP/1.1 200 OK\r\n\r\n")
		go func() { _, _ = io.Copy(out, in) }()
		_, _ = io.Copy(in, out)
	}))
	t.Cleanup(web.Close)
	return strings.Replace(web.URL, "http://", "http://proa:"+password+"@", 1), requests, tunnels
}

func TestProxy(t *testing.T) {
	const password = "s3cret"
	proxy, requests, tunnels := proxyServer(t, password)
	web, ca := tlsServer(t, http.HandlerFunc(hello))
	for name, s := range through(t, client.Network{Proxy: proxy, CA: ca}) {
		if got, err := fetch(t, s, "http://updates.invalid/x"); err != nil || got != "by proxy: updates.invalid" {
			t.Errorf("%s: plain: %q, %v", name, got, err)
		}
		if got, err := fetch(t, s, web.URL); err != nil || got != "hello" {
			t.Errorf("%s: through CONNECT: %q, %v", name, got, err)
		}
	}
	if requests.Load() != 2 || tunnels.Load() != 2 {
		t.Errorf("the proxy saw %d requests and %d tunnels", requests.Load(), tunnels.Load())
	}
	wrong := strings.Replace(proxy, password, "wr0ng", 1)
	for name, s := range through(t, client.Network{Proxy: wrong, CA: ca}) {
		for _, url := range []string{"http://updates.invalid/x", web.URL} {
			if _, err := fetch(t, s, url); err == nil || !strings.Contains(err.Error(), "Proxy Auth") || strings.Contains(err.Error(), "wr0ng") {
				t.Errorf("%s, %s: a wrong password: %v", name, url, err)
			}
		}
	}
	t.Setenv("HTTP_PROXY", proxy)
	t.Setenv("http_proxy", proxy)
	if got, err := fetch(t, through(t, client.Network{})["child"], "http://updates.invalid/x"); err != nil || got != "by proxy: updates.invalid" {
		t.Errorf("as the environment says: %q, %v", got, err)
	}
	if _, err := fetch(t, through(t, client.Network{Proxy: "direct"})["child"], "http://127.0.0.1:1/x"); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("direct: %v", err)
	}
	for _, bad := range []string{"proxy:3128", "ftp://u:s3cret@x", "http://", "http://u:s3 cret@%zz"} {
		if _, err := client.ReadNetwork(bad, ""); err == nil || strings.Contains(err.Error(), "cret") {
			t.Errorf("proxy %q: %v", bad, err)
		}
	}
}

// What everybody on the machine can see of the fetching process has no password in it.
func TestChildHidesPassword(t *testing.T) {
	lines := make(chan string, 1)
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		lines <- childFile(t, "cmdline")
		hello(w, nil)
	}))
	defer web.Close()
	proxy := strings.Replace(web.URL, "http://", "http://proa:s3cret@", 1)
	if _, err := fetch(t, through(t, client.Network{Proxy: proxy})["child"], "http://updates.invalid/x"); err != nil {
		t.Fatal(err)
	}
	if line := <-lines; line == "" || strings.Contains(line, "s3cret") || strings.Contains(line, "updates") {
		t.Errorf("its command line is %q", line)
	}
}

func TestRedirects(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(hello))
	defer other.Close()
	secure, ca := tlsServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/down" {
			http.Redirect(w, r, other.URL, http.StatusFound)
			return
		}
		hello(w, r)
	}))
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	var hops atomic.Int32
	mux := http.NewServeMux()
	for path, to := range map[string]string{
		"/same": "/file", "/other": other.URL + "/file", "/local": "file://" + secret, "/up": secure.URL + "/file", "/name": "http://localhost/file",
		"/metadata": "http://169.254.169.254/latest", "/nothing": "", "/gopher": "gopher://127.0.0.1/",
	} {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", to)
			w.WriteHeader(http.StatusFound)
		})
	}
	mux.HandleFunc("/loop", func(w http.ResponseWriter, r *http.Request) {
		hops.Add(1)
		http.Redirect(w, r, "/loop", http.StatusMovedPermanently)
	})
	mux.HandleFunc("/file", hello)
	web := httptest.NewServer(mux)
	defer web.Close()
	for name, s := range through(t, client.Network{CA: ca}) {
		for path, want := range map[string]string{
			web.URL + "/same": "", web.URL + "/up": "",
			web.URL + "/other": "another server", web.URL + "/name": "another server", web.URL + "/metadata": "another server",
			web.URL + "/local": "refused", web.URL + "/gopher": "refused", web.URL + "/loop": "more than 5 redirects", web.URL + "/nothing": "302",
			secure.URL + "/down": "redirect from https to http refused",
		} {
			got, err := fetch(t, s, path)
			if want == "" && (err != nil || got != "hello") || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
				t.Errorf("%s %s: got %q, %v, want %q", name, path, got, err, want)
			}
		}
	}
	if hops.Load() > 14 {
		t.Errorf("%d hops in two loops", hops.Load())
	}
}

// Packed answers stay packed: a bomb is as long as it is on the wire, and no file that somebody has signed.
func TestBomb(t *testing.T) {
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	_, _ = w.Write(make([]byte, 50<<20))
	_ = w.Close()
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept-Encoding") != "" {
			t.Errorf("asked for %s", r.Header.Get("Accept-Encoding"))
		}
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(packed.Bytes())
	}))
	defer web.Close()
	for name, s := range through(t, client.Network{}) {
		if got, err := fetch(t, s, web.URL); err != nil || got != packed.String() {
			t.Errorf("%s: got %d bytes, %v", name, len(got), err)
		}
	}
}

// Heads without an end, in size or in time.
func TestEndlessHead(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				line := make([]byte, 4096)
				n, _ := c.Read(line)
				pause := strings.Contains(string(line[:n]), "/slow")
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n")
				for i := 0; ; i++ {
					if _, err := fmt.Fprintf(c, "X-%d: %s\r\n", i, strings.Repeat("y", 100)); err != nil {
						return
					}
					if pause {
						time.Sleep(20 * time.Millisecond)
					}
				}
			}()
		}
	}()
	s := client.NewHTTP(300 * time.Millisecond)
	for path, want := range map[string]string{"/long": "exceeded", "/slow": "timeout"} {
		begin := time.Now()
		if _, err := fetch(t, s, "http://"+l.Addr().String()+path); err == nil || !strings.Contains(err.Error(), want) || time.Since(begin) > 5*time.Second {
			t.Errorf("%s: got %v after %s, want %q", path, err, time.Since(begin), want)
		}
	}
}

// A connection that breaks at any byte costs an attempt and nothing else; a stream takes up where it was.
func TestCutAtEachByte(t *testing.T) {
	body := content(200)
	for _, known := range []bool{true, false} { // with Content-Length, and in chunks
		for cut := range len(body) {
			var asked atomic.Int32
			web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				from := 0
				_, _ = fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from)
				if known {
					w.Header().Set("Content-Length", fmt.Sprint(len(body)-from))
				}
				if from > 0 {
					w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(body)-1, len(body)))
					w.WriteHeader(http.StatusPartialContent)
				}
				if asked.Add(1) > 1 {
					_, _ = w.Write(body[from:])
					return
				}
				_, _ = w.Write(body[:cut])
				w.(http.Flusher).Flush()
				panic(http.ErrAbortHandler)
			}))
			c := &client.Client{Source: client.NewHTTP(5 * time.Second), Retry: quick()}
			if b, err := c.Fetch(t.Context(), web.URL, 1000); err != nil || !bytes.Equal(b, body) {
				t.Errorf("fetch cut at %d: %d bytes, %v", cut, len(b), err)
			}
			asked.Store(0)
			if b, err := io.ReadAll(c.Stream(t.Context(), web.URL, 200, nil)); err != nil || !bytes.Equal(b, body) {
				t.Errorf("stream cut at %d: %d bytes, %v", cut, len(b), err)
			}
			web.Close()
		}
	}
}

// A server whose ranges lie does not get its bytes into a payload's middle.
func TestLyingRanges(t *testing.T) {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Range", r.URL.Query().Get("range"))
		w.WriteHeader(http.StatusPartialContent)
		_, _ = w.Write(content(100))
	}))
	defer web.Close()
	c := &client.Client{Source: client.NewHTTP(5 * time.Second), Retry: once()}
	for _, r := range []string{"", "bytes 0-99/200", "bytes 99-199/200", "pages 100-199/200"} {
		b, err := io.ReadAll(c.StreamFrom(t.Context(), web.URL+"/?range="+strings.ReplaceAll(r, " ", "%20"), 100, 200, nil))
		if err == nil || len(b) > 0 || !strings.Contains(err.Error(), "asked for bytes from 100 on") {
			t.Errorf("%q: got %d bytes, %v", r, len(b), err)
		}
	}
}

func TestPoll(t *testing.T) {
	tag := `"v1"`
	var full atomic.Int32
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", tag)
		if r.URL.Path == "/always" || r.Header.Get("If-None-Match") == tag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		full.Add(1)
		hello(w, r)
	}))
	defer web.Close()
	for name, s := range sources(t) {
		c := &client.Client{Source: s, Retry: once()}
		var kept, got string
		ask := func(path, with string) error {
			return c.Get(t.Context(), web.URL+path, 100, with, func(b []byte, tag string) error {
				if got = "unchanged"; b != nil {
					got, kept = string(b), tag
				}
				return nil
			})
		}
		tag = `"v1"`
		full.Store(0)
		if err := ask("/", ""); err != nil || got != "hello" || !strings.HasSuffix(kept, ` "v1"`) {
			t.Errorf("%s: the first time: %q, tag %q, %v", name, got, kept, err)
		}
		if err := ask("/", kept); err != nil || got != "unchanged" || full.Load() != 1 {
			t.Errorf("%s: the second time: %q, %v, %d full answers", name, got, err, full.Load())
		}
		if err := ask("/always", ""); err == nil || !strings.Contains(err.Error(), "304") {
			t.Errorf("%s: unchanged from what? %v", name, err)
		}
		for _, bad := range []string{`"` + strings.Repeat("x", 300) + `"`, "\"\xff\""} {
			tag, kept = bad, "?"
			if err := ask("/", ""); err != nil || kept != "" {
				t.Errorf("%s: tag %.20q was kept as %q, %v", name, bad, kept, err)
			}
		}
	}
}

func TestRate(t *testing.T) {
	body := content(300 << 10)
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(body) }))
	defer web.Close()
	c := &client.Client{Source: client.NewHTTP(5 * time.Second), Retry: once(), Rate: 600 << 10}
	begin := time.Now()
	b, err := io.ReadAll(c.Stream(t.Context(), web.URL, int64(len(body)), nil))
	if took := time.Since(begin); err != nil || !bytes.Equal(b, body) || took < 450*time.Millisecond {
		t.Errorf("300 KiB at 600 KiB/s took %s, %v", took, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := io.ReadAll(c.Stream(ctx, web.URL, int64(len(body)), nil)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("an end in between: %v", err)
	}
}

// What is no file on a stick is not read: it may have no end, or wait for ever.
func TestFolder(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "a file"), []byte("hello"), 0o644); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	base, err := client.FolderURL(dir)
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]client.Source{"folder": client.Folder{}, "child": &client.Child{Command: []string{exe, "fetch"}}} {
		if got, err := fetch(t, s, base+"/a%20file"); err != nil || got != "hello" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		for path, want := range map[string]string{base + "/fifo": "is not a file", base: "is not a file", "file:///dev/zero": "is not a file", "file://host/x": "file", base + "/none": "no such file"} {
			if _, err := fetch(t, s, path); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %s: %v, want %q", name, path, err, want)
			}
		}
		if _, err := fetch(t, s, base+"/none"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: a missing file: %v", name, err)
		}
		r := (&client.Client{Source: s, Retry: once()}).StreamFrom(t.Context(), base+"/a%20file", 3, 5, nil)
		if b, err := io.ReadAll(r); err != nil || string(b) != "lo" {
			t.Errorf("%s: from byte 3: %q, %v", name, b, err)
		}
		r.Close()
	}
}

// A stream is as long as what was signed, whatever else the server has to say.
func TestEndlessStream(t *testing.T) {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(content(1 << 16)); err != nil {
				return
			}
		}
	}))
	defer web.Close()
	for name, s := range sources(t) {
		r := (&client.Client{Source: s, Retry: once()}).Stream(t.Context(), web.URL, 100_000, nil)
		if b, err := io.ReadAll(r); err != nil || len(b) != 100_000 {
			t.Errorf("%s: %d bytes, %v", name, len(b), err)
		}
		r.Close()
	}
}
