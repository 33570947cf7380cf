package bench

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
)

// bootOf takes userspace seconds; the rest is the same for all.
func bootOf(userspace float64, units ...Unit) Boot {
	return Boot{
		Phases:  Phases{Firmware: 2, Loader: 1, Kernel: 1.5, Initramfs: 0.5, Userspace: userspace},
		Wall:    userspace + 5,
		CPU:     CPU{Firmware: 2, Loader: 1, Kernel: 1, Initramfs: 1, Userspace: userspace},
		Slowest: units,
	}
}

func testReport() *Report {
	return &Report{Accelerator: "tcg", Aim: Aim, Rounds: 3, Systems: []System{
		{Name: "proa", Title: "Proa 1.2.3", First: bootOf(12),
			Boots: []Boot{bootOf(9, Unit{"late.service", 3, 2}), bootOf(8, Unit{"ssh.service", 4, 1.25}), bootOf(10)}},
		{Name: "debian", Title: "plain Debian", First: bootOf(30),
			Boots: []Boot{bootOf(20), bootOf(18, Unit{"cron.service", 4, 0.5}, Unit{"b.mount", 4, 0.25}), bootOf(22)}},
	}}
}

// collapse makes one space of several.
func collapse(s string) string { return regexp.MustCompile(` +`).ReplaceAllString(s, " ") }

func TestReport(t *testing.T) {
	r := testReport()
	if got := r.Ratio(); got != 0.5 {
		t.Errorf("got ratio %v, want 10 s of 20 s", got)
	}
	var b strings.Builder
	if err := r.WriteText(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"Boot times under TCG, in seconds: Proa 1.2.3 against plain Debian.",
		"Least and median of 3 later boots",
		"firmware 2.00 2.00 2.00 2.00 2.00 2.00 1.00 1.00\n",
		"userspace 8.00 9.00 12.00 18.00 20.00 30.00 0.44 0.45\n",
		"kernel to multi-user 10.00 11.00 14.00 20.00 22.00 32.00 0.50 0.50\n",
		"1.25 ssh.service 0.50 cron.service\n 0.25 b.mount\n",
		"Kernel to multi-user: 0.50 of the time of plain Debian (CPU time: 0.50).\nThe aim, at most 0.60, is reached.\n",
	} {
		if !strings.Contains(collapse(b.String()), want) {
			t.Errorf("missing %q in\n%s", want, b.String())
		}
	}
	if strings.Contains(b.String(), "late.service") {
		t.Errorf("got units of a boot that was not the fastest:\n%s", b.String())
	}
}

func TestReportSaysThatTheAimIsMissed(t *testing.T) {
	r := testReport()
	r.Systems[1].Boots[1] = bootOf(14)
	var b strings.Builder
	if err := r.WriteText(&b); err != nil {
		t.Fatal(err)
	}
	if want := "0.62 of the time of plain Debian (CPU time: 0.62).\nThe aim, at most 0.60, is not reached."; !strings.Contains(b.String(), want) {
		t.Errorf("missing %q in\n%s", want, b.String())
	}
}

// Against another release there is no aim. An even number of boots has its median between the two in the middle.
func TestReportWithoutAim(t *testing.T) {
	r := testReport()
	r.Aim = 0
	for i := range r.Systems {
		r.Systems[i].Boots = r.Systems[i].Boots[:2]
	}
	var b strings.Builder
	if err := r.WriteText(&b); err != nil {
		t.Fatal(err)
	}
	if want := "userspace 8.00 8.50 12.00 18.00 19.00 30.00 0.44 0.45\n"; !strings.Contains(collapse(b.String()), want) {
		t.Errorf("missing %q in\n%s", want, b.String())
	}
	if strings.Contains(b.String(), "aim") {
		t.Errorf("got an aim that nobody has:\n%s", b.String())
	}
}

func TestReportJSON(t *testing.T) {
	var b strings.Builder
	if err := testReport().WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Rounds  int
		Systems []struct {
			Name  string
			Boots []struct {
				Userspace float64
				CPU       map[string]float64 `json:"qemu_cpu"`
				Slowest   []struct {
					Name    string
					Seconds float64
				} `json:"slowest_units"`
			}
		}
	}
	if err := json.Unmarshal([]byte(b.String()), &got); err != nil {
		t.Fatal(err)
	}
	if got.Rounds != 3 || got.Systems[1].Name != "debian" || got.Systems[0].Boots[1].Userspace != 8 ||
		got.Systems[0].Boots[1].CPU["userspace"] != 8 || got.Systems[0].Boots[1].Slowest[0].Name != "ssh.service" {
		t.Errorf("got %s", b.String())
	}
}

// What provisioning adds is a difference of two medians; the aim is for the seconds on the clock.
func TestFirstBoots(t *testing.T) {
	f := &FirstBoots{Accelerator: "tcg", With: []Span{{9, 11}, {7, 9}, {8, 10}}, Softly: []Span{{11, 14}, {10, 12}, {13, 15}}, Without: []Span{{6, 8}, {9, 9}, {7.5, 8.5}}}
	want := "First boot without config under TCG, 3 times with and without provisioning in turn, systemd to multi-user:\n" +
		"provisioning adds 1.00 s by the least, 0.50 s by the medians (CPU time: 1.00, 1.50).\nThe aim, at most 1.0 s, is reached.\n" +
		"Both ways on from provisioning, least and median: going on 7.00 and 8.00 s, " +
		"soft reboot instead 10.00 and 11.00 s (+3.00 and +3.00 s; CPU time: +3.00, +4.00).\n"
	if got := f.Text(); got != want {
		t.Errorf("got %s", got)
	}
	f.With[1], f.With[2] = Span{9, 9}, Span{9, 10}
	if got := f.Text(); !strings.Contains(got, "is not reached.\n") {
		t.Errorf("got %s", got)
	}
	r := testReport()
	r.FirstBoots = f
	var b strings.Builder
	if err := r.WriteText(&b); err != nil || !strings.HasSuffix(b.String(), "\n\n"+f.Text()) {
		t.Errorf("got %v, %s", err, b.String())
	}
}
