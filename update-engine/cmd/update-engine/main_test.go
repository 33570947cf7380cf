package main

import (
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/proa-os/proa/update-engine/agent"
	"github.com/proa-os/proa/update-engine/client"
	"github.com/proa-os/proa/update-engine/reboot"
)

// The program decides how early garbage is collected, before it opens anything: the packages that it uses do not.
func TestServesFrugally(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent")
	if err := serve(t.Context()); err == nil {
		t.Fatal("it serves without a machine")
	}
	if got := debug.SetGCPercent(100); got >= 50 {
		t.Errorf("GC percent %d while it serves", got)
	}
}

// Memory is let go of when a job begins to write and once a second while it does, and everybody is told of all progress.
func TestStreaming(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var gone []string
		told := 0
		progress := streaming(func(string, int64, int64) { told++ }, func() { gone = append(gone, time.Now().Format("5.0")) })
		for _, stage := range []string{"check", "write-delta", "write-delta", "verify", "reboot", "check", "write-full", "write-full", "write-full", "write-full"} {
			progress(stage, 0, 0)
			time.Sleep(400 * time.Millisecond)
		}
		if want := []string{"0.4", "2.4", "3.6"}; !slices.Equal(gone, want) || told != 10 {
			t.Errorf("let go after %q seconds, want %q; told of %d steps", gone, want, told)
		}
	})
}

// What a person writes while the agent runs counts for the next job; what is broken changes nothing and says where.
func TestConfigureAgain(t *testing.T) {
	dir := t.TempDir()
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	a, child := &agent.Agent{Client: &client.Client{}}, &client.Child{}
	write(`{"server":"http://one.example","reboot":{"mode":"soft"}}`)
	if err := configure(a, child, dir); err != nil {
		t.Fatal(err)
	}
	write(`{"server":"http://two.example","mirrors":["http://three.example"],"rate_limit_bytes_per_second":100000,"proxy":"http://proxy.example:3128","reboot":{"mode":"full"}}`)
	if err := configure(a, child, dir); err != nil {
		t.Fatal(err)
	}
	write(`{"server":"http://four.example","reboot":{"mode":"hard"}}`)
	if err := configure(a, child, dir); err == nil || !strings.Contains(err.Error(), filepath.Join(dir, "config.json")) {
		t.Errorf("a broken configuration: got %v, want an error that names the file", err)
	}
	if a.Config.Reboot.Mode != reboot.Full || a.Client.Server != "http://two.example" || !slices.Equal(a.Client.Mirrors, []string{"http://three.example"}) || a.Client.Rate != 100000 {
		t.Errorf("got %+v and %+v, want what the second configuration says", a.Config, a.Client)
	}
	if got := child.Network.Proxy; got == "" || got == "direct" {
		t.Errorf("the fetcher has proxy %q", got)
	}
}

func TestArguments(t *testing.T) {
	for _, args := range [][]string{nil, {"server"}, {"serve", "now"}, {"end-try"}} {
		if err := run(t.Context(), args); err == nil || !strings.Contains(err.Error(), "updatectl") {
			t.Errorf("%q: got %v", args, err)
		}
	}
}
