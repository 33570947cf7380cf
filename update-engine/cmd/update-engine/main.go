// Command update-engine is the update agent of a Proa machine. People use updatectl; this program is started by systemd.
//
//	update-engine serve                 answer on the system bus as io.proa.Update1 until nobody asks (update-engine.service)
//	update-engine auto                  ask that service to update, if it is time to (update-engine.timer)
//	update-engine health                wait for the health checks and judge a try (proa-health.service)
//	update-engine end-try REASON        condemn the release that is tried, because nobody judges it (try-deadline)
//	update-engine fetch                 get the file that standard input asks for; serve runs it as user proa-fetch
//
// Files: /etc/proa/update/config.json, /etc/proa/update/root.json or /usr/share/proa/update/root.json, /etc/proa/health.d/*,
// /var/lib/proa/update, /run/proa/metrics/update.prom. It exits with 1 on an error, and health also if the boot is not healthy; with 3 if a try is bad and there is
// nothing else to boot, health and end-try (try-deadline asks for it).
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"os/user"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/update-engine/agent"
	"github.com/proa-os/proa/update-engine/bus"
	"github.com/proa-os/proa/update-engine/client"
	"github.com/proa-os/proa/update-engine/config"
	"github.com/proa-os/proa/update-engine/health"
	"github.com/proa-os/proa/update-engine/host"
	"github.com/proa-os/proa/update-engine/journal"
	"github.com/proa-os/proa/update-engine/network"
	"github.com/proa-os/proa/update-engine/reboot"
	"github.com/proa-os/proa/update-engine/record"
	"github.com/proa-os/proa/update-engine/state"
	"github.com/proa-os/proa/update-engine/stick"
)

const (
	configDir  = "/etc/proa/update"
	configFile = configDir + "/config.json"
	imageDir   = "/usr/share/proa/update"
	healthDir  = "/etc/proa/health.d"
	stateDir   = "/var/lib/proa/update"
	fetchUser  = "proa-fetch"
	idle       = 30 * time.Second
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "update-engine:", err)
		if stays := (*agent.NoWayBack)(nil); errors.As(err, &stays) {
			os.Exit(3)
		}
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	switch {
	case len(args) == 1 && args[0] == "serve":
		return serve(ctx)
	case len(args) == 1 && args[0] == "auto":
		return auto(ctx)
	case len(args) == 1 && args[0] == "health":
		return judge(ctx)
	case len(args) == 2 && args[0] == "end-try":
		a, _, err := open()
		if err != nil {
			return err
		}
		return a.EndTry(args[1])
	case len(args) == 1 && args[0] == "fetch":
		return client.RunChild(ctx, os.Stdin, os.Stdout)
	}
	return fmt.Errorf("usage: update-engine serve | auto | health | end-try REASON | fetch (people use updatectl)")
}

// open puts together what a verdict needs; it looks at nothing that a person writes.
func open() (*agent.Agent, *host.Host, error) {
	h, err := host.Open()
	if err != nil {
		return nil, nil, err
	}
	store, err := record.Open(stateDir)
	if err != nil {
		return nil, nil, err
	}
	log := slog.New(journal.New(os.Stderr))
	a := &agent.Agent{Machine: h, Userspace: h, Store: store, Config: config.Default(), TUFState: filepath.Join(stateDir, "tuf"), Now: time.Now, Epoch: h.Epoch(), Log: log}
	a.Network = func(ctx context.Context) (state.Network, error) {
		return network.Look(ctx, append([]string{a.Config.Server}, a.Config.Mirrors...)...)
	}
	return a, h, nil
}

// fetcher is this program again, as the user that talks to the network.
func fetcher() (*client.Child, error) {
	u, err := user.Lookup(fetchUser)
	if err != nil {
		return nil, fmt.Errorf("look up the user that fetches: %w", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("user %s: %w", fetchUser, err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("user %s: %w", fetchUser, err)
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return &client.Child{Command: []string{exe, "fetch"}, UID: uint32(uid), GID: uint32(gid)}, nil
}

// frugally makes this process collect its garbage early, for as long as it serves. What is big in an update is made once; what else there is
// must not lie about until there is as much of it.
func frugally() {
	_ = host.SmallPages() // without, it takes more memory and works as well
	debug.SetGCPercent(10)
}

func serve(ctx context.Context) error {
	frugally()
	a, _, err := open()
	if err != nil {
		return err
	}
	child, err := fetcher()
	if err != nil {
		return err
	}
	files := stick.New(child)
	defer files.Close()
	a.Client = &client.Client{Source: a.Counted(files), Retry: client.DefaultRetry(), PassedOver: a.PassedOver}
	a.Refresh = func() error { return configure(a, child, configDir) }
	a.Reboots = func() (reboot.Config, error) {
		c, err := config.Load(configFile)
		if err != nil {
			return reboot.Config{}, err
		}
		return c.Reboot, nil
	}
	if err := a.Refresh(); err != nil {
		a.Log.Error("configuration cannot be used", "error", err) // whoever asks is told, and it is read again for every call
	}
	conn, err := dbus.ConnectSystemBus()
	if err != nil {
		return fmt.Errorf("connect to the system bus: %w", err)
	}
	defer conn.Close()
	if a.Clock, err = readClock(); err != nil {
		return err
	}
	if a.Identity, err = readIdentity(); err != nil {
		return err
	}
	if _, err := a.Settle(); err != nil {
		a.Log.Error("cannot keep the update state", "error", err) // nor is anything installed before it can; the reason can be asked for
	}
	s, err := bus.NewServer(ctx, conn, a)
	if err != nil {
		return err
	}
	letGo := func() {
		debug.FreeOSMemory()
		_ = host.LetGo() // without, it takes more memory and works as well
	}
	a.Progress = streaming(s.Progress, letGo)
	a.Store.Changed = func() {
		s.Changed()
		writeMetrics(a)
	}
	writeMetrics(a)
	return s.Serve(idle)
}

// rest is how long what streams goes on before it lets go again of what it does not need.
const rest = time.Second

// streaming is progress that calls letGo when a job begins to write, before it takes what memory it needs, and from time to time while it
// writes: the collector's turn comes late on a busy machine, and what runs once in a while stays mapped.
func streaming(progress func(string, int64, int64), letGo func()) func(string, int64, int64) {
	var last time.Time // since it writes
	return func(stage string, done, total int64) {
		if !strings.HasPrefix(stage, "write") {
			last = time.Time{}
		} else if now := time.Now(); now.Sub(last) >= rest {
			letGo()
			last = now
		}
		progress(stage, done, total)
	}
}

// configure reads what people write: the configuration, and the trust anchor beside it or else in the image. Nothing is changed if it cannot
// be used, but that the agent knows why. No job may work meanwhile.
func configure(a *agent.Agent, child *client.Child, dir string) error {
	c, err := readConfig(a, child, dir)
	a.Configure(c, err)
	return err
}

func readConfig(a *agent.Agent, child *client.Child, dir string) (*config.Config, error) {
	c, err := config.Load(filepath.Join(dir, filepath.Base(configFile)))
	if err != nil {
		return nil, err
	}
	anchor, err := config.LoadAnchor(filepath.Join(dir, "root.json"), filepath.Join(imageDir, "root.json"))
	if err != nil {
		return nil, err
	}
	network, err := client.ReadNetwork(c.Proxy, c.CAFile)
	if err != nil {
		return nil, err
	}
	a.Anchor, child.Network = anchor, network
	a.Client.Server, a.Client.Mirrors, a.Client.Rate = c.Server, c.Mirrors, c.RateLimit
	return c, nil
}

func judge(ctx context.Context) error {
	a, h, err := open()
	if err != nil {
		return err
	}
	// A release that does not understand the configuration is not healthy; it must live to say so.
	c, configErr := config.Load(configFile)
	if configErr == nil {
		a.Config = c
	}
	a.Store.Changed = func() { writeMetrics(a) }
	sayUntil(a.Config.HealthDeadline())
	gate := health.Gate{Deadline: a.Config.HealthDeadline(), Interval: 2 * time.Second, Timeout: time.Minute}
	defer writeMetrics(a)
	return a.Health(ctx, gate, func(before state.Machine) []health.Check {
		return []health.Check{
			{Name: "configuration", Run: func(context.Context) error { return configErr }},
			health.Booted(h), health.Units(h, a.Config.RequiredUnits), health.NoneFailed(h, before.FailedUnits),
			health.Network(before.Network, a.Network),
			health.Program("containers", "/usr/bin/containerctl", "health"), health.Dir(healthDir),
		}
	})
}

// sayUntil tells try-deadline when the verdict must be there, in seconds since the start of the kernel: a health check that hangs for good
// must not keep a try up. Without the file it is trusted to keep its own deadline.
func sayUntil(deadline time.Duration) {
	var now unix.Timespec
	dir := os.Getenv("RUNTIME_DIRECTORY")
	if dir == "" || unix.ClockGettime(unix.CLOCK_BOOTTIME, &now) != nil {
		return
	}
	const margin = 15 // seconds for the verdict itself
	text := strconv.FormatInt(now.Sec+int64(deadline/time.Second)+margin, 10) + "\n"
	if err := os.WriteFile(filepath.Join(dir, "verdict-by"), []byte(text), 0o644); err != nil {
		fmt.Fprintln(os.Stderr, "update-engine:", err)
	}
}
