package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode"

	"github.com/proa-os/proa/internal/testenv"
	"github.com/proa-os/proa/update-engine/client"
)

// The test binary is the fetching process too.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "chatter" { // a fetching process that somebody has taken over
		for {
			if _, err := os.Stdout.Write(bytes.Repeat([]byte("x"), 1<<16)); err != nil {
				os.Exit(0)
			}
		}
	}
	if len(os.Args) == 2 && os.Args[1] == "escape" {
		fmt.Println(`{"error":"\u001b]0;owned\u0007 and \u009b more"}`)
		os.Exit(0)
	}
	if len(os.Args) == 2 && os.Args[1] == "skip" {
		fmt.Println(`{"skip":5}` + "\nhello and more")
		os.Exit(0)
	}
	if len(os.Args) == 2 && slices.Contains([]string{"mute", "stuck", "closed", "orphan"}, os.Args[1]) {
		silence(os.Args[1])
	}
	if len(os.Args) == 2 && os.Args[1] == "fetch" {
		if err := client.RunChild(context.Background(), os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// silence is a fetching process that says nothing, or nothing more.
func silence(how string) {
	switch how {
	case "stuck":
		fmt.Println("{}\nx")
	case "closed":
		fmt.Println("{}\nx")
		os.Stdout.Close()
	case "orphan": // the process is gone, its pipes are not
		heir := exec.Command(os.Args[0], "mute")
		heir.Stdout, heir.Stderr = os.Stdout, os.Stderr
		if err := heir.Start(); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	time.Sleep(20 * time.Second)
	os.Exit(0)
}

func quick() client.Retry {
	return client.Retry{Attempts: 3, Pause: time.Millisecond, MaxPause: 4 * time.Millisecond}
}

func content(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i / 251)
	}
	return b
}

// sources are the ways to a web server; each must behave the same.
func sources(t *testing.T) map[string]client.Source {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return map[string]client.Source{
		"http":  client.NewHTTP(5 * time.Second),
		"child": &client.Child{Command: []string{exe, "fetch"}},
	}
}

// cutting serves body in pieces: every answer breaks after piece bytes.
func cutting(body []byte, piece int64, ranges bool) (http.Handler, *atomic.Int32) {
	var requests atomic.Int32
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		if !ranges {
			r.Header.Del("Range")
		}
		rec := httptest.NewRecorder()
		http.ServeContent(rec, r, "x", time.Time{}, bytes.NewReader(body))
		for k, v := range rec.Header() {
			w.Header()[k] = v
		}
		w.WriteHeader(rec.Code)
		b := rec.Body.Bytes()
		if !ranges {
			piece = 2 * piece
		}
		if int64(len(b)) <= piece {
			_, _ = w.Write(b)
			return
		}
		_, _ = w.Write(b[:piece])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}), &requests
}

func TestStreamSurvivesCuts(t *testing.T) {
	body := content(1 << 20)
	for name, source := range sources(t) {
		for _, ranges := range []bool{true, false} {
			h, requests := cutting(body, 200<<10, ranges)
			web := httptest.NewServer(h)
			c := client.Client{Source: source, Retry: quick()}
			cuts := 0
			r := c.Stream(t.Context(), web.URL+"/x", int64(len(body)), func(int64, error) { cuts++ })
			got, err := io.ReadAll(r)
			r.Close()
			web.Close()
			if err != nil || !bytes.Equal(got, body) {
				t.Errorf("%s, ranges %v: got %d bytes, %v", name, ranges, len(got), err)
			}
			if cuts == 0 || int(requests.Load()) != cuts+1 {
				t.Errorf("%s, ranges %v: %d cuts, %d requests", name, ranges, cuts, requests.Load())
			}
		}
	}
}

func TestStreamGivesUp(t *testing.T) {
	for name, source := range sources(t) {
		for what, h := range map[string]http.HandlerFunc{
			"503": func(w http.ResponseWriter, r *http.Request) { http.Error(w, "no", http.StatusServiceUnavailable) },
			"nothing more": func(w http.ResponseWriter, r *http.Request) {
				http.ServeContent(w, r, "x", time.Time{}, bytes.NewReader(content(100)))
			},
		} {
			web := httptest.NewServer(h)
			c := client.Client{Source: source, Retry: quick()}
			got, err := io.ReadAll(c.Stream(t.Context(), web.URL+"/x", 200, nil))
			web.Close()
			if err == nil || !strings.Contains(err.Error(), "of 200, after 3 attempts") || len(got) > 100 {
				t.Errorf("%s, %s: got %d bytes, %v", name, what, len(got), err)
			}
		}
	}
}

func TestFetch(t *testing.T) {
	failures := 2
	mux := http.NewServeMux()
	mux.HandleFunc("/good", func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(content(1000)) })
	mux.HandleFunc("/flaky", func(w http.ResponseWriter, r *http.Request) {
		if failures--; failures >= 0 {
			http.Error(w, "later", http.StatusInternalServerError)
		}
	})
	mux.HandleFunc("/endless", func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(content(1 << 16)); err != nil {
				return
			}
		}
	})
	web := httptest.NewServer(mux)
	defer web.Close()
	for name, source := range sources(t) {
		c := client.Client{Source: source, Retry: quick()}
		if b, err := c.Fetch(t.Context(), web.URL+"/good", 1000); err != nil || len(b) != 1000 {
			t.Errorf("%s: got %d bytes, %v", name, len(b), err)
		}
		failures = 2
		if _, err := c.Fetch(t.Context(), web.URL+"/flaky", 1000); err != nil {
			t.Errorf("%s: not tried again: %v", name, err)
		}
		if _, err := c.Fetch(t.Context(), web.URL+"/missing", 1000); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: missing: %v", name, err)
		}
		for _, path := range []string{"/good", "/endless"} {
			if _, err := c.Fetch(t.Context(), web.URL+path, 999); err == nil || !strings.Contains(err.Error(), "at most 999 bytes") || !strings.Contains(err.Error(), "ask another server") {
				t.Errorf("%s: %s with a limit: %v", name, path, err)
			}
		}
		if _, err := c.Fetch(t.Context(), "http://127.0.0.1:1/x", 10); err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("%s: nobody listens: %v", name, err)
		}
	}
}

// A server that accepts and then says nothing, before or in the middle of the body, does not hold us for ever.
func TestSilentServer(t *testing.T) {
	release := make(chan struct{})
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/middle" {
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write(content(10))
			w.(http.Flusher).Flush()
		}
		<-release
	}))
	defer web.Close()
	defer close(release)
	for _, path := range []string{"/start", "/middle"} {
		c := client.Client{Source: client.NewHTTP(50 * time.Millisecond), Retry: client.Retry{Attempts: 1}}
		start := time.Now()
		_, err := io.ReadAll(c.Stream(t.Context(), web.URL+path, 1000, nil))
		if want := map[string]string{"/start": "timeout", "/middle": "the server sent nothing for 50ms: ask another server"}[path]; err == nil || !strings.Contains(err.Error(), want) || time.Since(start) > 5*time.Second {
			t.Errorf("%s: got %v after %s, want %q", path, err, time.Since(start), want)
		}
	}
}

// A server that sends a byte now and then, in one answer or in many, does not hold us either.
func TestDribblingServer(t *testing.T) {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000000")
		if r.Header.Get("Range") != "" {
			var from int
			_, _ = fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from)
			w.Header().Set("Content-Length", fmt.Sprint(1_000_000-from))
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-999999/1000000", from))
			w.WriteHeader(http.StatusPartialContent)
		}
		for r.Context().Err() == nil {
			_, _ = w.Write([]byte("x"))
			w.(http.Flusher).Flush()
			if r.URL.Path == "/many" {
				panic(http.ErrAbortHandler)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}))
	defer web.Close()
	for _, path := range []string{"/one", "/many"} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		c := client.Client{Source: client.NewHTTP(300 * time.Millisecond), Retry: quick()}
		_, err := io.ReadAll(c.Stream(ctx, web.URL+path, 1_000_000, nil))
		if want := map[string]string{"/one": "expected at least 1024 a second: ask another server", "/many": "EOF"}[path]; err == nil || ctx.Err() != nil || !strings.Contains(err.Error(), "after 3 attempts") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", path, err, want)
		}
		cancel()
	}
}

// The agent is root and its errors end on root's terminal: the process that talks to the network can neither hold it nor write there.
func TestHostileChild(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, how := range []string{"chatter", "escape", "skip", "mute", "stuck", "closed", "orphan"} {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		r, err := (&client.Child{Command: []string{exe, how}, Mute: time.Second}).Open(ctx, "http://x/", 0)
		if err == nil {
			_, err = io.ReadAll(r)
			r.Close()
		}
		if err == nil || ctx.Err() != nil || strings.ContainsFunc(strings.ReplaceAll(err.Error(), "\n", ""), unicode.IsControl) {
			t.Errorf("%s: got %q, %v", how, err, ctx.Err())
		}
		cancel()
	}
}

// The reader may be slow: only the server's silence counts.
func TestSlowReader(t *testing.T) {
	body := content(4 << 20)
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "x", time.Time{}, bytes.NewReader(body))
	}))
	defer web.Close()
	c := client.Client{Source: client.NewHTTP(700 * time.Millisecond), Retry: client.Retry{Attempts: 1}}
	r := c.Stream(t.Context(), web.URL+"/x", int64(len(body)), nil)
	if _, err := io.CopyN(io.Discard, r, 1000); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second)
	if n, err := io.Copy(io.Discard, r); err != nil || n != int64(len(body))-1000 {
		t.Errorf("got %d bytes, %v", n, err)
	}
}

// As root, the child is really another user, without a way back.
func TestChildIsUnprivileged(t *testing.T) {
	if os.Getuid() != 0 {
		testenv.Missing(t, "needs root to become somebody else")
	}
	status := make(chan string, 1)
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// While the answer is held back the child waits: look at it.
		status <- childStatus(t)
		_, _ = w.Write([]byte("x"))
	}))
	defer web.Close()
	c := client.Client{Source: &client.Child{Command: []string{publicCopy(t), "fetch"}, UID: 990, GID: 990}, Retry: client.Retry{Attempts: 1}}
	if _, err := c.Fetch(t.Context(), web.URL, 10); err != nil {
		t.Fatal(err)
	}
	s := <-status
	for _, want := range []string{"Uid:\t990\t990\t990\t990", "Gid:\t990\t990\t990\t990", "Groups:\t \n", "NoNewPrivs:\t1", "CapEff:\t0000000000000000", "CapPrm:\t0000000000000000", "CapAmb:\t0000000000000000"} {
		if !strings.Contains(s, want) {
			t.Errorf("the child's status lacks %q:\n%s", want, s)
		}
	}
}

// publicCopy is this test binary where other users can execute it.
func publicCopy(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "proa-client-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	name := dir + "/client.test"
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(name, self, 0o755)); err != nil {
		t.Fatal(err)
	}
	return name
}

func childStatus(t *testing.T) string { return childFile(t, "status") }

// childFile returns /proc/<pid>/<name> of this process's only child.
func childFile(t *testing.T, name string) string {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Error(err)
	}
	for _, task := range tasks {
		children, err := os.ReadFile("/proc/self/task/" + task.Name() + "/children")
		if err != nil {
			continue
		}
		for _, pid := range strings.Fields(string(children)) {
			b, err := os.ReadFile("/proc/" + pid + "/" + name)
			if err == nil {
				return string(b)
			}
		}
	}
	return ""
}
