package server

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
)

func TestHandler(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"metadata/timestamp.json": "{}", "targets/releases/x.payload": "0123456789", "targets/.payload-1": "half", "staged/targets.json": "{}", "keys.pem": "secret",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "targets/link")); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	web := httptest.NewServer(Handler(root))
	defer web.Close()
	get := func(method, path string, header ...string) (int, string, http.Header) {
		t.Helper()
		req, err := http.NewRequest(method, web.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(header) == 2 {
			req.Header.Set(header[0], header[1])
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		return res.StatusCode, string(b), res.Header
	}
	code, body, header := get("GET", "/metadata/timestamp.json")
	if code != 200 || body != "{}" || header.Get("Cache-Control") != "no-cache" {
		t.Errorf("timestamp: %d %q %v", code, body, header)
	}
	if code, _, _ := get("GET", "/metadata/timestamp.json", "If-None-Match", header.Get("ETag")); code != 304 {
		t.Errorf("unchanged: %d", code)
	}
	if code, body, _ := get("GET", "/targets/releases/x.payload", "Range", "bytes=4-"); code != 206 || body != "456789" {
		t.Errorf("range: %d %q", code, body)
	}
	for _, path := range []string{"/", "/targets/", "/targets/releases", "/keys.pem", "/staged/targets.json", "/targets/.payload-1", "/targets/../keys.pem", "/targets/none"} {
		if code, body, _ := get("GET", path); code != 404 {
			t.Errorf("%s: %d %q", path, code, body)
		}
	}
	if code, body, _ := get("GET", "/targets/link"); code == 200 {
		t.Errorf("a link out of the repository: %q", body)
	}
	if code, _, _ := get("POST", "/metadata/timestamp.json"); code != 405 {
		t.Errorf("POST: %d", code)
	}
}
