// Package firstboot is what the kernel command line tells a machine's first boot: which platform it is on, and how it comes to its
// config before it has one.
//
//	ignition.platform.id=aws
//	ignition.platform.id=metal ignition.config.url=https://config.example.com/web.ign ip=192.0.2.10::192.0.2.1:255.255.255.0::eth0:off
//
// image-builder puts these words beside the boot programs of an image (package image-builder/platform), and ignition reads them (package
// ignition/platform). Whatever else a kernel can be told is the config's matter, or the build's.
package firstboot

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/proa-os/proa/internal/nearest"
)

// PlatformKey is the argument that names the platform.
const PlatformKey = "ignition.platform.id"

// AddonFile is where the words are on the ESP for machines with UEFI: an addon of systemd-stub (package uki). Of addons the
// order is that of their names, so these words come behind a config's. For those with a BIOS it is grubenv.PlatformFile.
const AddonFile = "loader/addons/platform.addon.efi"

// Platforms are the ids of all platforms, sorted. A test of package ignition/platform holds them against its table.
func Platforms() []string {
	return []string{"akamai", "aliyun", "applehv", "aws", "azure", "azurestack", "brightbox", "cloudstack", "digitalocean", "exoscale", "file", "gcp",
		"hetzner", "hyperv", "ibmcloud", "kubevirt", "metal", "nutanix", "nvidiabluefield", "openstack", "oraclecloud", "packet", "powervs", "proxmoxve",
		"qemu", "scaleway", "upcloud", "virtualbox", "vmware", "vultr"}
}

// Parameters are the keys that a first boot reads beside the platform: of all platforms where the config is, and how the network comes up
// (systemd-network-generator(8)); of metal alone the disk that holds the config.
func Parameters(platform string) []string {
	keys := []string{"ignition.config.url"}
	if platform == "metal" {
		keys = append(keys, "ignition.config.device", "ignition.config.path")
	}
	return append(keys, "ip", "nameserver", "rd.route", "rd.peerdns", "vlan", "bond", "bridge", "ifname")
}

// repeated are the parameters that may be there more than once.
var repeated = [...]string{"ip", "nameserver", "rd.route", "vlan", "bond", "bridge", "ifname"}

// Words returns the kernel arguments for a platform with parameters, KEY=VALUE each, in their order.
func Words(platform string, parameters []string) ([]string, error) {
	if !slices.Contains(Platforms(), platform) {
		hint := ""
		if near := nearest.Word(platform, Platforms()); near != "" {
			hint = fmt.Sprintf(" (did you mean %s?)", near)
		}
		return nil, fmt.Errorf("unknown platform %q%s: expected one of %s", platform, hint, strings.Join(Platforms(), ", "))
	}
	words := []string{PlatformKey + "=" + platform}
	keys := map[string]bool{}
	for _, p := range parameters {
		key, value, ok := strings.Cut(p, "=")
		switch {
		case key == PlatformKey:
			return nil, fmt.Errorf("parameter %q: the platform is named once; leave this one out", p)
		case !slices.Contains(Parameters(platform), key):
			return nil, fmt.Errorf("parameter %q of platform %s: expected one of %s; another kernel argument belongs into the config (kernelArguments), or into the build (--command-line)",
				p, platform, strings.Join(Parameters(platform), ", "))
		case !ok || value == "":
			return nil, fmt.Errorf("parameter %q: expected %s=VALUE", p, key)
		case keys[key] && !slices.Contains(repeated[:], key):
			return nil, fmt.Errorf("parameter %q: %s is there twice; leave one of them out", p, key)
		case strings.ContainsFunc(p, unfit):
			return nil, fmt.Errorf("parameter %q: expected printable ASCII without spaces, quotes, $ and backslashes, which a loader would not hand over as they are; in a URL write %%20, %%22, %%24 and their like", p)
		case key == "ignition.config.url":
			if u, err := url.Parse(value); err != nil || u.Scheme == "" {
				return nil, fmt.Errorf("parameter %q: expected a URL such as https://config.example.com/web.ign", p)
			}
		}
		keys[key] = true
		words = append(words, p)
	}
	return words, nil
}

// unfit reports whether one of the loaders would change the character on its way to the kernel.
func unfit(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`"'\$`, r) }

// Platform returns the platform that words of a kernel command line name first; empty if none does.
func Platform(words []string) string {
	for _, w := range words {
		if id, ok := strings.CutPrefix(w, PlatformKey+"="); ok && id != "" {
			return id
		}
	}
	return ""
}
