package digest

import (
	"errors"
	"io"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	d := Of([]byte("proa"))
	if got, err := Parse(d.String()); err != nil || got != d {
		t.Fatalf("got %v, %v; want %v", got, err, d)
	}
	for _, s := range []string{"", "00", strings.ToUpper(d.String()), strings.Repeat("g", 64), d.String() + "0"} {
		if _, err := Parse(s); err == nil {
			t.Errorf("Parse(%q): no error", s)
		}
	}
}

func TestReader(t *testing.T) {
	const content = "one line through everything"
	want := Of([]byte(content))
	for _, tt := range []struct {
		name, content string
		size          int64
		sum           SHA256
		ok            bool
	}{
		{"right", content, int64(len(content)), want, true},
		{"cut", content[:5], int64(len(content)), want, false},
		{"too long", content + "x", int64(len(content)), want, false},
		{"swapped", strings.ToUpper(content), int64(len(content)), want, false},
		{"empty", "", 0, Of(nil), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := io.ReadAll(NewReader("x", strings.NewReader(tt.content), tt.size, tt.sum))
			var m *MismatchError
			if tt.ok != (err == nil) || !tt.ok && !errors.As(err, &m) {
				t.Errorf("got error %v, want ok=%v", err, tt.ok)
			}
		})
	}
}

// An endless stream must end one byte past the expected size, not in memory.
func TestReaderEndless(t *testing.T) {
	n, err := io.Copy(io.Discard, NewReader("endless", zeros{}, 1000, SHA256{}))
	if err == nil || n > 1000 {
		t.Errorf("read %d bytes, error %v", n, err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }
