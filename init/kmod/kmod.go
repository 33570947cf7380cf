// Package kmod loads kernel modules in the initramfs.
//
// Which ones and in which order was decided when the image was built. ListFile has those of every machine, one absolute path per
// line, sorted so that what a module needs stands before it. DriverFile has those for some devices, see Loader. RootListFile has
// those that wait for the root image and lie in it. Modules are .ko files, or .ko.xz which the kernel decompresses, with
// Debian's signatures, which the kernel checks under Secure Boot. There is no configuration; parameters come from the kernel
// command line as MODULE.PARAMETER=VALUE, which for modules is the loader's work, not the kernel's
// (Documentation/admin-guide/kernel-parameters.rst).
package kmod

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/internal/cmdline"
)

// The lists of modules in the initramfs.
const (
	ListFile     = "/etc/proa/modules"
	DriverFile   = "/etc/proa/drivers"
	RootListFile = "/etc/proa/root-modules"
)

// ParseList reads a list of modules. Every line must be a clean absolute path to a .ko or .ko.xz file, and none may appear twice.
func ParseList(text string) ([]string, error) {
	var list []string
	seen := map[string]bool{}
	for i, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		switch {
		case text == "":
			return nil, nil
		case !isModule(line):
			return nil, fmt.Errorf("module list: line %d: expected the absolute path of a .ko or .ko.xz file, found %q", i+1, line)
		case seen[line]:
			return nil, fmt.Errorf("module list: line %d: %s is listed twice", i+1, line)
		}
		seen[line] = true
		list = append(list, line)
	}
	return list, nil
}

const packed = ".xz"

// isModule reports whether s is the clean absolute path of a module's file.
func isModule(s string) bool {
	return path.IsAbs(s) && path.Clean(s) == s && Name(s) != "" && strings.HasSuffix(strings.TrimSuffix(s, packed), ".ko")
}

// Name returns the name the kernel has for the module in a file: dm_mod for /lib/modules/dm-mod.ko.
func Name(file string) string {
	return strings.ReplaceAll(strings.TrimSuffix(strings.TrimSuffix(path.Base(file), packed), ".ko"), "-", "_")
}

// Parameters returns the parameters the command line has for the module called name, as init_module(2) takes them.
func Parameters(l cmdline.Line, name string) string {
	var params []string
	for _, w := range l.Words() {
		module, param, ok := strings.Cut(w.Key, ".")
		if !ok || param == "" || strings.ReplaceAll(module, "-", "_") != name {
			continue
		}
		switch {
		case !w.HasValue:
			params = append(params, param)
		case strings.ContainsAny(w.Value, " \t\n\v\f\r"):
			params = append(params, param+`="`+w.Value+`"`)
		default:
			params = append(params, param+"="+w.Value)
		}
	}
	return strings.Join(params, " ")
}

// Load gives a module to the kernel. One that is loaded already, or that finds nothing to drive (ENODEV, as the
// accelerated checksums do on a processor without the instruction), is no error.
func Load(file, parameters string) error {
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("load module: %w", err)
	}
	defer f.Close()
	flags := 0
	if strings.HasSuffix(file, packed) {
		flags = unix.MODULE_INIT_COMPRESSED_FILE
	}
	err = unix.FinitModule(int(f.Fd()), parameters, flags)
	if err != nil && !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("load module %s: %w%s", file, err, hint(err))
	}
	return nil
}

// hint says what the kernel means.
func hint(err error) string {
	switch {
	case errors.Is(err, unix.ENOEXEC):
		return " (built for another kernel than the one running?)"
	case errors.Is(err, unix.ENOENT):
		return " (a module it needs is not loaded; the kernel log names the symbol)"
	case errors.Is(err, unix.EKEYREJECTED), errors.Is(err, unix.EPERM), errors.Is(err, unix.ENOKEY):
		return " (its signature is missing or not by a key of this kernel)"
	}
	return ""
}
