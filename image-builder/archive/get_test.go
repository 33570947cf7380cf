package archive

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// TestGetStalls: a connection that stays open and yields nothing is given up.
func TestGetStalls(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "beginning")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}))
	defer s.Close()
	g := NewGetter()
	g.stall = 50 * time.Millisecond
	body, _, err := g.Get(t.Context(), s.URL, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	b, err := io.ReadAll(body)
	if string(b) != "beginning" || err == nil || !strings.Contains(err.Error(), s.URL) || !strings.Contains(err.Error(), "no byte came for 50ms") {
		t.Errorf("got %q, %v, want the beginning and an error with the URL", b, err)
	}
}

// TestGetCancelled: an interrupt is told from a stall.
func TestGetCancelled(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}))
	defer s.Close()
	ctx, cancel := context.WithCancel(t.Context())
	body, _, err := NewGetter().Get(ctx, s.URL, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	cancel()
	if _, err := io.ReadAll(body); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}

func TestGetRange(t *testing.T) {
	for _, tc := range []struct {
		name, contentRange string
		status             int
		start              int64
		wantErr            string
	}{
		{"honoured", "bytes 5-9/10", http.StatusPartialContent, 5, ""},
		{"ignored", "", http.StatusOK, 0, ""},
		{"another range", "bytes 4-9/10", http.StatusPartialContent, 0, "asked for offset 5"},
		{"no range", "", http.StatusPartialContent, 0, "asked for offset 5"},
		{"refused", "", http.StatusForbidden, 0, "403 Forbidden"},
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if got := r.Header.Get("Range"); got != "bytes=5-" {
				t.Errorf("%s: got range %q", tc.name, got)
			}
			if tc.contentRange != "" {
				w.Header().Set("Content-Range", tc.contentRange)
			}
			w.WriteHeader(tc.status)
		}))
		body, start, err := NewGetter().Get(t.Context(), s.URL, 5)
		if err == nil {
			body.Close()
		}
		s.Close()
		if tc.wantErr == "" && (err != nil || start != tc.start) {
			t.Errorf("%s: got offset %d, %v, want %d", tc.name, start, err, tc.start)
		}
		if tc.wantErr != "" && (err == nil || !strings.Contains(err.Error(), tc.wantErr)) {
			t.Errorf("%s: got %v, want an error with %q", tc.name, err, tc.wantErr)
		}
	}
}
