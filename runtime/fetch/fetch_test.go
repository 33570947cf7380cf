package fetch

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The test binary is also a fetcher that says what it is told to, whatever it is asked.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "say" {
		text, err := strconv.Unquote(os.Args[2])
		if err != nil {
			os.Exit(1)
		}
		in := bufio.NewReader(os.Stdin)
		in.ReadString('\n') // the endpoints
		in.ReadString('\n') // a question
		fmt.Print(text)
		time.Sleep(time.Minute) // until it is killed
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func said(id uint32, kind byte, data string) string {
	h := make([]byte, frameHeader)
	putHeader(h, id, kind, len(data))
	return string(h) + data
}

// TestHostileFetcher: whatever the process without privileges sends, who asked it gets an error, soon, or the bytes.
func TestHostileFetcher(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	large := strings.Repeat("x", maxDocument/40)
	for name, c := range map[string]struct{ say, want string }{
		"an answer":          {said(1, kindData, "doc") + said(1, kindEnd, ""), ""},
		"an answer in parts": {said(1, kindData, "d") + said(1, kindData, "") + said(1, kindData, "oc") + said(1, kindEnd, "ignored"), ""},
		"nobody asked":       {said(7, kindData, "x"), "question 7, which was not asked"},
		"unknown kind":       {said(1, 'z', ""), "unknown kind 'z'"},
		"too large a frame":  {"\x00\x00\x00\x01d\xff\xff\xff", "a frame of 16777215 bytes"},
		"too large a whole":  {strings.Repeat(said(1, kindData, large[:2000]), 20), "document of more than"},
		"an error":           {said(1, kindError, "bad \xff"), "bad \ufffd"},
		"not found":          {said(1, kindNotFound, "no such tag"), "no such tag"},
		"a line of text":     {"Segmentation fault\n", "a frame of 7238753 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			client, err := Start(t.Context(), Process{Args: []string{self, "say", strconv.Quote(c.say)}, UID: os.Getuid(), GID: os.Getgid()}, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			var b limited
			err = client.ask(t.Context(), question{Op: "manifest", Name: "latest"}, &b)
			if c.want == "" && (err != nil || b.String() != "doc") {
				t.Errorf("%q %v", b.String(), err)
			}
			if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if name == "not found" && !errors.Is(err, ErrNotFound) {
				t.Errorf("%v is not ErrNotFound", err)
			}
		})
	}
}

// limited is capped with a limit that a command line can hold.
type limited struct{ bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	if l.Len()+len(p) > 10000 {
		return 0, errors.New("document of more than 10000 bytes")
	}
	return l.Buffer.Write(p)
}

func TestCapped(t *testing.T) {
	var b bytes.Buffer
	w := &capped{&b}
	if _, err := w.Write(make([]byte, maxDocument)); err != nil {
		t.Error(err)
	}
	if _, err := w.Write([]byte("x")); err == nil || b.Len() != maxDocument {
		t.Errorf("%d bytes are kept, %v", b.Len(), err)
	}
}

// FuzzFrames: no bytes from the fetcher do more than end the conversation; each question gets one answer at most.
func FuzzFrames(f *testing.F) {
	f.Add([]byte(said(1, kindData, "doc") + said(1, kindEnd, "") + said(2, kindError, "x")))
	f.Add([]byte(said(1, kindEnd, "") + said(1, kindData, "late")))
	f.Add([]byte("\x00\x00\x00\x02n\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c := &Client{pending: make(map[uint32]*answer)}
		var got [3]bytes.Buffer
		answers := make([]*answer, 3)
		for i := range answers {
			answers[i] = &answer{w: &got[i], done: make(chan error, 1)}
			c.pending[uint32(i)] = answers[i]
		}
		r, buf := bytes.NewReader(b), make([]byte, maxFrame)
		var err error
		for err == nil {
			var fr frame
			if fr, err = readFrame(r, buf); err == nil {
				err = c.deliver(fr)
			}
		}
		for i, a := range answers {
			if _, waits := c.pending[uint32(i)]; waits == (len(a.done) == 1) {
				t.Errorf("question %d: waiting %v, answered %d times", i, waits, len(a.done))
			}
			if got[i].Len() > len(b) {
				t.Errorf("%d bytes became %d", len(b), got[i].Len())
			}
		}
	})
}
