package qemutests

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/proa-os/proa/qemu-tests/world"
)

// How comesByItself looks for the network of somebody who wants no stranger in it.
const (
	deadServer = "updates.example"
	goodMirror = "mirror.example"
)

// comesByItself configures the machine, and from then on nobody asks for an update: the machine's own timer looks for the release, and it is
// downloaded, installed and booted. The server is dead, its mirror has a certificate of an authority of its own, the way there is a proxy, and
// the line must not be filled.
func (h *sickbed) comesByItself(t *testing.T, version string) {
	t.Helper()
	mirror := must(world.StartMirror(goodMirror, h.desk.Repository))(t)
	h.closes(mirror)
	proxy := must(world.StartProxy(map[string]string{goodMirror + ":443": mirror.Addr()}))(t)
	h.closes(proxy)
	payload := must(filepath.Glob(filepath.Join(h.desk.Repository, "targets/releases", version, "*/*full.payload")))(t)
	if len(payload) != 1 {
		t.Fatalf("got payloads %q, want one", payload)
	}
	const seconds = 120 // that the limit makes of the download
	rate := must(os.Stat(payload[0]))(t).Size() / seconds
	const folder = "/etc/proa/update/"
	check(t, h.m.CopyTo(t.Context(), "root", folder+"ca.pem", 0o644, mirror.CA))
	check(t, h.m.CopyTo(t.Context(), "root", folder+"config.json", 0o644, fmt.Appendf(nil,
		`{"server":"https://%s/","mirrors":["https://%s/"],"ca_file":"%sca.pem","proxy":%q,"rate_limit_bytes_per_second":%d,"channel":"stable","auto":true,"health_deadline_seconds":600,"reboot":{"mode":"full"}}`+"\n",
		deadServer, goodMirror, folder, proxy.GuestURL(), rate)))
	run(t, h.m, "sync")

	n := h.m.Boots()
	h.rest(func() {
		select {
		case <-mirror.Asked:
		case <-time.After(25 * time.Minute): // the timer comes ten minutes after the start at the latest, and fifteen after it came too early
			t.Fatalf("nobody looks for a release: %s", run(t, h.m, "systemctl list-timers --all; updatectl why; journalctl -b -q --no-pager -u update-auto -u update-engine"))
		}
	})
	check(t, h.m.WaitBoot(t.Context(), n+1))
	becomesGood(t, h.m, version)
	boots(t, h.m, version)
	if got := h.m.Boots() - n; got != 1 {
		t.Errorf("got %d boots for an update, want 1", got)
	}

	// The last boot tells who began it, up to the order to reboot; the history names nobody.
	said := run(t, h.m, "journalctl -b -1 -q -o cat -u update-auto -u update-engine")
	story := strings.ReplaceAll(`(?s)Starting update-auto\.service.*server passed over server=https://`+regexp.QuoteMeta(deadServer)+`/ .*release offered version=V .*release armed version=V .*rebooting to=V `,
		"V", regexp.QuoteMeta(version))
	if !regexp.MustCompile(story).MatchString(said) {
		t.Errorf("got %q in the journal, want /%s/", said, story)
	}
	history := run(t, h.m, "updatectl history")
	for _, event := range []string{"armed", "good"} {
		if !regexp.MustCompile(`(?m) ` + regexp.QuoteMeta(version) + ` +` + event + ` *$`).MatchString(history) {
			t.Errorf("got history %q, want %s %s by nobody's order", history, version, event)
		}
	}
	if got := proxy.Asked(); len(got) < 2 || got[0] != deadServer+":443 502" || !slices.Contains(got, goodMirror+":443 200") {
		t.Errorf("got tunnels %q, want %s asked for first, and then %s", got, deadServer, goodMirror)
	}
	for _, a := range mirror.Answers() {
		if strings.HasSuffix(a.Path, "full.payload") {
			t.Logf("%s took %.0f s", a, a.Took.Seconds())
			if least := seconds * 3 / 4 * time.Second; a.Took < least { // what is on its way in buffers has been sent
				t.Errorf("%s took %s, want at least %s with its limit", a, a.Took, least)
			}
		}
	}
	h.asksForNothingNew(t, mirror)
}

// asksForNothingNew looks once more: a repository that has not changed says so in an answer without a body, and that there is no newer root
// (TUF specification 1.0, 5.3.3); nothing else is asked for.
func (h *sickbed) asksForNothingNew(t *testing.T, mirror *world.Mirror) {
	t.Helper()
	before := len(mirror.Answers())
	run(t, h.m, "updatectl check")
	var got []string
	for _, a := range mirror.Answers()[before:] {
		got = append(got, a.String())
	}
	if want := []string{"/metadata/2.root.json 404", "/metadata/timestamp.json 304"}; !slices.Equal(got, want) {
		t.Errorf("a second look: got answers %q, want %q", got, want)
	}
}
