package clevis

import (
	"crypto/elliptic"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/proa-os/proa/ignition/jose"
	"github.com/proa-os/proa/ignition/pin"
	"github.com/proa-os/proa/ignition/tang/tangtest"
)

// fakeTPM keeps what it seals.
type fakeTPM struct{ sealed []byte }

func (f *fakeTPM) Seal(secret []byte) (public, private []byte, err error) {
	f.sealed = secret
	return []byte("public"), []byte("private"), nil
}

func (f *fakeTPM) Unseal(public, private []byte) ([]byte, error) {
	if string(public)+string(private) != "publicprivate" || f.sealed == nil {
		return nil, errors.New("another TPM has sealed it")
	}
	return f.sealed, nil
}

// lab is a few servers, of which some can be away.
type lab struct {
	servers []*tangtest.Server
	urls    []string
	away    map[int]bool
}

func newLab(t *testing.T, n int) *lab {
	t.Helper()
	l := &lab{away: map[int]bool{}}
	for i := range n {
		s, err := tangtest.New(elliptic.P256())
		if err != nil {
			t.Fatal(err)
		}
		h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if l.away[i] {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			s.ServeHTTP(w, r)
		}))
		t.Cleanup(h.Close)
		l.servers, l.urls = append(l.servers, s), append(l.urls, h.URL)
	}
	return l
}

func (l *lab) config(n int) string {
	return fmt.Sprintf(`{"url":"%s","thp":"%s"}`, l.urls[n], l.servers[n].Thumbprint())
}

func lock(t *testing.T, k *Locker, name, config string) *jose.Sealed {
	t.Helper()
	p, err := pin.Parse(name, config)
	if err != nil {
		t.Fatal(err)
	}
	s, err := k.Lock(t.Context(), p, []byte("hush"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// An offline lock is made of an advertisement alone: nobody is asked before it is opened.
func TestTang(t *testing.T) {
	l := newLab(t, 1)
	offline := fmt.Sprintf(`{"url":"%s","thp":"%s","adv":%s}`, l.urls[0], l.servers[0].Thumbprint(), l.servers[0].Advertisement())
	for _, config := range []string{l.config(0), offline} {
		l.away[0] = config == offline
		s := lock(t, new(Locker), "tang", config)
		l.away[0] = true
		var of *ServerError
		if _, err := new(Locker).Open(t.Context(), s); !errors.As(err, &of) || of.URL != l.urls[0] || len(of.Thumbprint) != 43 || !strings.Contains(err.Error(), "503") {
			t.Errorf("away: %v", err)
		}
		l.away[0] = false
		if got, err := new(Locker).Open(t.Context(), s); err != nil || string(got) != "hush" {
			t.Errorf("got %q, %v", got, err)
		}
	}
	p, err := pin.Parse("tang", fmt.Sprintf(`{"url":"%s","thp":"%s"}`, l.urls[0], strings.Repeat("A", 43)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := new(Locker).Lock(t.Context(), p, nil); err == nil || !strings.Contains(err.Error(), l.urls[0]+", key AAAA") {
		t.Errorf("another thumbprint: %v", err)
	}
}

// Every combination of two servers and the TPM: as many as the threshold open, fewer do not, and the error says who did not answer.
func TestThreshold(t *testing.T) {
	l := newLab(t, 2)
	for threshold := 1; threshold <= 3; threshold++ {
		k := &Locker{TPM: &fakeTPM{}}
		s := lock(t, k, "sss", fmt.Sprintf(`{"t":%d,"pins":{"tang":[%s,%s],"tpm2":{}}}`, threshold, l.config(0), l.config(1)))
		for there := range 8 {
			l.away[0], l.away[1] = there&1 == 0, there&2 == 0
			opener, count := new(Locker), there&1+there>>1&1+there>>2&1
			if there&4 != 0 {
				opener = k
			}
			got, err := opener.Open(t.Context(), s)
			if (err == nil && string(got) == "hush") != (count >= threshold) {
				t.Errorf("threshold %d, there %03b: got %q, %v", threshold, there, got, err)
			}
			if err != nil && l.away[1] && !strings.Contains(err.Error(), l.urls[1]) {
				t.Errorf("the error does not name the server: %v", err)
			}
			if want := fmt.Sprintf("opened %d of 3 locks, and %d are needed", count, threshold); err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %q", err, want)
			}
		}
	}
	l.away[0], l.away[1] = false, false
	nested := lock(t, new(Locker), "sss", fmt.Sprintf(`{"t":2,"pins":{"sss":{"t":1,"pins":{"tang":[%s]}},"tang":%s}}`, l.config(0), l.config(1)))
	if got, err := new(Locker).Open(t.Context(), nested); err != nil || string(got) != "hush" {
		t.Errorf("nested: got %q, %v", got, err)
	}
}

// One server that never answers does not hold up whom it is not needed by.
func TestOneHangs(t *testing.T) {
	l := newLab(t, 1)
	release := make(chan struct{})
	hang := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer hang.Close()
	defer close(release)
	away := fmt.Sprintf(`{"url":"%s","thp":"%s","adv":%s}`, hang.URL, l.servers[0].Thumbprint(), l.servers[0].Advertisement())
	s := lock(t, new(Locker), "sss", fmt.Sprintf(`{"t":1,"pins":{"tang":[%s,%s]}}`, away, l.config(0)))
	if got, err := new(Locker).Open(t.Context(), s); err != nil || string(got) != "hush" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestWrongLocks(t *testing.T) {
	key := make([]byte, jose.KeySize)
	for want, h := range map[string]any{
		"found \"\"":                 map[string]any{},
		"found \"yubikey\"":          map[string]any{"enc": "A256GCM", "clevis": map[string]any{"pin": "yubikey"}},
		"found \"tang\"":             map[string]any{"enc": "A256GCM", "clevis": map[string]any{"pin": "tang"}},
		"found \"A128GCM\"":          map[string]any{"enc": "A128GCM", "clevis": map[string]any{"pin": "tang"}},
		"is not among the server's":  header{Enc: encryption, EPK: &jose.Key{}, KeyID: "x", Clevis: pinHeader{Pin: "tang", Tang: &tangHeader{Keys: []byte(`{}`)}}},
		"threshold of 1 to 0":        header{Enc: encryption, Clevis: pinHeader{Pin: "sss", SSS: &sssHeader{Threshold: 1}}},
		"at most 16 locks":           header{Enc: encryption, Clevis: pinHeader{Pin: "sss", SSS: &sssHeader{Threshold: 1, Locks: make([]string, 17)}}},
		"parse prime":                header{Enc: encryption, Clevis: pinHeader{Pin: "sss", SSS: &sssHeader{Threshold: 1, Locks: make([]string, 1), Prime: "AA"}}},
		"no policy of PCRs":          header{Enc: encryption, Clevis: pinHeader{Pin: "tpm2", TPM2: &tpm2Header{Hash: "sha256", Key: "ecc", PCRs: []byte(`"7"`)}}},
		"expected a key of kind ecc": header{Enc: encryption, Clevis: pinHeader{Pin: "tpm2", TPM2: &tpm2Header{Hash: "sha256", Key: "rsa"}}},
		"the machine has no TPM":     header{Enc: encryption, Clevis: pinHeader{Pin: "tpm2", TPM2: &tpm2Header{Hash: "sha256", Key: "ecc"}}},
	} {
		s, err := jose.Seal(h, key, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := new(Locker).Open(t.Context(), s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
