package terminal

import "testing"

func TestKeys(t *testing.T) {
	tests := []struct{ typed, sent, commands string }{
		{"ls\r", "ls\r", ""},
		{"\x01x", "", "x"},
		{"a\x01rb\x01p\x01h", "ab", "rph"},
		{"\x01\x01x", "\x01x", ""},
		{"\x01ax", "x", ""},
		{"\x01zx", "x", ""},
		{"\x03\x04\xc3\xa9", "\x03\x04\xc3\xa9", ""},
		{"x\x01", "x", ""},
	}
	for _, tt := range tests {
		var k keys
		var sent, commands []byte
		for _, b := range []byte(tt.typed) {
			send, c := k.next(b)
			if send {
				sent = append(sent, b)
			}
			if c != none {
				commands = append(commands, byte(c))
			}
		}
		if string(sent) != tt.sent || string(commands) != tt.commands {
			t.Errorf("%q: got %q and commands %q, want %q and %q", tt.typed, sent, commands, tt.sent, tt.commands)
		}
	}
}
