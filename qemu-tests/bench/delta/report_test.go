package delta

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
)

func made(size, manifest, root, boot int64) Made {
	return Made{Size: size, Manifest: manifest, Root: root, Boot: boot}
}

// testReport has each class once; all but the kernel meet their bars.
func testReport() *Report {
	cheap := Usage{CPU: 0.5, Memory: 20e6}
	r := &Report{Full: Full{Made: made(60e6, 1e6, 50e6, 9e6), RootImage: 240e6, BootProgram: 20e6, Create: Usage{200, 300e6}, Apply: cheap}}
	for _, p := range []Result{
		{Name: "openssl", Title: "OpenSSL", Changed: 8e6, Made: made(179_000, 1000, 177_000, 1000)},
		{Name: "zlib", Made: made(5000, 1000, 3900, 100)},
		{Name: "go", Changed: 20e6, Made: made(69_000, 3000, 60_000, 6000)},
		{Name: "kernel", Made: made(14e6, 100_000, 1_950_000, 11_950_000), Peers: []Peer{{"xdelta3 -9", 20_500_000, Usage{30, 700e6}}}},
		{Name: "month", Made: made(3_900_000, 100_000, 2_900_000, 900_000)},
	} {
		p.Create, p.Apply = Usage{CPU: 30, Memory: 400e6}, cheap
		r.Pairs = append(r.Pairs, p)
	}
	r.Pairs[0].Peers = []Peer{{"xdelta3 -9", 890_000, Usage{30, 700e6}}}
	return r
}

// collapse makes one space of several.
func collapse(s string) string { return regexp.MustCompile(` +`).ReplaceAllString(s, " ") }

func TestReport(t *testing.T) {
	var b strings.Builder
	if err := testReport().WriteText(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"root image 240.0 MB, boot program 20.0 MB",
		"full 60000000 100.000% 1000000 50000000 9000000 200.0 300.0 0.50 20.0\n",
		"openssl 179000 0.298% 1000 177000 1000 30.0 400.0 0.50 20.0\n",
		"openssl OpenSSL; 8.0 MB of files changed\n",
		"openssl payload 178000 \n",
		"xdelta3 -9 890000 5.0 30.0 700.0\n",
		"xdelta3 -9 20500000 10.0 30.0 700.0\n",
		"full payload, of root image and boot program 23.08 % at most 25.00 met\n",
		"full payload, of the root image alone 21.25 % at most 25.00 met\n",
		"full payload, applying, were it 570 MB 1.10 CPU s at most 2.50 met\n",
		"openssl 179.00 KB at most 220.00 met\n openssl, of the full payload 0.30 % at most 0.30 met\n",
		"zlib 5.00 KB at most 12.00 met\n",
		"go, for each 40 MB of changed programs 138.00 KB at most 140.00 met\n",
		"kernel, root image 2.05 MB at most 2.00 NOT MET\n",
		"month, root image, of the full payload's 5.88 % at most 7.00 met\n month with boot program, of the full payload 6.50 % at most 7.00 met\n",
		"month, creating 30.00 CPU s at most 60.00 met\n",
		"month, applying, memory 20.00 MB at most 32.00 met\n",
	} {
		if !strings.Contains(collapse(b.String()), want) {
			t.Errorf("missing %q in\n%s", want, collapse(b.String()))
		}
	}
	if strings.Count(b.String(), "NOT MET") != 1 {
		t.Errorf("got other bars that are not met:\n%s", b.String())
	}
}

// A bar is a limit: what is just on it is met, a byte more is not.
func TestBars(t *testing.T) {
	r := testReport()
	r.Pairs[0].Size, r.Full.Size = 220_000, 220_000_000
	for _, extra := range []int64{0, 1} {
		r.Pairs[0].Size += extra
		for _, b := range r.Bars() {
			if b.What == "openssl" && b.Met() != (extra == 0) {
				t.Errorf("%d bytes: got met %v", r.Pairs[0].Size, b.Met())
			}
		}
	}
}

// Sizes and memory are judged; times are not, nor is the month with its new kernel.
func TestVerdict(t *testing.T) {
	r := testReport()
	if err := r.Verdict(); err == nil || err.Error() != "bars that are not met: kernel, root image: 2.05 MB, at most 2.00" {
		t.Errorf("got %v", err)
	}
	r.Pairs[3].Root = 1_800_000
	r.Pairs[4].Size, r.Pairs[4].Apply.CPU, r.Full.Apply.CPU, r.Pairs[0].Create.CPU = 13e6, 100, 100, 1000
	if err := r.Verdict(); err != nil {
		t.Errorf("times, and the month with its kernel: %v", err)
	}
	r.Pairs[4].Root, r.Pairs[1].Apply.Memory = 5e6, 33e6
	if err := r.Verdict(); err == nil || !strings.Contains(err.Error(), "zlib, applying, memory: 33.00 MB") || !strings.Contains(err.Error(), "month, root image") {
		t.Errorf("got %v", err)
	}
}

func TestReportJSON(t *testing.T) {
	var b strings.Builder
	if err := testReport().WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Full struct {
			Size      int64
			RootImage int64 `json:"root_image"`
			Apply     Usage
		}
		Pairs []struct {
			Name  string
			Root  int64
			Peers []struct {
				Name string
				Size int64
			}
		}
	}
	if err := json.Unmarshal([]byte(b.String()), &got); err != nil {
		t.Fatal(err)
	}
	if got.Full.Size != 60e6 || got.Full.RootImage != 240e6 || got.Full.Apply.Memory != 20e6 || got.Pairs[1].Name != "zlib" || got.Pairs[3].Root != 1_950_000 ||
		got.Pairs[3].Peers[0].Size != 20_500_000 {
		t.Errorf("got %s", b.String())
	}
}
