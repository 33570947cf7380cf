package unit

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/godbus/dbus/v5"

	"github.com/proa-os/proa/runtime/spec"
)

// execution is one element of ExecStart and the like.
type execution struct {
	Path    string
	Args    []string
	MayFail bool
}

type device struct{ Path, Access string }

type statuses struct{ Codes, Signals []int32 }

// setting is how one of a unit file is given to StartTransientUnit (org.freedesktop.systemd1(5)): by name and type.
type setting struct {
	name  string
	value func(string) (any, error)
}

func plain(v string) (any, error) { return v, nil }
func list(v string) (any, error)  { return []string{v}, nil }
func yes(v string) (any, error)   { return v == "yes", nil }
func number(v string) (any, error) {
	if v == "infinity" {
		return uint64(math.MaxUint64), nil
	}
	return strconv.ParseUint(v, 10, 64)
}
func count(v string) (any, error) {
	n, err := strconv.ParseUint(v, 10, 32)
	return uint32(n), err
}

func seconds(v string) (any, error) {
	n, err := strconv.ParseUint(v, 10, 32)
	return n * 1e6, err
}

func command(v string) (any, error) {
	path, mayFail := strings.CutPrefix(v, "-")
	words := strings.Fields(path)
	if len(words) == 0 {
		return nil, strconv.ErrSyntax
	}
	return []execution{{words[0], words, mayFail}}, nil
}

func signalNumber(v string) (any, error) {
	if n, err := strconv.Atoi(v); err == nil {
		return int32(n), nil
	}
	n, err := spec.Signal(v)
	return int32(n), err
}

// ends reads exit codes and signals.
func ends(v string) (any, error) {
	s := statuses{[]int32{}, []int32{}}
	for _, w := range strings.Fields(v) {
		if n, err := strconv.Atoi(w); err == nil {
			s.Codes = append(s.Codes, int32(n))
			continue
		}
		n, err := signalNumber(w)
		if err != nil {
			return nil, err
		}
		s.Signals = append(s.Signals, n.(int32))
	}
	return s, nil
}

func allowed(v string) (any, error) {
	i := strings.LastIndexByte(v, ' ')
	if i < 0 {
		return nil, strconv.ErrSyntax
	}
	return []device{{v[:i], v[i+1:]}}, nil
}

type perDevice struct {
	Path string
	Most uint64
}

func rate(v string) (any, error) {
	i := strings.LastIndexByte(v, ' ')
	if i < 0 {
		return nil, strconv.ErrSyntax
	}
	n, err := strconv.ParseUint(v[i+1:], 10, 64)
	return []perDevice{{v[:i], n}}, err
}

// share is microseconds of each second.
func share(v string) (any, error) {
	f, err := strconv.ParseFloat(strings.TrimSuffix(v, "%"), 64)
	return uint64(math.Round(f * 1e4)), err
}

// processors is a bit mask of a list, also of one of memory nodes, the first byte that of the first eight.
func processors(v string) (any, error) {
	var mask []byte
	for _, r := range strings.Split(v, ",") {
		from, to, isRange := strings.Cut(r, "-")
		if !isRange {
			to = from
		}
		a, err := strconv.ParseUint(from, 10, 13)
		if err != nil {
			return nil, err
		}
		b, err := strconv.ParseUint(to, 10, 13)
		if err != nil {
			return nil, err
		}
		for n := a; n <= b; n++ {
			for uint64(len(mask)) <= n/8 {
				mask = append(mask, 0)
			}
			mask[n/8] |= 1 << (n % 8)
		}
	}
	return mask, nil
}

// settings are those that Once writes.
var settings = map[string]setting{
	"Description": {"Description", plain}, "RequiresMountsFor": {"RequiresMountsFor", list}, "Wants": {"Wants", list}, "After": {"After", list},
	"StartLimitIntervalSec": {"StartLimitIntervalUSec", seconds}, "CollectMode": {"CollectMode", plain},
	"Type": {"Type", plain}, "NotifyAccess": {"NotifyAccess", plain}, "ExecStart": {"ExecStart", command}, "ExecStartPost": {"ExecStartPost", command},
	"ExecStopPost": {"ExecStopPost", command}, "TimeoutStopSec": {"TimeoutStopUSec", seconds}, "KillMode": {"KillMode", plain},
	"KillSignal": {"KillSignal", signalNumber}, "SuccessExitStatus": {"SuccessExitStatus", ends}, "Restart": {"Restart", plain},
	"RestartSec": {"RestartUSec", seconds}, "RestartSteps": {"RestartSteps", count}, "RestartMaxDelaySec": {"RestartMaxDelayUSec", seconds},
	"DevicePolicy": {"DevicePolicy", plain}, "DeviceAllow": {"DeviceAllow", allowed}, "IgnoreSIGPIPE": {"IgnoreSIGPIPE", yes},
	"SyslogIdentifier": {"SyslogIdentifier", plain}, "MemoryMax": {"MemoryMax", number}, "MemorySwapMax": {"MemorySwapMax", number},
	"CPUQuota": {"CPUQuotaPerSecUSec", share}, "CPUWeight": {"CPUWeight", number}, "AllowedCPUs": {"AllowedCPUs", processors},
	"MemoryLow": {"MemoryLow", number}, "AllowedMemoryNodes": {"AllowedMemoryNodes", processors}, "IOWeight": {"IOWeight", number},
	"IOReadBandwidthMax": {"IOReadBandwidthMax", rate}, "IOWriteBandwidthMax": {"IOWriteBandwidthMax", rate},
	"IOReadIOPSMax": {"IOReadIOPSMax", rate}, "IOWriteIOPSMax": {"IOWriteIOPSMax", rate},
	"StandardOutput": {}, "StandardError": {}, // whoever waits gets the output
	"TasksMax": {"TasksMax", number}, "Delegate": {"DelegateControllers", func(v string) (any, error) { return strings.Fields(v), nil }},
}

// A property is one of StartTransientUnit's.
type busProperty struct {
	Name  string
	Value dbus.Variant
}

func property(name string, value any) busProperty { return busProperty{name, dbus.MakeVariant(value)} }

// properties is the text of a unit as systemd's D-Bus interface takes it.
func properties(text string) ([]busProperty, error) {
	var out []busProperty
	for line := range strings.Lines(text) {
		key, v, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok {
			continue // a section, a comment, nothing
		}
		s, known := settings[key]
		if !known {
			return nil, fmt.Errorf("tell systemd of a unit: nothing is known of %s=", key)
		}
		if key == "Delegate" && v == "yes" {
			s = setting{"Delegate", yes}
		}
		if s.value == nil {
			continue
		}
		value, err := s.value(strings.ReplaceAll(v, "%%", "%"))
		if err != nil {
			return nil, fmt.Errorf("tell systemd of a unit: %s=%s: %w", key, v, err)
		}
		out = append(out, property(s.name, value))
	}
	return out, nil
}
