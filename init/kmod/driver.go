package kmod

import (
	"fmt"
	"io/fs"
	"path"
	"strings"
)

// A Driver is a module with what it needs, and the devices it is for.
type Driver struct {
	Files   []string // in the order of loading; the last is the driver
	Aliases []string // patterns of path.Match for a device's modalias
}

// ParseDrivers reads a list of drivers: one a line, words separated by one space, first the files, then the aliases.
func ParseDrivers(text string) ([]Driver, error) {
	if text == "" {
		return nil, nil
	}
	var list []Driver
	for i, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		var d Driver
		for _, word := range strings.Split(line, " ") {
			switch _, err := path.Match(word, ""); {
			case strings.HasPrefix(word, "/") && len(d.Aliases) == 0:
				if !isModule(word) {
					return nil, fmt.Errorf("driver list: line %d: expected the absolute path of a .ko or .ko.xz file, found %q", i+1, word)
				}
				d.Files = append(d.Files, word)
			case err != nil || word == "" || word[0] == '/':
				return nil, fmt.Errorf("driver list: line %d: expected the pattern of a modalias, found %q", i+1, word)
			default:
				d.Aliases = append(d.Aliases, word)
			}
		}
		if len(d.Files) == 0 || len(d.Aliases) == 0 {
			return nil, fmt.Errorf("driver list: line %d: expected files and aliases, found %q", i+1, line)
		}
		list = append(list, d)
	}
	return list, nil
}

// matches reports whether the driver is for a device with that modalias.
func (d Driver) matches(modalias string) bool {
	for _, a := range d.Aliases {
		if ok, err := path.Match(a, modalias); err == nil && ok {
			return true
		}
	}
	return false
}

// A Loader loads drivers as their devices appear.
//
// A device says what it is in its modalias (/sys/bus/BUS/devices/DEVICE/modalias), which is matched with the aliases that
// modules declare, as udev does it later for all the other devices. A driver makes further devices appear, at once or, as
// a disk behind a controller, some time later: Load is called again until the disk is there.
type Loader struct {
	drivers []Driver
	sys     fs.FS                   // /sys
	load    func(file string) error // gives one module to the kernel
	seen    map[string]bool         // devices
	loaded  map[string]bool         // files
}

// NewLoader returns a loader that reads devices below sys, the file system of /sys, and hands modules to load.
func NewLoader(drivers []Driver, sys fs.FS, load func(file string) error) *Loader {
	return &Loader{drivers: drivers, sys: sys, load: load, seen: map[string]bool{}, loaded: map[string]bool{}}
}

// Load loads the drivers of all devices it has not seen before, and of those that come with them; it returns whether it has
// loaded any. A driver that does not load is reported and not tried again: the system disk may well be behind another one.
func (l *Loader) Load(report func(error)) (loaded bool) {
	for again := true; again; {
		again = false
		devices, err := fs.Glob(l.sys, "bus/*/devices/*")
		if err != nil {
			report(err)
		}
		for _, device := range devices {
			if l.seen[device] {
				continue
			}
			l.seen[device] = true
			modalias, err := fs.ReadFile(l.sys, path.Join(device, "modalias"))
			if err != nil { // many devices have none, and one may be gone by now
				continue
			}
			for _, d := range l.drivers {
				if d.matches(strings.TrimSpace(string(modalias))) && l.loadDriver(d, report) {
					again, loaded = true, true
				}
			}
		}
	}
	return loaded
}

// loadDriver reports whether anything was loaded.
func (l *Loader) loadDriver(d Driver, report func(error)) bool {
	any := false
	for _, file := range d.Files {
		if l.loaded[file] {
			continue
		}
		l.loaded[file] = true
		if err := l.load(file); err != nil {
			report(err)
			return any
		}
		any = true
	}
	return any
}
