package registry

import (
	"bytes"
	"crypto/sha256"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/proa-os/proa/runtime/endpoint"
	"github.com/proa-os/proa/runtime/image"
)

// bearer is a registry as the public ones are: a token for each repository, which is good for a while, and blobs in a store elsewhere.
type bearer struct {
	*httptest.Server
	token int    // the one that is good now
	store string // where blobs are
	asked []string
}

func (b *bearer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	auth := r.Header.Get("Authorization")
	switch {
	case r.URL.Path == "/token":
		r.ParseForm()
		user, password, _ := r.BasicAuth()
		b.asked = append(b.asked, fmt.Sprintf("%s %s:%s %s%s %s", r.Method, user, password, r.Form.Get("grant_type"), r.Form.Get("refresh_token"), r.Form.Get("scope")))
		b.token++
		if r.Method == http.MethodPost {
			fmt.Fprintf(w, `{"access_token":"t%d"}`, b.token)
			return
		}
		fmt.Fprintf(w, `{"token":"t%d"}`, b.token)
	case auth != fmt.Sprintf("Bearer t%d", b.token):
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="x"`, b.URL))
		http.Error(w, `{"errors":[{"code":"UNAUTHORIZED"}]}`, http.StatusUnauthorized)
	case strings.Contains(r.URL.Path, "/blobs/"):
		http.Redirect(w, r, b.store+"/blob", http.StatusTemporaryRedirect)
	default:
		fmt.Fprint(w, `{"schemaVersion":2}`)
	}
}

// TestToken: a token is asked for with the credentials and for this repository, used, and renewed when it is good no more; where blobs are
// redirected to gets none of it, and is not asked without TLS.
func TestToken(t *testing.T) {
	blob := bytes.Repeat([]byte("blob"), 1000)
	d := image.Digest(sha256.Sum256(blob))
	leaked := ""
	serve := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { leaked += r.Header.Get("Authorization"); w.Write(blob) })
	store, plain := httptest.NewTLSServer(serve), httptest.NewServer(serve)
	defer store.Close()
	defer plain.Close()
	for name, c := range map[string]struct {
		auth endpoint.Auth
		want string
	}{
		"password":       {endpoint.Auth{Username: "ann", Password: "secret"}, "GET ann:secret  repository:team/x:pull"},
		"identity token": {endpoint.Auth{Token: "refresh"}, "POST : refresh_tokenrefresh repository:team/x:pull"},
		"nobody":         {endpoint.Auth{}, "GET :  repository:team/x:pull"},
	} {
		t.Run(name, func(t *testing.T) {
			b := &bearer{store: store.URL}
			b.Server = httptest.NewTLSServer(b)
			defer b.Close()
			cl := client(endpoint.Endpoint{Name: strings.TrimPrefix(b.URL, "https://") + "/team/x", Auth: c.auth,
				CA: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: b.Certificate().Raw})})
			if _, err := cl.Manifest(t.Context(), "1"); err != nil {
				t.Fatal(err)
			}
			b.token += 10 // what it gave out is good no more
			var got bytes.Buffer
			if err := cl.CopyBlob(t.Context(), d, 0, int64(len(blob)), &got); err != nil || !bytes.Equal(got.Bytes(), blob) {
				t.Errorf("%d bytes, %v", got.Len(), err)
			}
			if len(b.asked) != 2 || b.asked[0] != c.want || b.asked[1] != c.want {
				t.Errorf("tokens asked for: %q, want twice %q", b.asked, c.want)
			}
			b.store = plain.URL
			if err := cl.CopyBlob(t.Context(), d, 0, int64(len(blob)), new(bytes.Buffer)); err == nil || !strings.Contains(err.Error(), "refuse plain http") {
				t.Errorf("a redirect away from TLS: %v", err)
			}
			if leaked != "" {
				t.Errorf("the store was given %q", leaked)
			}
		})
	}
}
