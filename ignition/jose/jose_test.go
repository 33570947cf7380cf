package jose

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

// The key and the signature of RFC 7515, A.3 (ES256), and ones that jose(1) has made (ES512).
const (
	es256Key       = `{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}`
	es256Payload   = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
	es256Signature = "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
	es512Key       = `{"kty":"EC","crv":"P-521","x":"AEixRzI03op5Xx-P3atOPtdGEJGYFY2yPcKM5ANfcbeIxmXhwzhektigVX3UL_z_P4tV9CF80EJVkmIJJBQxWG9G","y":"AKjrtUL01tZZYGB-A20gtdbAN54lBq5fA6EeaeD7ijI4gn-mwHAJFrYairXEnoI7tL-1ZuT3XhE37L3v5oZN-XHX"}`
	es512Signature = "AAm8lLy4fHGNfqArSm1CXFyNQecHW9-desc9e4tbrYtnMvIXM9COfCt4Ihgadrrt2MCbNqcTPfzAPPiZVXYS6moOALnpizcBpoS8o_39C3Ru37AneJZaKiZN1zV62ANrL1G5FStS42IUoMsXnKJNVEIfqF0REJWGwP8dE741kx8yvVUs"
)

func key(t *testing.T, text string) (k Key) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &k); err != nil {
		t.Fatal(err)
	}
	return k
}

func TestSignatures(t *testing.T) {
	for name, tc := range map[string]struct{ key, alg, payload, signature string }{
		"ES256": {es256Key, `{"alg":"ES256"}`, es256Payload, es256Signature},
		"ES512": {es512Key, `{"alg":"ES512"}`, Encode([]byte("Payload")), es512Signature},
	} {
		k, protected := key(t, tc.key), Encode([]byte(tc.alg))
		flat := `{"payload":"` + tc.payload + `","protected":"` + protected + `","signature":"` + tc.signature + `"}`
		general := `{"payload":"` + tc.payload + `","signatures":[{"protected":"AA","signature":"AA"},{"protected":"` + protected + `","signature":"` + tc.signature + `"}]}`
		for _, doc := range []string{flat, general} {
			s, err := ParseSigned([]byte(doc))
			if err != nil || !s.SignedBy(k) {
				t.Errorf("%s: %v, not signed: %s", name, err, doc)
			}
		}
		other := key(t, map[string]string{"ES256": es512Key, "ES512": es256Key}[name])
		s, err := ParseSigned([]byte(flat))
		if err != nil || s.SignedBy(other) {
			t.Errorf("%s: %v, signed by another key", name, err)
		}
		for what, doc := range map[string]string{
			"payload":   strings.Replace(flat, tc.payload[:6], "AAAAAA", 1),
			"signature": strings.Replace(flat, tc.signature[10:16], "AAAAAA", 1),
			"short":     strings.Replace(flat, tc.signature, tc.signature[:40], 1),
			"none":      strings.Replace(flat, protected, Encode([]byte(`{"alg":"none"}`)), 1),
			"another":   strings.Replace(flat, protected, Encode([]byte(`{"alg":"ES384"}`)), 1),
			"critical":  strings.Replace(flat, protected, Encode([]byte(`{"alg":"`+name+`","crit":["x"]}`)), 1),
		} {
			if s, err := ParseSigned([]byte(doc)); err == nil && s.SignedBy(k) {
				t.Errorf("%s: a wrong %s is a signature", name, what)
			}
		}
	}
}

// The thumbprints are what jose(1) says of these keys: `jose jwk thp -a S256` and S1.
func TestThumbprints(t *testing.T) {
	k := key(t, es256Key)
	if got, want := k.Thumbprint(), "oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	k.Alg, k.KeyOps = "ES256", []string{"verify"}
	if !k.Is("oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U") || !k.Is(k.ThumbprintSHA1()) || k.Is("") || len(k.ThumbprintSHA1()) != 27 {
		t.Error("members that are not required count")
	}
}

// The key agreement of RFC 7518, appendix C.
func TestDeriveOfTheRFC(t *testing.T) {
	z := []byte{158, 86, 217, 29, 129, 113, 53, 211, 114, 131, 66, 131, 191, 132, 38, 156, 251, 49, 110, 163, 218, 128, 106, 72, 246, 218, 167, 121, 140, 254, 144, 196}
	if got := Encode(derive("A128GCM", 16, z, []byte("Alice"), []byte("Bob"))); got != "VqqN6vgjbSBcIijNcacQGg" {
		t.Errorf("got %s", got)
	}
	if got := Derive(z, nil, nil); len(got) != KeySize {
		t.Errorf("got %x", got)
	}
}

func TestSealed(t *testing.T) {
	secret := bytes.Repeat([]byte{7}, KeySize)
	s, err := Seal(map[string]string{"alg": "dir", "enc": "A256GCM"}, secret, []byte("hush"))
	if err != nil {
		t.Fatal(err)
	}
	read, err := ParseSealed(s.String() + "\n")
	if err != nil || string(read.Header) != `{"alg":"dir","enc":"A256GCM"}` {
		t.Fatalf("%v, %s", err, read.Header)
	}
	raw, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var flat Sealed
	if err := json.Unmarshal(raw, &flat); err != nil {
		t.Fatal(err)
	}
	for _, d := range []*Sealed{s, read, &flat} {
		if got, err := d.Open(secret); err != nil || string(got) != "hush" {
			t.Errorf("got %q, %v", got, err)
		}
		if _, err := d.Open(bytes.Repeat([]byte{8}, KeySize)); err == nil || !strings.Contains(err.Error(), "not sealed with this key") {
			t.Errorf("another key: %v", err)
		}
	}
	parts := strings.Split(s.String(), ".")
	for n := range parts {
		if n == 1 {
			continue
		}
		damaged := append([]string(nil), parts...)
		damaged[n] = "A" + damaged[n][1:]
		if damaged[n] == parts[n] {
			damaged[n] = "B" + damaged[n][1:]
		}
		if d, err := ParseSealed(strings.Join(damaged, ".")); err == nil {
			if _, err := d.Open(secret); err == nil {
				t.Errorf("part %d may be damaged", n)
			}
		}
	}
	for _, text := range []string{"", "a.b.c", "....", parts[0] + ".AA." + strings.Join(parts[2:], "."), strings.Replace(s.String(), ".", "=.", 1)} {
		if d, err := ParseSealed(text); err == nil {
			if _, err := d.Open(secret); err == nil {
				t.Errorf("%q is a sealed document", text)
			}
		}
	}
}

// No point but one on its curve is calculated with.
func TestPoints(t *testing.T) {
	good := key(t, es256Key)
	if p, err := good.Point(); err != nil || p.Key().Thumbprint() != good.Thumbprint() {
		t.Errorf("got %v", err)
	}
	for want, change := range map[string]func(*Key){
		"not on the curve":     func(k *Key) { k.Y = k.X },
		"unknown curve":        func(k *Key) { k.Curve = "secp256k1" },
		"wrong type":           func(k *Key) { k.Type = "OKP" },
		"expected 32 bytes":    func(k *Key) { k.X = Encode(make([]byte, 33)) },
		"decode base64url":     func(k *Key) { k.X = "+" + k.X[1:] },
		"found 0":              func(k *Key) { k.X, k.Y = "", "" },
		"on the curve P-256":   func(k *Key) { k.X = Encode(make([]byte, 32)); k.Y = k.X },
		"expected 66 bytes":    func(k *Key) { k.Curve = "P-521" },
		"point is not on the ": func(k *Key) { k.X = Encode(bytes.Repeat([]byte{255}, 32)) },
	} {
		k := good
		change(&k)
		if _, err := k.Point(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	set, err := ParseSet([]byte(`{"keys":[{"kty":"oct","k":"AA"},7,` + es256Key + `]}`))
	if err != nil || len(set.Keys) != 1 {
		t.Errorf("got %v, %v", set, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"payload":"`+es256Payload+`","protected":"eyJhbGciOiJFUzI1NiJ9","signature":"`+es256Signature+`"}`), "a.b.c.d.e")
	f.Add([]byte(`{"keys":[`+es256Key+`,`+es512Key+`]}`), "e30..AAAAAAAAAAAAAAAA.AAAA.AAAAAAAAAAAAAAAAAAAAAA")
	f.Fuzz(func(t *testing.T, raw []byte, compact string) {
		if set, err := ParseSet(raw); err == nil {
			for _, k := range set.Keys {
				if _, err := k.Point(); err != nil {
					t.Error(err)
				}
			}
		}
		if s, err := ParseSigned(raw); err == nil {
			s.SignedBy(Key{Type: "EC", Curve: "P-256"})
		}
		if d, err := ParseSealed(compact); err == nil {
			if again, err := ParseSealed(d.String()); err != nil || again.String() != d.String() {
				t.Errorf("%q comes back as %v, %v", compact, again, err)
			}
			_, _ = d.Open(make([]byte, KeySize))
		}
	})
}
