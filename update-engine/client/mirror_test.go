package client_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/proa-os/proa/update-engine/client"
)

// mirror serves one thing and counts.
type mirror struct {
	*httptest.Server
	asked atomic.Int32
}

func newMirror(t *testing.T, h http.HandlerFunc) *mirror {
	m := &mirror{}
	m.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.asked.Add(1)
		h(w, r)
	}))
	t.Cleanup(m.Close)
	return m
}

func says(s string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "x", time.Time{}, strings.NewReader(s))
	}
}

func broken(w http.ResponseWriter, _ *http.Request) {
	http.Error(w, "no", http.StatusInternalServerError)
}

// mirrored asks servers in this order.
func mirrored(first *mirror, others ...*mirror) *client.Client {
	c := &client.Client{Source: client.NewHTTP(5 * time.Second), Retry: quick(), Server: first.URL + "/"}
	for i, m := range others {
		c.Mirrors = append(c.Mirrors, m.URL+strings.Repeat("/", i%2)) // with and without
	}
	return c
}

func TestMirrorTakesOver(t *testing.T) {
	for what, h := range map[string]http.HandlerFunc{"broken": broken, "empty": http.NotFound} {
		bad, good := newMirror(t, h), newMirror(t, says("hello"))
		c := mirrored(bad, good)
		var over []string
		c.PassedOver = func(server string, err error) { over = append(over, server, err.Error()) }
		for range 3 {
			if b, err := c.Fetch(t.Context(), bad.URL+"/a/b", 10); err != nil || string(b) != "hello" {
				t.Errorf("%s: got %q, %v", what, b, err)
			}
		}
		if len(over) != 2 || over[0] != c.Server || !strings.Contains(over[1], bad.URL+"/a/b") {
			t.Errorf("%s: passed over %q, want the bad one, once, and why", what, over)
		}
		if bad.asked.Load() != 1 || good.asked.Load() != 3 {
			t.Errorf("%s: asked %d times, the good one %d times; want 1 and 3: the good one is remembered", what, bad.asked.Load(), good.asked.Load())
		}
	}
}

// A mirror that gives what is not accepted is not asked twice for it, and the next one is.
func TestMirrorIsRefused(t *testing.T) {
	liar, honest := newMirror(t, says("lie")), newMirror(t, says("truth"))
	c := mirrored(liar, honest)
	errLie := errors.New("not what was signed")
	accept := func(b []byte, _ string) error {
		if string(b) != "truth" {
			return errLie
		}
		return nil
	}
	if err := c.Get(t.Context(), liar.URL+"/x", 10, "", accept); err != nil || liar.asked.Load() != 1 {
		t.Errorf("got %v, asked the liar %d times", err, liar.asked.Load())
	}
	honest.Close()
	if err := c.Get(t.Context(), liar.URL+"/x", 10, "", accept); !errors.Is(err, errLie) || !strings.Contains(err.Error(), honest.URL) || liar.asked.Load() != 2 {
		t.Errorf("nobody honest: %v, asked the liar %d times", err, liar.asked.Load())
	}
}

// "There is none" is an answer: it does not wait for who cannot be reached, nor does a liar's word count more.
func TestMirrorsWithoutTheFile(t *testing.T) {
	none, down, liar := newMirror(t, http.NotFound), newMirror(t, broken), newMirror(t, says("lie"))
	c := mirrored(down, none, liar)
	err := c.Get(t.Context(), down.URL+"/x", 10, "", func([]byte, string) error { return errors.New("not what was signed") })
	if !errors.Is(err, fs.ErrNotExist) || down.asked.Load() != 1 {
		t.Errorf("got %v, asked the broken one %d times", err, down.asked.Load())
	}
	for _, words := range []string{"404", "500", "not what was signed"} {
		if err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%v does not say %q", err, words)
		}
	}
}

func TestAllMirrorsFail(t *testing.T) {
	a, b := newMirror(t, broken), newMirror(t, broken)
	c := mirrored(a, b)
	if _, err := c.Fetch(t.Context(), a.URL+"/x", 10); err == nil || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), a.URL) || !strings.Contains(err.Error(), b.URL) {
		t.Errorf("got %v", err)
	}
	if a.asked.Load() != 3 || b.asked.Load() != 3 {
		t.Errorf("asked %d and %d times, want 3 each", a.asked.Load(), b.asked.Load())
	}
	if _, err := io.ReadAll(c.Stream(t.Context(), a.URL+"/x", 10, nil)); err == nil || !strings.Contains(err.Error(), "after 6 attempts") {
		t.Errorf("stream: %v", err)
	}
}

// Another server's URL is left alone.
func TestMirrorsOfOthers(t *testing.T) {
	a, b, other := newMirror(t, says("a")), newMirror(t, says("b")), newMirror(t, broken)
	if _, err := mirrored(a, b).Fetch(t.Context(), other.URL+"/x", 10); err == nil || a.asked.Load()+b.asked.Load() != 0 {
		t.Errorf("got %v", err)
	}
}

// A stream goes on at another server where one breaks off, and stays there.
func TestStreamChangesServers(t *testing.T) {
	body := content(1 << 20)
	serve := func(limit int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			rec := httptest.NewRecorder()
			http.ServeContent(rec, r, "x", time.Time{}, bytes.NewReader(body))
			for k, v := range rec.Header() {
				w.Header()[k] = v
			}
			w.WriteHeader(rec.Code)
			b := rec.Body.Bytes()
			_, _ = w.Write(b[:min(limit, len(b))])
			if limit < len(b) {
				w.(http.Flusher).Flush()
				panic(http.ErrAbortHandler)
			}
		}
	}
	first, second, third := newMirror(t, serve(300<<10)), newMirror(t, http.NotFound), newMirror(t, serve(len(body)))
	c := mirrored(first, second, third)
	var cuts []string
	r := c.Stream(t.Context(), first.URL+"/x", int64(len(body)), func(at int64, err error) { cuts = append(cuts, fmt.Sprint(at)) })
	got, err := io.ReadAll(r)
	r.Close()
	if err != nil || !bytes.Equal(got, body) || len(cuts) != 2 || first.asked.Load() != 1 || third.asked.Load() != 1 {
		t.Errorf("got %d bytes, %v; cuts at %v; asked %d, %d, %d times", len(got), err, cuts, first.asked.Load(), second.asked.Load(), third.asked.Load())
	}
	if b, err := c.Fetch(t.Context(), first.URL+"/x", 1<<20); err != nil || len(b) != 1<<20 || first.asked.Load() != 1 {
		t.Errorf("the next file: %d bytes, %v, first server asked %d times", len(b), err, first.asked.Load())
	}
	gone := mirrored(newMirror(t, http.NotFound), newMirror(t, http.NotFound))
	if _, err := io.ReadAll(gone.Stream(t.Context(), gone.Server+"x", 10, nil)); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "after 2 attempts") {
		t.Errorf("nobody has it: %v", err)
	}
}

// A server that answers, and does not give the file, is told from one that cannot be reached: in this process, through the child, and also
// if another one was asked last.
func TestStatusErrors(t *testing.T) {
	for name, s := range sources(t) {
		refuses, down := newMirror(t, broken), newMirror(t, broken)
		down.Close()
		c := mirrored(refuses, down)
		c.Source = s
		_, err := io.ReadAll(c.Stream(t.Context(), refuses.URL+"/x", 10, nil))
		if status := (*client.StatusError)(nil); !errors.As(err, &status) || status.Code != 500 {
			t.Errorf("%s: %v, want status 500 in it", name, err)
		}
		if n := refuses.asked.Load(); n != 3 {
			t.Errorf("%s: asked %d times, want 3", name, n)
		}
		alone := mirrored(down)
		alone.Source = s
		if _, err := io.ReadAll(alone.Stream(t.Context(), down.URL+"/x", 10, nil)); err == nil || errors.As(err, new(*client.StatusError)) {
			t.Errorf("%s: nobody answered: %v", name, err)
		}
	}
}

// Whoever reads can find out who sent what, and ask one alone.
func TestStreamOnly(t *testing.T) {
	first, second := newMirror(t, says("hello")), newMirror(t, says("world"))
	c := mirrored(first, second)
	url := first.URL + "/x"
	if got, want := fmt.Sprint(c.Servers(url)), fmt.Sprint([]string{c.Server, c.Mirrors[0]}); got != want {
		t.Fatalf("servers %s, want %s", got, want)
	}
	for i, want := range []string{"hello", "world"} {
		server := c.Servers(url)[i]
		r := c.StreamOnly(t.Context(), server, url, 0, 5, nil)
		b, err := io.ReadAll(r)
		if from := r.Servers(); err != nil || string(b) != want || len(from) != 1 || from[0] != server {
			t.Errorf("%s: %q, %v, from %q", server, b, err, from)
		}
	}
	first.Close()
	r := c.StreamOnly(t.Context(), c.Server, url, 0, 5, nil)
	if b, err := io.ReadAll(r); err == nil || len(r.Servers()) != 0 {
		t.Errorf("a server that is gone: %q, from %q", b, r.Servers())
	}
	if _, err := io.ReadAll(c.StreamOnly(t.Context(), "http://stranger/", url, 0, 5, nil)); err == nil || !strings.Contains(err.Error(), "no such server") {
		t.Errorf("a stranger: %v", err)
	}
}

// A tag goes back only to whom it is from: a liar could make up the one under which the honest server has what is new.
func TestTagOfAnotherServer(t *testing.T) {
	const tag = `"new"`
	tagged := func(content string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("ETag", tag)
			if r.Header.Get("If-None-Match") == tag {
				w.WriteHeader(http.StatusNotModified)
				return
			}
			fmt.Fprint(w, content)
		}
	}
	liar, honest := newMirror(t, tagged("old")), newMirror(t, tagged("new"))
	c := mirrored(liar, honest)
	var got []byte
	var kept string
	get := func() {
		t.Helper()
		if err := c.Get(t.Context(), liar.URL+"/x", 10, kept, func(b []byte, tag string) error { got, kept = b, tag; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if get(); string(got) != "old" || kept == "" {
		t.Fatalf("got %q with tag %q", got, kept)
	}
	mark := kept
	if get(); got != nil {
		t.Errorf("got %q again, want that it has not changed", got)
	}
	liar.Close()
	kept = mark
	if get(); string(got) != "new" {
		t.Errorf("got %q from the other server, want what is new there", got)
	}
}
