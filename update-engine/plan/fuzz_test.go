package plan

import (
	"reflect"
	"testing"
	"time"
)

// Whatever is taken for a plan is one: written and read again it is the same, and it can be followed.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"format":1,"channel":"stable","release":"1.0.1","not_before":"2026-01-31T06:00:00Z","halted":true}`))
	f.Add([]byte(`{"format":1,"channel":"stable","release":"1.0.1-rc.1+build","tides":[null]}`))
	f.Add([]byte(`{"format":1,"channel":"stable","release":"1.0.1","waves":[{"from":"2026-01-31T06:00:00Z","percent":5}]}`))
	f.Add([]byte(`{"format":1e0,"channel":"stable","release":null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := Parse(b, "stable")
		if err != nil {
			return
		}
		if p.NotBefore != nil && (p.NotBefore.Year() > 9999 || p.NotBefore.Year() < 0) {
			t.Fatalf("not_before %v cannot be written", p.NotBefore)
		}
		out, err := p.Marshal()
		if err != nil {
			t.Fatalf("%+v: %v", p, err)
		}
		again, err := Parse(out, "stable")
		if err != nil {
			t.Fatalf("%s: %v", out, err)
		}
		if p.NotBefore != nil && again.NotBefore != nil && p.NotBefore.Equal(*again.NotBefore) {
			again.NotBefore = p.NotBefore
		}
		for i := range min(len(p.Waves), len(again.Waves)) {
			if p.Waves[i].From.Equal(again.Waves[i].From) {
				again.Waves[i].From = p.Waves[i].From
			}
		}
		if !reflect.DeepEqual(p, again) {
			t.Errorf("%+v became %+v", p, again)
		}
		_ = p.Held(time.Unix(0, 0), 50)
	})
}
