package agent

import "github.com/proa-os/proa/update-engine/config"

// Configure takes what people have configured. If broken says that it cannot be used, what was configured before stays.
func (a *Agent) Configure(c *config.Config, broken error) {
	a.configured.Lock()
	defer a.configured.Unlock()
	if a.Broken = broken; broken == nil {
		a.Config = c
	}
}

func (a *Agent) config() *config.Config {
	a.configured.RLock()
	defer a.configured.RUnlock()
	return a.Config
}

func (a *Agent) broken() error {
	a.configured.RLock()
	defer a.configured.RUnlock()
	return a.Broken
}

// refreshIdle reads the configuration for a question. A job goes on with what it has begun with.
func (a *Agent) refreshIdle() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.working && a.Refresh != nil {
		_ = a.Refresh() // why has it
	}
}

// refreshReboots reads how the machine may reboot: a download may have taken hours since the job began, and somebody may have had second thoughts.
func (a *Agent) refreshReboots() error {
	if a.Reboots == nil {
		return nil
	}
	r, err := a.Reboots()
	if err != nil {
		return err
	}
	c := *a.config()
	c.Reboot = r
	a.Configure(&c, nil)
	return nil
}
