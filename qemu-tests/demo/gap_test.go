package demo

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"
)

func TestGap(t *testing.T) {
	var down atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if down.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()
	g := watch(t.Context(), server.URL)
	time.Sleep(300 * time.Millisecond)
	down.Store(true)
	time.Sleep(time.Second)
	down.Store(false)
	time.Sleep(500 * time.Millisecond)
	if got := g.end(); got < 900*time.Millisecond || got > 30*time.Second {
		t.Errorf("got a gap of %s, want about a second", got)
	}
	down.Store(true)
	g = watch(t.Context(), server.URL)
	time.Sleep(300 * time.Millisecond)
	if got := g.end(); got != 0 {
		t.Errorf("got a gap of %s, want none without an answer behind it", got)
	}
}
