package world

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func get(t *testing.T, url, byteRange string) (int, []byte, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if byteRange != "" {
		req.Header.Set("Range", byteRange)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, b, err
}

func TestWeb(t *testing.T) {
	dir := t.TempDir()
	payload := bytes.Repeat([]byte("proa "), 40000)
	if err := os.WriteFile(filepath.Join(dir, "full.payload"), payload, 0o644); err != nil {
		t.Fatal(err)
	}
	w, err := Serve(dir)
	if err != nil {
		t.Fatal(err)
	}
	url := w.HostURL() + "full.payload"

	if _, got, err := get(t, url, ""); err != nil || !bytes.Equal(got, payload) {
		t.Errorf("got %d bytes, %v, want the file", len(got), err)
	}
	if code, got, err := get(t, url, "bytes=10-19"); code != http.StatusPartialContent || !bytes.Equal(got, payload[10:20]) {
		t.Errorf("got %d, %q, %v, want ten bytes", code, got, err)
	}

	w.Cut(".payload", 1000)
	if _, got, err := get(t, url, ""); err == nil || !bytes.Equal(got, payload[:1000]) {
		t.Errorf("got %d bytes, %v, want 1000 and a broken connection", len(got), err)
	}
	if _, got, err := get(t, url, ""); err != nil || len(got) != len(payload) {
		t.Errorf("got %d bytes, %v, want the cut to hold once", len(got), err)
	}

	held, release := w.Hold("full.payload bytes=5", 2000)
	if _, got, err := get(t, url, ""); err != nil || len(got) != len(payload) {
		t.Errorf("got %d bytes, %v, want only a request with a range to be held up", len(got), err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Range", "bytes=5-")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 2000)
	if _, err := io.ReadFull(resp.Body, got); err != nil || !bytes.Equal(got, payload[5:2005]) {
		t.Errorf("got %v, want 2000 bytes before it is held up", err)
	}
	<-held
	again, giveUp := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer giveUp()
	if resp, err := http.DefaultClient.Do(req.Clone(again)); err == nil {
		resp.Body.Close()
		t.Errorf("got status %d, want silence for who asks again for what is held up", resp.StatusCode)
	}
	release()
	if rest, err := io.ReadAll(resp.Body); err == nil || len(rest) > 0 {
		t.Errorf("got %d bytes more, %v, want it to be cut in the end", len(rest), err)
	}
	if _, got, err := get(t, url, ""); err != nil || len(got) != len(payload) {
		t.Errorf("got %d bytes, %v, want answers again", len(got), err)
	}
	cancel()
	resp.Body.Close()

	w.Down(true)
	if code, _, _ := get(t, url, ""); code != http.StatusServiceUnavailable {
		t.Errorf("got status %d, want 503", code)
	}
	w.Down(false)

	want := []string{"GET /full.payload", "GET /full.payload bytes=10-19", "GET /full.payload", "GET /full.payload", "GET /full.payload", "GET /full.payload bytes=5-", "GET /full.payload bytes=5-", "GET /full.payload", "GET /full.payload"}
	if got := w.Requests(); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if !strings.HasPrefix(w.GuestURL(), "http://10.0.2.2:") || !strings.HasSuffix(w.GuestURL(), "/") {
		t.Errorf("got %s", w.GuestURL())
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if _, _, err := get(t, url, ""); err == nil {
		t.Error("got an answer after Close")
	}
}
