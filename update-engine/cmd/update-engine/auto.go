package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/proa-os/proa/internal/durable"
	"github.com/proa-os/proa/update-engine/agent"
	"github.com/proa-os/proa/update-engine/bus"
	"github.com/proa-os/proa/update-engine/config"
	"github.com/proa-os/proa/update-engine/record"
	"github.com/proa-os/proa/update-engine/state"
)

const metricsFile = "/run/proa/metrics/update.prom"

// auto asks the service, which is one for all jobs; if it is not time to, it does not even start it. That a server is not there
// or that a release is refused is in the journal, the status and the metrics; it is no failure of this unit.
func auto(ctx context.Context) error {
	c, err := config.Load(configFile)
	if err != nil {
		return err
	}
	if !c.Auto || c.Server == "" {
		return nil
	}
	store, err := record.Open(stateDir)
	if err != nil {
		return err
	}
	next, err := store.Schedule()
	if err != nil {
		return err
	}
	clock, err := readClock()
	if err != nil || !next.Due(time.Now(), clock.Boot) {
		return err
	}
	conn, err := dbus.ConnectSystemBus()
	if err != nil {
		return fmt.Errorf("connect to the system bus: %w", err)
	}
	defer conn.Close()
	if r, err := bus.NewClient(conn).Auto(ctx); err != nil {
		fmt.Println("not updated:", err)
	} else {
		fmt.Println(r.Text)
	}
	return nil
}

// readClock says which boot this is, of which machine.
func readClock() (agent.Clock, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return agent.Clock{}, fmt.Errorf("read boot id: %w", err)
	}
	id, err := readIdentity()
	if err != nil {
		return agent.Clock{}, err
	}
	return agent.Clock{Boot: strings.TrimSpace(string(boot)), Jitter: state.Jitter(string(id))}, nil
}

// readIdentity is the machine's id (machine-id(5)). It is for drawing lots here, and told nobody.
func readIdentity() ([]byte, error) {
	id, err := os.ReadFile("/etc/machine-id")
	if err != nil {
		return nil, fmt.Errorf("read machine id: %w", err)
	}
	return bytes.TrimSpace(id), nil
}

// writeMetrics replaces the file that a node exporter reads. It is only for people: an error is no reason to stop.
func writeMetrics(a *agent.Agent) {
	text, err := a.Metrics()
	if err == nil {
		err = os.MkdirAll(filepath.Dir(metricsFile), 0o755)
	}
	if err == nil {
		err = durable.WritePath(metricsFile, []byte(text), 0o644)
	}
	if err != nil {
		a.Log.Warn("cannot write metrics", "file", metricsFile, "error", err)
	}
}
