package vm

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestWaitFor(t *testing.T) {
	tests := []struct {
		name  string
		bytes []string
		wait  []string // each must match, in order
		want  []string
	}{
		{"lines", []string{"one\r\ntwo\r\nthree\r\n"}, []string{"^two$", "three"}, []string{"two", "three"}},
		{"split across reads", []string{"sta", "rted\n"}, []string{"^started$"}, []string{"started"}},
		{"escape sequences", []string{"\x1b[2J\x1b[01;01H\x1b[0m[  \x1b[0;32mOK\x1b[0m  ] Reached\n"}, []string{`^\[  OK  \] Reached$`}, []string{"[  OK  ] Reached"}},
		{"prompt without an end", []string{"boom\nproa login: "}, []string{"login:"}, []string{"proa login:"}},
		{"position moves", []string{"ready\nready\n"}, []string{"ready", "ready"}, []string{"ready", "ready"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := NewConsole(&strings.Builder{})
			c.PowerOn(1)
			for _, b := range tt.bytes {
				c.Write([]byte(b))
			}
			for i, w := range tt.wait {
				line, err := c.WaitFor(t.Context(), regexp.MustCompile(w))
				if err != nil {
					t.Fatal(err)
				}
				if line.Text != tt.want[i] || line.Boot != 1 {
					t.Errorf("got %+v, want %q of boot 1", line, tt.want[i])
				}
			}
		})
	}
}

func TestWaitForSeesLaterLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewConsole(&strings.Builder{})
		go func() {
			time.Sleep(3 * time.Second)
			fmt.Fprintln(c, "late")
		}()
		line, err := c.WaitFor(t.Context(), regexp.MustCompile("late"))
		if err != nil {
			t.Fatal(err)
		}
		if line.At != 3*time.Second {
			t.Errorf("got a line at %v, want 3s", line.At)
		}
	})
}

func TestWaitForDoesNotMatchTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewConsole(&strings.Builder{})
		fmt.Fprint(c, "login: ")
		re := regexp.MustCompile("login")
		if _, err := c.WaitFor(t.Context(), re); err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(c, "core\n") // Completes the line that was returned already.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if line, err := c.WaitFor(ctx, re); err == nil {
			t.Errorf("got %q again, want a timeout", line.Text)
		}
		fmt.Fprint(c, "login: ")
		if _, err := c.WaitFor(t.Context(), re); err != nil {
			t.Error(err)
		}
	})
}

func TestWaitForWaitsForTheEndOfALine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewConsole(&strings.Builder{})
		done := make(chan struct{})
		go func() {
			defer close(done)
			for _, s := range []string{"took ", "12", "34 ms", "\n"} {
				fmt.Fprint(c, s)
				time.Sleep(promptPause / 2)
			}
		}()
		line, err := c.WaitFor(t.Context(), regexp.MustCompile("took"))
		if err != nil || line.Text != "took 1234 ms" {
			t.Errorf("got %q, %v, want the whole line", line.Text, err)
		}
		<-done
	})
}

func TestWaitForErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewConsole(&strings.Builder{})
		for i := range 60 {
			fmt.Fprintf(c, "line %d\n", i)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := c.WaitFor(ctx, regexp.MustCompile("never"))
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v, want a deadline error", err)
		}
		for _, want := range []string{"/never/", "last 40 of 60", "line 20\n", "line 59"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want it to contain %q", err, want)
			}
		}
		if strings.Contains(err.Error(), "line 19\n") {
			t.Errorf("got %v, want 40 lines only", err)
		}
	})
}

func TestWaitForEndsWhenTheMachineIsOff(t *testing.T) {
	c := NewConsole(&strings.Builder{})
	off := errors.New("the machine is off")
	fmt.Fprint(c, "bye\n")
	c.PowerOff(off)
	if _, err := c.WaitFor(t.Context(), regexp.MustCompile("bye")); err != nil {
		t.Errorf("got %v, want the line from before the end", err)
	}
	if _, err := c.WaitFor(t.Context(), regexp.MustCompile("hello")); !errors.Is(err, off) {
		t.Errorf("got %v, want %v", err, off)
	}
	c.PowerOn(2)
	fmt.Fprint(c, "hello\n")
	if line, err := c.WaitFor(t.Context(), regexp.MustCompile("hello")); err != nil || line.Boot != 2 {
		t.Errorf("got %+v, %v, want a line of boot 2", line, err)
	}
}

func TestLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		c := NewConsole(&log)
		c.PowerOn(1)
		time.Sleep(1500 * time.Millisecond)
		fmt.Fprint(c, "\x1b[1mhello\x1b[0m\r\nhalf")
		c.PowerOff(errors.New("power cut"))
		want := "    0.000 == boot 1\n    1.500 hello\n    1.500 half\n    1.500 == power cut\n"
		if log.String() != want {
			t.Errorf("got %q, want %q", log.String(), want)
		}
	})
}

func FuzzConsole(f *testing.F) {
	f.Add([]byte("\x1b[0;1mhi\x1b]0;title\x07\r\n\xff\xfe"), 3)
	f.Fuzz(func(t *testing.T, b []byte, cut int) {
		c := NewConsole(&strings.Builder{})
		cut = min(max(cut, 0), len(b))
		c.Write(b[:cut])
		c.Write(b[cut:])
		c.PowerOff(errors.New("off"))
		for _, l := range c.Lines(0) {
			if strings.ContainsAny(l.Text, "\x1b\r\n\x00") {
				t.Errorf("got %q, want no control characters", l.Text)
			}
		}
	})
}
