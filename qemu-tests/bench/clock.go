package bench

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// commands are what is asked of a machine that is up. Both systems have these programs.
const (
	managerCommand = "systemctl show -p UserspaceTimestampMonotonic"
	targetCommand  = "systemctl show multi-user.target -p ActiveEnterTimestampMonotonic"
	unitsCommand   = "systemctl show '*' -p Id -p InactiveExitTimestampMonotonic -p ActiveEnterTimestampMonotonic -p InactiveEnterTimestampMonotonic"
	kernelCommand  = "dmesg"
)

// properties reads what `systemctl show` prints: NAME=VALUE lines, units separated by empty lines.
func properties(text string) []map[string]string {
	var list []map[string]string
	for block := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		p := map[string]string{}
		for line := range strings.Lines(block) {
			if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
				p[name] = value
			}
		}
		if len(p) > 0 {
			list = append(list, p)
		}
	}
	return list
}

// seconds is a timestamp property in seconds; systemd notes microseconds, 0 for never.
func seconds(p map[string]string, name string) (float64, error) {
	us, err := strconv.ParseUint(p[name], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("property %s: expected microseconds, found %q", name, p[name])
	}
	return float64(us) / 1e6, nil
}

// runInitRE is the kernel's last word before it starts /init (init/main.c, run_init_process).
var runInitRE = regexp.MustCompile(`(?m)^\[ *([0-9]+\.[0-9]+)\] Run /init as init process$`)

// guestPhases are the phases on the guest's clock, from what manager, target and kernel log say.
func guestPhases(manager, target, kernelLog string) (Phases, error) {
	managers, targets := properties(manager), properties(target)
	if len(managers) != 1 || len(targets) != 1 {
		return Phases{}, fmt.Errorf("read timestamps: expected the properties of one manager and one target, found %d and %d", len(managers), len(targets))
	}
	systemd, err := seconds(managers[0], "UserspaceTimestampMonotonic")
	if err != nil {
		return Phases{}, fmt.Errorf("read timestamps: %w", err)
	}
	up, err := seconds(targets[0], "ActiveEnterTimestampMonotonic")
	if err != nil {
		return Phases{}, fmt.Errorf("read timestamps: %w", err)
	}
	found := runInitRE.FindStringSubmatch(kernelLog)
	if found == nil {
		return Phases{}, errors.New("read timestamps: the kernel log does not say when /init was started")
	}
	init, err := strconv.ParseFloat(found[1], 64)
	if err != nil {
		return Phases{}, fmt.Errorf("read timestamps: %w", err)
	}
	if !(0 < init && init < systemd && systemd < up) {
		return Phases{}, fmt.Errorf("read timestamps: expected /init before systemd before multi-user.target, found %.3f, %.3f and %.3f s", init, systemd, up)
	}
	return Phases{Kernel: init, Initramfs: systemd - init, Userspace: up - systemd}, nil
}

// startKinds are the types of units of which somebody waits for the start. Devices and targets only wait for others.
func startKinds() []string {
	return []string{".service", ".mount", ".socket", ".swap", ".timer", ".path"}
}

// slowest returns the n units that took longest to start, of those that began before the moment up, as `systemd-analyze blame` counts:
// from the first moment until active, or, for one that ended by itself, until inactive again.
func slowest(text string, up float64, n int) ([]Unit, error) {
	var units []Unit
	for _, p := range properties(text) {
		if !slices.ContainsFunc(startKinds(), func(kind string) bool { return strings.HasSuffix(p["Id"], kind) }) {
			continue
		}
		var t [3]float64
		for i, name := range []string{"InactiveExitTimestampMonotonic", "ActiveEnterTimestampMonotonic", "InactiveEnterTimestampMonotonic"} {
			v, err := seconds(p, name)
			if err != nil {
				return nil, fmt.Errorf("read units: %s: %w", p["Id"], err)
			}
			t[i] = v
		}
		begin, active, ended := t[0], t[1], t[2]
		end := active
		if active < begin {
			end = ended
		}
		if begin == 0 || begin >= up || end <= begin {
			continue
		}
		units = append(units, Unit{Name: p["Id"], Begin: begin, Seconds: end - begin})
	}
	slices.SortFunc(units, func(a, b Unit) int {
		switch {
		case a.Seconds > b.Seconds:
			return -1
		case a.Seconds < b.Seconds:
			return 1
		}
		return strings.Compare(a.Name, b.Name)
	})
	return units[:min(n, len(units))], nil
}
