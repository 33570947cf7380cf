package pin

import (
	"strings"
	"testing"
)

const thumbprint = "oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U"

func TestParse(t *testing.T) {
	for _, tc := range []struct {
		name, config string
		network      bool
	}{
		{"tang", `{"url":"http://tang.example.com:7500/a","thp":"` + thumbprint + `"}`, true},
		{"tang", `{"url":"https://[::1]","thp":"` + thumbprint[:27] + `"}`, true},
		{"tang", `{"url":"http://h","adv":{"payload":"x"}}`, false},
		{"tpm2", `{}`, false},
		{"tpm2", ` {"hash":"sha256","key":"ecc"} `, false},
		{"sss", `{"pins":{"tpm2":{}}}`, false},
		{"sss", `{"t":2,"pins":{"tpm2":[{}],"tang":[{"url":"http://h","thp":"` + thumbprint + `"},{"url":"http://g","adv":{}}]}}`, true},
		{"sss", `{"t":1,"pins":{"sss":{"t":1,"pins":{"tang":{"url":"http://h","thp":"` + thumbprint + `"}}}}}`, true},
	} {
		p, err := Parse(tc.name, tc.config)
		if err != nil || p.Name() != tc.name || p.NeedsNetwork() != tc.network {
			t.Errorf("%s %s: got %s, network %v, %v", tc.name, tc.config, p.Name(), p.NeedsNetwork(), err)
		}
	}
	p, err := Parse("sss", `{"t":2,"pins":{"tpm2":{},"tang":[{"url":"http://h","adv":{}},{"url":"http://g","adv":{}}]}}`)
	if err != nil || p.SSS.Threshold != 2 || len(p.SSS.Pins) != 3 || p.SSS.Pins[1].Tang.URL != "http://g" || p.SSS.Pins[2].TPM2 == nil {
		t.Errorf("got %+v, %v", p.SSS, err)
	}
}

func TestRefused(t *testing.T) {
	many := `{"url":"http://h","adv":{}}` + strings.Repeat(`,{"url":"http://h","adv":{}}`, MaxPins)
	deep := `{"tpm2":{}}`
	for range maxDepth {
		deep = `{"sss":{"pins":` + deep + `}}`
	}
	for _, tc := range []struct{ name, config, want string }{
		{"yubikey", `{}`, `unknown pin "yubikey": expected tang, tpm2 or sss`},
		{"", `{}`, `unknown pin ""`},
		{"tang", ``, "expected an object"},
		{"tang", `[]`, "expected an object"},
		{"tang", `{} {}`, "found more"},
		{"tang", `{"url":"http://h"}`, "expected a thumbprint"},
		{"tang", `{"url":"http://h","thp":"x"}`, `found "x"`},
		{"tang", `{"url":"http://h","thp":"` + strings.Repeat("/", 43) + `"}`, "expected a thumbprint"},
		{"tang", `{"thp":"` + thumbprint + `"}`, "expected an url"},
		{"tang", `{"url":"ftp://h","thp":"` + thumbprint + `"}`, "expected an url"},
		{"tang", `{"url":"http://h?x","thp":"` + thumbprint + `"}`, "expected an url"},
		{"tang", `{"url":"http://h","adv":"/etc/adv.jws"}`, "found the name of a file"},
		{"tang", `{"url":"http://h","thumbprint":"x"}`, `unknown field "thumbprint"`},
		{"tpm2", `{"pcr_ids":"7"}`, `unknown field "pcr_ids"`},
		{"tpm2", `{"key":"rsa"}`, `expected "hash": "sha256"`},
		{"sss", `{"t":1,"pins":{}}`, "which is 0, found 1"},
		{"sss", `{"t":0,"pins":{"tpm2":{}}}`, "found 0"},
		{"sss", `{"t":2,"pins":{"tpm2":{}}}`, "which is 1, found 2"},
		{"sss", `{"pins":{"yubikey":{}}}`, "pin sss: unknown pin"},
		{"sss", `{"pins":{"tpm2":[7]}}`, "expected an object"},
		{"sss", `{"pins":{"tpm2":7}}`, "expected an object"},
		{"sss", `{"pins":{"tang":[` + many + `]}}`, "at most 16 pins, found 17"},
		{"sss", `{"pins":` + deep + `}`, "at most 4 times"},
	} {
		if _, err := Parse(tc.name, tc.config); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s %.80s: got %v, want %q", tc.name, tc.config, err, tc.want)
		}
	}
}
