package metrics

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/update-engine/state"
)

var (
	sampleRE = regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)(\{(.*)\})? (\S+)$`)
	labelRE  = regexp.MustCompile(`^([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(,|$)`)
)

// parse is a strict reader of the text exposition format: a line feed behind every line, HELP and TYPE once and before the samples of a
// family, families in one piece, counters end in _total, no sample twice.
func parse(text string) (map[string]float64, error) {
	if !strings.HasSuffix(text, "\n") {
		return nil, fmt.Errorf("the last line has no end")
	}
	samples, seen := map[string]float64{}, map[string]bool{}
	var family, kind string
	for line := range strings.SplitSeq(strings.TrimSuffix(text, "\n"), "\n") {
		if help, ok := strings.CutPrefix(line, "# HELP "); ok {
			name, words, _ := strings.Cut(help, " ")
			if seen[name] || words == "" {
				return nil, fmt.Errorf("%q: a family twice, or without words", line)
			}
			family, kind, seen[name] = name, "", true
			continue
		}
		if typ, ok := strings.CutPrefix(line, "# TYPE "); ok {
			name, k, _ := strings.Cut(typ, " ")
			if name != family || kind != "" || k != "gauge" && k != "counter" || (k == "counter") != strings.HasSuffix(name, "_total") {
				return nil, fmt.Errorf("%q in family %s", line, family)
			}
			kind = k
			continue
		}
		m := sampleRE.FindStringSubmatch(line)
		if m == nil || m[1] != family || kind == "" {
			return nil, fmt.Errorf("%q is no sample of family %q", line, family)
		}
		for rest := m[3]; rest != ""; {
			l := labelRE.FindString(rest)
			if l == "" {
				return nil, fmt.Errorf("%q: labels %q", line, rest)
			}
			rest = rest[len(l):]
		}
		v, err := strconv.ParseFloat(m[4], 64)
		key := m[1] + m[2]
		if _, twice := samples[key]; err != nil || twice {
			return nil, fmt.Errorf("%q: %v, or twice", line, err)
		}
		samples[key] = v
	}
	return samples, nil
}

func TestText(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	root := digest.Of([]byte("a"))
	c := state.Counters{Checks: 7, Fetched: 1 << 40, LastSuccess: now}
	c.Fail(state.ReasonNetwork)
	c.Fail(state.ReasonNetwork)
	got, err := parse(Text(Input{
		Now: now, Counters: c,
		Report: &state.Report{
			Running: state.Release{Version: "1.0.1", Root: root}, Channel: "a\"b\\c\nd\xff",
			State:      state.Machine{Phase: state.Writing, Target: &state.Release{Version: "1.0.2"}, Check: &state.Check{Time: now.Add(time.Second)}},
			Boot:       state.Boot{Trying: true},
			Quarantine: state.Quarantine{{}, {}},
			Orders:     state.Orders{Hold: &state.Hold{}, Pin: &state.Pin{Version: "1.0.2"}, Back: &state.Back{From: state.Release{Version: "1.0.3"}}},
			Progress:   &state.Progress{Stage: "write", Done: 1, Total: 4},
			Gaps:       map[string]float64{"soft": 3.5, "full": 40},
		},
		History: []state.Entry{{Event: state.EventArmed}, {Event: state.EventArmed}, {Event: state.EventHeld}},
	}))
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]float64{
		`proa_update_info{version="1.0.1",root_hash="` + root.String() + `",channel="a\"b\\c\nd?"}`: 1,
		`proa_update_phase{phase="writing"}`: 1, `proa_update_phase{phase="idle"}`: 0,
		`proa_update_target_info{version="1.0.2"}`: 1, `proa_update_trying`: 1, `proa_update_held`: 1,
		`proa_update_pinned_info{version="1.0.2"}`: 1, `proa_update_rolled_back_info{version="1.0.3"}`: 1,
		`proa_update_quarantined_releases`: 2, `proa_update_checks_total`: 7, `proa_update_fetched_bytes_total`: 1 << 40,
		`proa_update_last_check_timestamp_seconds`: float64(now.Unix() + 1), `proa_update_last_success_timestamp_seconds`: float64(now.Unix()),
		`proa_update_failures_total{reason="network"}`: 2, `proa_update_failures_total{reason="health"}`: 0,
		`proa_update_releases_total{event="armed"}`: 2, `proa_update_releases_total{event="held"}`: 1, `proa_update_releases_total{event="good"}`: 0,
		`proa_update_progress_ratio`: 0.25, `proa_update_gap_seconds{mode="soft"}`: 3.5, `proa_update_gap_seconds{mode="full"}`: 40,
	} {
		if v, ok := got[key]; !ok || v != want {
			t.Errorf("%s: got %v, %v, want %v", key, v, ok, want)
		}
	}
}

// A machine that has done nothing yet has all that does not depend on it, and nothing else.
func TestTextOfANewMachine(t *testing.T) {
	got, err := parse(Text(Input{Report: &state.Report{Running: state.Release{Version: "1.0.0"}}}))
	if err != nil {
		t.Fatal(err)
	}
	if got[`proa_update_phase{phase="idle"}`] != 1 {
		t.Error("it is not idle")
	}
	for key := range got {
		if strings.Contains(key, "timestamp") || strings.Contains(key, "target") || strings.Contains(key, "pinned") || strings.Contains(key, "progress") {
			t.Errorf("it has %s", key)
		}
	}
}

// The judge of these tests must see what is wrong.
func TestParser(t *testing.T) {
	head := "# HELP a b\n# TYPE a gauge\n"
	for _, bad := range []string{head + "a 1", "a 1\n", head + "b 1\n", head + "a x\n", head + "a 1\na 1\n", head + "a{l=\"x\" 1\n", head + "a{l=\"x\\y\"} 1\n", "# HELP a b\n# TYPE a counter\na 1\n", head + head + "a 1\n"} {
		if got, err := parse(bad); err == nil {
			t.Errorf("%q: %v", bad, got)
		}
	}
}
