package cmdline

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want []Word
	}{
		{"", nil},
		{" \t\n", nil},
		{"quiet", []Word{{Key: "quiet"}}},
		{"a=b  c=\n", []Word{{"a", "b", true}, {"c", "", true}}},
		{"a=b=c", []Word{{"a", "b=c", true}}},
		{`a="b c" d`, []Word{{"a", "b c", true}, {Key: "d"}}},
		{`"a=b c" d`, []Word{{"a", "b c", true}, {Key: "d"}}},
		{`"a b"`, []Word{{Key: "a b"}}},
		{`a=b" "c`, []Word{{"a", `b" "c`, true}}},
		{`a="b`, []Word{{"a", "b", true}}},
		{`a="b c d`, []Word{{"a", "b c d", true}}},
		{`=x`, []Word{{Key: "=x"}}},
		{`=x=y`, []Word{{"=x", "y", true}}},
		{`"a=""b"""`, []Word{{"a", `"b""`, true}}},
		{`""`, []Word{{Key: ""}}},
		{`"`, []Word{{Key: ""}}},
		{`a=""`, []Word{{"a", "", true}}},
		{"a -- a=1", []Word{{Key: "a"}, {Key: "--"}, {"a", "1", true}}},
		{"a=é b", []Word{{"a", "é", true}, {Key: "b"}}},
		{"a b\x00c", []Word{{Key: "a"}, {Key: "b"}}},
	} {
		if got := Parse(tt.in).Words(); !slices.Equal(got, tt.want) {
			t.Errorf("Parse(%q): got %+v, want %+v", tt.in, got, tt.want)
		}
	}
}

func TestGetAllOnce(t *testing.T) {
	l := Parse("console=tty0 quiet console=ttyS0,115200 panic=10")
	if got := l.All("console"); !slices.Equal(got, []string{"tty0", "ttyS0,115200"}) {
		t.Errorf("All: got %q", got)
	}
	if got, ok := l.Get("console"); got != "ttyS0,115200" || !ok {
		t.Errorf("Get: got %q, %v; want the last one", got, ok)
	}
	if got, ok := l.Get("quiet"); got != "" || !ok {
		t.Errorf("Get(quiet): got %q, %v", got, ok)
	}
	if _, ok := l.Get("Panic"); ok {
		t.Error("Get: keys are case-sensitive")
	}
	if got, err := l.Once("panic"); got != "10" || err != nil {
		t.Errorf("Once: got %q, %v", got, err)
	}
	if _, err := l.Once("console"); !errors.Is(err, ErrRepeated) {
		t.Errorf("Once(console): got %v, want ErrRepeated", err)
	}
	if _, err := l.Once("root"); !errors.Is(err, ErrAbsent) {
		t.Errorf("Once(root): got %v, want ErrAbsent", err)
	}
}

func TestProa(t *testing.T) {
	hash := strings.Repeat("0f", 32)
	good := "proa.roothash=" + hash + " proa.hashoffset=8192 quiet"
	got, offset, err := Proa(Parse(good))
	if err != nil || got.String() != hash || offset != 8192 {
		t.Fatalf("got %v, %d, %v", got, offset, err)
	}
	for name, line := range map[string]string{
		"no hash":               "proa.hashoffset=8192",
		"no offset":             "proa.roothash=" + hash,
		"second hash appended":  good + " proa.roothash=" + hash,
		"second behind dashes":  good + " -- proa.roothash=" + hash,
		"second in quotes":      good + ` "proa.roothash=` + hash + `"`,
		"second offset":         good + " proa.hashoffset=4096",
		"second without value":  good + " proa.hashoffset",
		"unknown key repeated":  good + " proa.new=1 proa.new=1",
		"short hash":            "proa.roothash=00 proa.hashoffset=8192",
		"upper-case hash":       strings.ToUpper(hash) + " proa.hashoffset=8192",
		"offset zero":           "proa.roothash=" + hash + " proa.hashoffset=0",
		"offset negative":       "proa.roothash=" + hash + " proa.hashoffset=-4096",
		"offset unaligned":      "proa.roothash=" + hash + " proa.hashoffset=100",
		"offset with sign":      "proa.roothash=" + hash + " proa.hashoffset=+8192",
		"offset with zeros":     "proa.roothash=" + hash + " proa.hashoffset=08192",
		"offset past the range": "proa.roothash=" + hash + " proa.hashoffset=99999999999999999999",
	} {
		if _, _, err := Proa(Parse(line)); err == nil {
			t.Errorf("%s: no error for %q", name, line)
		}
	}
}

// nextArg is a transcription of the kernel's next_arg (lib/cmdline.c), byte for byte, as the oracle of FuzzParse.
func nextArg(args []byte) (w Word, rest []byte) {
	at := func(i int) byte {
		if i < len(args) {
			return args[i]
		}
		return 0
	}
	i, equals, inQuote, quoted := 0, 0, false, false
	if at(0) == '"' {
		args, inQuote, quoted = args[1:], true, true
	}
	for ; at(i) != 0; i++ {
		if isSpace(rune(at(i))) && !inQuote {
			break
		}
		if equals == 0 && at(i) == '=' {
			equals = i
		}
		if at(i) == '"' {
			inQuote = !inQuote
		}
	}
	end := i
	if quoted && i > 0 && at(i-1) == '"' {
		end--
	}
	if equals == 0 {
		w = Word{Key: string(args[:end])}
	} else {
		val := equals + 1
		w = Word{Key: string(args[:equals]), HasValue: true}
		if at(val) == '"' {
			val++
			if end == i && at(i-1) == '"' {
				end--
			}
		}
		w.Value = string(args[min(val, max(end, val)):max(end, val)])
	}
	if i < len(args) {
		i++
	}
	return w, args[i:]
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"", "a=b c", `a="b c" "d e=f"`, `"a="b c"" d`, `x="`, `=""= "`, "a\vb"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		text, _, _ := strings.Cut(s, "\x00")
		var want []Word
		for rest := []byte(text); ; {
			rest = []byte(strings.TrimLeftFunc(string(rest), isSpace))
			if len(rest) == 0 {
				break
			}
			var w Word
			w, rest = nextArg(rest)
			want = append(want, w)
		}
		if got := Parse(s).Words(); !slices.Equal(got, want) {
			t.Errorf("Parse(%q): got %+v, the kernel %+v", s, got, want)
		}
		_, _, _ = Proa(Parse(s))
	})
}
