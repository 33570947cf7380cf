package source

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coreos/ignition/v2/config/v3_6/types"
)

// The examples of "Signature Calculations for the Authorization Header" in Amazon's S3 API reference.
func TestSignatureExamples(t *testing.T) {
	keys := AWSKeys{AccessKey: "AKIAIOSFODNN7EXAMPLE", SecretKey: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"}
	at := time.Date(2013, 5, 24, 0, 0, 0, 0, time.UTC)
	tests := []struct{ url, header, signature string }{
		{"https://examplebucket.s3.amazonaws.com/test.txt", "bytes=0-9", "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"},
		{"https://examplebucket.s3.amazonaws.com/?lifecycle", "", "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"},
		{"https://examplebucket.s3.amazonaws.com/?max-keys=2&prefix=J", "", "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"},
	}
	for _, tt := range tests {
		u, err := url.Parse(tt.url)
		if err != nil {
			t.Fatal(err)
		}
		h := http.Header{}
		if tt.header != "" {
			h.Set("Range", tt.header)
		}
		sign(h, u, keys, "us-east-1", at)
		if got := h.Get("Authorization"); !strings.HasSuffix(got, ",Signature="+tt.signature) {
			t.Errorf("%s: got %s", tt.url, got)
		}
	}
}

// cloud answers https for every host: it is dialled whatever the name. Its fetcher takes any certificate, as httptest's is for one name.
func cloud(t *testing.T, handler http.HandlerFunc) *Fetcher {
	t.Helper()
	server := httptest.NewTLSServer(handler)
	t.Cleanup(server.Close)
	f, err := Fetcher{Route: func(string) string { return server.Listener.Addr().String() }}.For(t.Context(), types.Config{})
	if err != nil {
		t.Fatal(err)
	}
	f.client.Transport.(*http.Transport).TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
	return f
}

func TestS3(t *testing.T) {
	keys := AWSKeys{AccessKey: "AK", SecretKey: "secret", Token: "session", Region: "eu-west-1"}
	tests := []struct {
		name, source, hint, get string
		keys                    AWSKeys
	}{
		{"bucket", "s3://bucket/a dir/key+?versionId=7", "s3.eu-west-1.amazonaws.com", "bucket.s3.dualstack.eu-central-1.amazonaws.com/a%20dir/key%2B?versionId=7", keys},
		{"anybody", "s3://bucket/key", "s3.us-east-1.amazonaws.com", "bucket.s3.dualstack.eu-central-1.amazonaws.com/key", AWSKeys{}},
		{"dots", "s3://my.bucket/key", "s3.us-east-1.amazonaws.com", "s3.dualstack.eu-central-1.amazonaws.com/my.bucket/key", AWSKeys{}},
		{"ARN", "arn:aws-cn:s3:::bucket/dir/key?versionId=8", "s3.cn-north-1.amazonaws.com.cn", "bucket.s3.dualstack.eu-central-1.amazonaws.com/dir/key?versionId=8", keys},
		{"access point", "arn:aws:s3:us-west-2:123456789012:accesspoint/mine/object/dir/key", "", "mine-123456789012.s3-accesspoint.dualstack.us-west-2.amazonaws.com/dir/key", keys},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			hint := ""
			f := cloud(t, func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodHead {
					hint = r.Host
					w.Header().Set("X-Amz-Bucket-Region", "eu-central-1")
					w.WriteHeader(http.StatusMovedPermanently)
					return
				}
				if got := r.Host + r.URL.RequestURI(); got != tt.get {
					t.Errorf("got %s, want %s", got, tt.get)
				}
				signed := strings.HasPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 Credential=AK/") && r.Header.Get("X-Amz-Security-Token") == "session"
				if want := tt.keys.AccessKey != ""; signed != want {
					t.Errorf("signed: got %v, want %v", signed, want)
				}
				fmt.Fprint(w, "object")
			})
			f.AWS = func(context.Context) (AWSKeys, error) { return tt.keys, nil }
			var b buffer
			if err := f.Fetch(t.Context(), resource(tt.source), &b); err != nil || b.String() != "object" || hint != tt.hint {
				t.Errorf("got %q, %v; asked %q for the region", b.String(), err, hint)
			}
		})
	}
	f := cloud(t, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNotFound) })
	want := "fetch s3://bucket/key: find the bucket's region: no such bucket"
	if err := f.Fetch(t.Context(), resource("s3://bucket/key?versionId=x"), &buffer{}); err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
}

func TestObjectsOfGoogleAndAzure(t *testing.T) {
	var seen string
	f := cloud(t, func(w http.ResponseWriter, r *http.Request) {
		seen = r.Host + r.URL.RequestURI() + " " + r.Header.Get("Authorization") + r.Header.Get("X-Ms-Version")
		fmt.Fprint(w, "object")
	})
	tests := []struct{ source, without, with string }{
		{"gs://bucket/dir/a b", "storage.googleapis.com/bucket/dir/a%20b ", "storage.googleapis.com/bucket/dir/a%20b Bearer t0ken"},
		{"https://x.blob.core.windows.net/c/file", "x.blob.core.windows.net/c/file ", "x.blob.core.windows.net/c/file Bearer t0ken2021-08-06"},
	}
	for _, tt := range tests {
		f.Google, f.Azure = nil, nil
		if err := f.Fetch(t.Context(), resource(tt.source), &buffer{}); err != nil || seen != tt.without {
			t.Errorf("got %q, %v", seen, err)
		}
		f.Google = func(context.Context) (string, error) { return "t0ken", nil }
		f.Azure = f.Google
		if err := f.Fetch(t.Context(), resource(tt.source), &buffer{}); err != nil || seen != tt.with {
			t.Errorf("got %q, %v", seen, err)
		}
	}
	f.Google = func(context.Context) (string, error) { return "", errors.New("no answer") }
	if err := f.Fetch(t.Context(), resource("gs://b/k"), &buffer{}); err == nil || err.Error() != "fetch gs://b/k: get the machine's access token: no answer" {
		t.Errorf("got %v", err)
	}
}

// The proxy of the config is asked, for what it is for and for nothing else.
func TestProxies(t *testing.T) {
	text := func(s string) *string { return &s }
	p := types.Proxy{HTTPProxy: text("http://user:pw@plain:3128"), HTTPSProxy: text("https://secure:3129"),
		NoProxy: []types.NoProxyItem{"example.com", ".sub.test", "*.star.test", "10.0.0.0/8", "192.0.2.1", "ported.test:8080", "fd00::1"}}
	tests := map[string]string{
		"http://other/": "http://user:pw@plain:3128", "https://other/": "https://secure:3129",
		"http://example.com/": "", "https://a.EXAMPLE.com:99/": "", "http://badexample.com/": "http://user:pw@plain:3128",
		"http://sub.test/": "http://user:pw@plain:3128", "http://a.sub.test/": "", "http://a.star.test/": "", "http://star.test/": "http://user:pw@plain:3128",
		"http://10.9.8.7/": "", "http://11.9.8.7/": "http://user:pw@plain:3128", "http://192.0.2.1/": "", "http://[fd00:0::1]/": "",
		"http://ported.test:8080/": "", "http://ported.test/": "http://user:pw@plain:3128", "http://localhost/": "", "http://127.0.0.2/": "", "http://[::1]/": "",
	}
	choose := proxies(p)
	for address, want := range tests {
		r, err := http.NewRequest(http.MethodGet, address, nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := choose(r)
		if err != nil || got == nil && want != "" || got != nil && got.String() != want {
			t.Errorf("%s: got %v, %v, want %s", address, got, err, want)
		}
	}
	if proxies(types.Proxy{}) != nil {
		t.Error("a proxy without one in the config")
	}
	var asked string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r.RequestURI
		fmt.Fprint(w, "by proxy")
	}))
	defer server.Close()
	got, err := fetch(t, types.Config{Ignition: types.Ignition{Proxy: types.Proxy{HTTPProxy: &server.URL}}}, resource("http://config.test/a"))
	if err != nil || got != "by proxy" || asked != "http://config.test/a" {
		t.Errorf("got %q, %v, asked for %q", got, err, asked)
	}
}

// tftpServer serves one file over loopback. It answers from a port of its own, loses every fifth packet, sends every seventh twice, and
// takes options or not.
func tftpServer(t *testing.T, name string, content []byte, options bool) string {
	t.Helper()
	listen, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listen.Close() })
	go func() {
		b := make([]byte, 2048)
		for {
			n, from, err := listen.ReadFromUDP(b)
			if err != nil {
				return
			}
			words := strings.Split(string(b[2:n]), "\x00")
			conn, err := net.DialUDP("udp", nil, from)
			if err != nil {
				return
			}
			if words[0] != name || words[1] != "octet" || words[2] != "blksize" {
				conn.Write(append([]byte{0, 5, 0, 1}, "File not found\x00"...))
				conn.Close()
				continue
			}
			go serveTFTP(conn, content, options)
		}
	}()
	return listen.LocalAddr().String()
}

func serveTFTP(conn *net.UDPConn, content []byte, options bool) {
	defer conn.Close()
	size, packets := 512, 0
	exchange := func(packet []byte, number uint16) bool {
		for range 8 {
			if packets++; packets%5 != 0 {
				conn.Write(packet)
			}
			if packets%7 == 0 {
				conn.Write(packet)
			}
			conn.SetReadDeadline(time.Now().Add(150 * time.Millisecond))
			b := make([]byte, 16)
			for {
				n, err := conn.Read(b)
				if err != nil {
					break
				}
				if n == 4 && b[1] == 4 && binary.BigEndian.Uint16(b[2:]) == number {
					return true
				}
			}
		}
		return false
	}
	if options {
		size = 1000 // less than was asked for
		if !exchange(append([]byte{0, 6}, "blksize\x001000\x00"...), 0) {
			return
		}
	}
	for number := uint16(1); ; number++ {
		n := min(size, len(content))
		if !exchange(append([]byte{0, 3, byte(number >> 8), byte(number)}, content[:n]...), number) || n < size {
			return
		}
		content = content[n:]
	}
}

func TestTFTP(t *testing.T) {
	for _, size := range []int{0, 10, 512, 5000, 10000} {
		for _, options := range []bool{true, false} {
			t.Run(fmt.Sprint(size, options), func(t *testing.T) {
				t.Parallel()
				content := bytes.Repeat([]byte("0123456789"), 1000)[:size]
				address := tftpServer(t, "dir/file.ign", content, options)
				got, err := fetch(t, types.Config{}, withHash(resource("tftp://"+address+"/dir/file.ign"), string(content)))
				if err != nil || got != string(content) {
					t.Errorf("got %d bytes, %v", len(got), err)
				}
			})
		}
	}
	address := tftpServer(t, "x", nil, true)
	want := "fetch tftp://" + address + `/y: the TFTP server refuses with error 1: "File not found"`
	if _, err := fetch(t, types.Config{}, resource("tftp://"+address+"/y")); err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
}

// A server that always has one more block does not hold provisioning up for ever.
func TestEndlessTFTP(t *testing.T) {
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	go func() {
		b := make([]byte, 100)
		for number := uint16(1); ; number++ {
			_, client, err := conn.ReadFromUDP(b)
			if err != nil {
				return
			}
			conn.WriteToUDP(append([]byte{0, 3, byte(number >> 8), byte(number)}, make([]byte, 512)...), client)
		}
	}()
	f, err := Fetcher{}.For(t.Context(), types.Config{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- f.Fetch(ctx, resource("tftp://"+conn.LocalAddr().String()+"/x"), &buffer{}) }()
	select {
	case err := <-ended:
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	case <-time.After(4 * time.Second):
		t.Error("goes on")
	}
}

// answering is a server that gives one answer to everything.
type answering http.Response

func (a answering) RoundTrip(*http.Request) (*http.Response, error) {
	r := http.Response(a)
	r.Body = http.NoBody
	return &r, nil
}

// What a server says beside its status stays off the consoles.
func TestServersOwnWords(t *testing.T) {
	for _, status := range []int{http.StatusForbidden, http.StatusServiceUnavailable} {
		f := Fetcher{client: &http.Client{Transport: answering{Status: strconv.Itoa(status) + " hunter2", StatusCode: status}}}
		_, err := f.region(t.Context(), object{bucket: "b"}, AWSKeys{})
		if err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), strconv.Itoa(status)) {
			t.Errorf("got %v", err)
		}
	}
}
