package quadlet

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// split cuts a value into words at white space, as systemd does: "..." and '...' keep what is in them together. With escapes, C escapes
// are read inside and outside of quotes; without, a backslash is a letter like others.
func split(value string, escapes bool) ([]string, error) {
	var words []string
	var word strings.Builder
	in, quote := false, byte(0)
	for i := 0; i < len(value); i++ {
		c := value[i]
		switch {
		case c == '\\' && escapes:
			n, err := unescape(&word, value[i:])
			if err != nil {
				return nil, err
			}
			in = true
			i += n - 1
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
			word.WriteByte(c)
		case c == '"' || c == '\'':
			in, quote = true, c
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			if in {
				words = append(words, word.String())
				word.Reset()
				in = false
			}
		default:
			in = true
			word.WriteByte(c)
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("the quote %c is not closed", quote)
	}
	if in {
		words = append(words, word.String())
	}
	return words, nil
}

// unescape reads one escape of systemd.syntax(7) and says how long it was.
func unescape(b *strings.Builder, s string) (int, error) {
	if len(s) < 2 {
		return 0, errors.New("a backslash is the last letter")
	}
	if i := strings.IndexByte(`abfnrtv\"'s`, s[1]); i >= 0 {
		b.WriteByte("\a\b\f\n\r\t\v\\\"' "[i])
		return 2, nil
	}
	digits, base := 0, 16
	start := 2
	switch {
	case s[1] == 'x':
		digits = 2
	case s[1] == 'u':
		digits = 4
	case s[1] == 'U':
		digits = 8
	case s[1] >= '0' && s[1] <= '7':
		digits, base, start = 3, 8, 1
	}
	if digits == 0 || len(s) < start+digits {
		return 0, fmt.Errorf("unknown escape %.2q: a backslash itself is written \\\\", s)
	}
	n, err := strconv.ParseUint(s[start:start+digits], base, 32)
	one := s[1] != 'u' && s[1] != 'U'
	if err != nil || n == 0 || one && n > 255 || !one && !utf8.ValidRune(rune(n)) {
		return 0, fmt.Errorf("bad escape %q", s[:start+digits])
	}
	if one {
		b.WriteByte(byte(n))
	} else {
		b.WriteRune(rune(n))
	}
	return start + digits, nil
}

// quote writes a word so that systemd's command lines read it as that word again. Specifiers and variables stay what they are.
func quote(word string) string {
	if word != "" && word != ";" && strings.IndexFunc(word, special) < 0 && utf8.ValidString(word) {
		return word
	}
	var b strings.Builder
	b.WriteByte('"')
	for i := 0; i < len(word); {
		r, size := utf8.DecodeRuneInString(word[i:])
		switch {
		case r == utf8.RuneError && size <= 1, r < ' ' && r != '\t' && r != '\n', r == 0x7f:
			fmt.Fprintf(&b, `\x%02x`, word[i])
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case special(r) && r > 0x7f:
			fmt.Fprintf(&b, `\U%08x`, r)
		default:
			b.WriteRune(r)
		}
		i += size
	}
	b.WriteByte('"')
	return b.String()
}

// special are letters that a bare word cannot have.
func special(r rune) bool {
	return r <= ' ' || r == 0x7f || r == '"' || r == '\'' || r == '\\' || r >= 0x80 && r < 0xa0 || r == 0x2028 || r == 0x2029
}

// commandLine quotes and joins.
func commandLine(words []string) string {
	var b strings.Builder
	for i, w := range words {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(quote(w))
	}
	return b.String()
}
