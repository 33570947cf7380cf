package main

import (
	"bytes"
	"crypto/elliptic"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/proa-os/proa/ignition/tang/tangtest"
)

// The command line is clevis's: what `clevis encrypt tang CONFIG` and `clevis decrypt` take these take.
func TestClevis(t *testing.T) {
	s, err := tangtest.New(elliptic.P256())
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(s)
	defer server.Close()
	call := func(stdin string, args ...string) (string, error) {
		var out, log bytes.Buffer
		p := &program{stdin: strings.NewReader(stdin), stdout: &out, stderr: &log, getenv: func(string) string { return "" }}
		err := p.run(t.Context(), append([]string{"clevis"}, args...))
		return out.String(), err
	}
	lock, err := call("hush", "encrypt", "tang", fmt.Sprintf(`{"url":"%s","thp":"%s"}`, server.URL, s.Thumbprint()))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := call(lock, "decrypt"); err != nil || got != "hush" {
		t.Errorf("got %q, %v", got, err)
	}
	server.Close()
	if _, err := call(lock, "decrypt"); err == nil || !strings.Contains(err.Error(), "tang server "+server.URL+", key ") {
		t.Errorf("without the server: %v", err)
	}
	for want, args := range map[string][]string{
		"expected one of":            {"bind", "x"},
		"unknown pin \"null\"":       {"encrypt", "null", "{}"},
		"expected five parts":        {"decrypt"},
		"systemd has passed no sock": {"answer", "1"},
		"a number of seconds":        {"answer", "soon"},
	} {
		if _, err := call("x", args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", args, err, want)
		}
	}
}
