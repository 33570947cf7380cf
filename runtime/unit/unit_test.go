package unit

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/proa-os/proa/runtime/store"
)

func TestText(t *testing.T) {
	got := Text(&store.Container{Name: "web", Image: "example.org/a%b:1", Network: "host", Restart: "always", Memory: 1 << 20, CPUs: 1.5, Pids: 7, StopTimeout: 3, StopSignal: "QUIT"})
	want := `# Written by containerctl run; containerctl rm web removes it.
[Unit]
Description=Container web (example.org/a%%b:1)
RequiresMountsFor=/var/lib/proa/containers
Wants=system-containers.slice
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart=/usr/bin/containerctl launch web
ExecStop=-/usr/bin/oci-runtime stop --time 3 --signal QUIT web
ExecStopPost=-/usr/bin/containerctl ended web
TimeoutStopSec=23
KillMode=mixed
SuccessExitStatus=143 SIGKILL
Restart=always
RestartSec=1
RestartSteps=6
RestartMaxDelaySec=60
Delegate=cpu io memory pids
DevicePolicy=closed
DeviceAllow=/dev/tty rwm
DeviceAllow=char-pts rw
IgnoreSIGPIPE=no
SyslogIdentifier=web
MemoryMax=1048576
MemorySwapMax=1048576
CPUQuota=150%
TasksMax=7

[Install]
WantedBy=multi-user.target
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestNetwork: what a unit's network needs before.
func TestNetwork(t *testing.T) {
	for mode, want := range map[string][]string{
		"bridge":        {"After=network-online.target\n"},
		"container:web": {"Wants=proa-web.service\nAfter=proa-web.service\n"},
		"none":          nil,
	} {
		text := Text(&store.Container{Name: "x", Network: mode, Restart: "always"})
		for _, w := range want {
			if !strings.Contains(text, w) {
				t.Errorf("%s: want %q in\n%s", mode, w, text)
			}
		}
	}
}

func TestRestart(t *testing.T) {
	for restart, want := range map[string]string{"no": "Restart=no", "on-failure": "Restart=on-failure\nRestartForceExitStatus=", "unless-stopped": "Restart=always"} {
		if text := Text(&store.Container{Name: "x", Network: "none", Restart: restart}); !strings.Contains(text, want) || strings.Contains(text, "network-online") {
			t.Errorf("%s:\n%s", restart, text)
		}
	}
}

func TestRefresh(t *testing.T) {
	dir := t.TempDir()
	c := &store.Container{Name: "x", Network: "none", Restart: "no"}
	file := filepath.Join(dir, "proa-x.service")
	if err := Refresh(dir, c); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("a unit was made that was not there")
	}
	if err := os.WriteFile(file, []byte("[Service]\nType=forking\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Refresh(dir, c); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != Text(c) {
		t.Errorf("%q %v", b, err)
	}
}

func TestInstall(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "multi-user.target.wants/proa-x.service")
	c := &store.Container{Name: "x", Network: "none", Restart: "always"}
	for range 2 { // again is no error
		if err := Install(dir, c); err != nil {
			t.Fatal(err)
		}
	}
	if b, err := os.ReadFile(link); err != nil || string(b) != Text(c) {
		t.Errorf("through the link: %v", err)
	}
	if err := Disable(dir, "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(link); err == nil {
		t.Error("still enabled")
	}
	for range 2 {
		if err := Uninstall(dir, "x"); err != nil {
			t.Fatal(err)
		}
	}
	if es, _ := filepath.Glob(filepath.Join(dir, "*.service")); len(es) != 0 {
		t.Errorf("left: %v", es)
	}
	c.Restart = "no"
	if err := Install(dir, c); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(link); err == nil {
		t.Error("enabled although it does not start at boot")
	}
}

// TestSettings: what flags become of the unit.
func TestSettings(t *testing.T) {
	swap, any := int64(3<<20), int64(-1)
	for want, c := range map[string]*store.Container{
		"StartLimitIntervalSec=infinity\nStartLimitBurst=3\n": {Restart: "on-failure", Restarts: 2},
		"CollectMode=inactive-or-failed\n":                    {Remove: true, Restart: "no"},
		"NotifyAccess=all\n":                                  {Notify: true},
		"MemorySwapMax=2097152\n":                             {Memory: 1 << 20, MemorySwap: &swap},
		"MemoryLow=5\n":                                       {MemoryLow: 5}, "AllowedMemoryNodes=0-1\n": {MemSet: "0-1"}, "IOWeight=1\n": {BlkioWeight: 10}, "IOWeight=10000\n": {BlkioWeight: 1000},
		"IOReadIOPSMax=/dev/vda 7\n": {Rates: []store.Rate{{Setting: "IOReadIOPSMax", Device: "/dev/vda", Most: 7}}}, "StandardError=null\n": {NoLog: true},
		"After=proa-web.service\n":                       {PID: "container:web"},
		"CPUWeight=100\n":                                {CPUShares: 1024},
		"AllowedCPUs=0-2\n":                              {CPUSet: "0-2"},
		"DevicePolicy=auto\n":                            {Privileged: true},
		"DeviceAllow=/dev/kvm rw\n":                      {Devices: []store.Device{{Source: "/dev/kvm", Access: "rw"}}},
		"ExecStartPost=-/usr/bin/containerctl watch x\n": {Health: &store.Health{Interval: time.Second}},
		"WantedBy=multi-user.target\n":                   {Restart: "unless-stopped"},
	} {
		c.Name, c.Network = "x", "none"
		if text := Text(c); !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if text := Text(&store.Container{Name: "x", Remove: true, Restart: "always", Memory: 1, MemorySwap: &any}); strings.Contains(text, "WantedBy") || strings.Contains(text, "MemorySwapMax") {
		t.Errorf("got\n%s", text)
	}
}

// TestQuota: systemd takes at most two decimals and ignores the line otherwise, so the container would have no limit.
func TestQuota(t *testing.T) {
	for cpus, want := range map[float64]string{1.1: "110", 0.07: "7", 0.335: "33.5", 1.0 / 3: "33.33", 2: "200", 0.01: "1"} {
		if text := Text(&store.Container{Name: "web", CPUs: cpus}); !strings.Contains(text, "\nCPUQuota="+want+"%\n") {
			t.Errorf("%v: want %s%% in\n%s", cpus, want, text)
		}
	}
}
