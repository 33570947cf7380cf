package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"

	"github.com/proa-os/proa/image-builder/platform"
	"github.com/proa-os/proa/internal/command"
	"github.com/proa-os/proa/internal/firstboot"
)

func platformCommand(c *common) command.Command {
	return command.Command{
		Name: "platform", Args: "IMAGE [PLATFORM]", Min: 1, Max: 2, Short: "name the platform in a disk image, for its first boot",
		Words: firstboot.Platforms(), Files: true,
		Long: `IMAGE is a disk image, raw or qcow2, or the directory of a built release, of which both disk images are changed. A machine is provisioned if its
kernel command line names its platform, and it is never guessed: this puts the name, and what else a first boot has to know, beside the boot
programs on the ESP, for UEFI (loader/addons/platform.addon.efi) and BIOS (grub/platform.env). Updates leave it there. Boot programs and slots
are not changed by a byte. Another PLATFORM takes the place of the one before; without PLATFORM the one that is there is printed.

PLATFORM is one of
` + strings.Join(firstboot.Platforms(), ", ") + `.

The parameters of --arg are ignition.config.url, where the config is, for all platforms; ignition.config.device and ignition.config.path, on which
file system it is, for metal; and how the network comes up, if not by DHCP: ` + networkParameters() + ` (systemd-network-generator(8)).

A later build into the same directory makes images without a platform again. Where Secure Boot is on, systemd-stub ignores the addon unless it is
signed with a key of the firmware.`,
		Examples: []string{"image-builder platform out/1.2.3 aws", "image-builder platform out/1.2.3 gcp --out disk.raw",
			"image-builder platform disk.img metal --arg ignition.config.url=https://config.example.com/web.ign", "image-builder platform disk.qcow2"},
		Setup: func(flags *flag.FlagSet) func(context.Context, []string) error {
			var parameters []string
			flags.Func("arg", "`KEY=VALUE` of a parameter; may be repeated", func(s string) error {
				parameters = append(parameters, s)
				return nil
			})
			out := flags.String("out", "", "`file` to write, in place of IMAGE: qcow2 if its name ends in .qcow2, else raw")
			remove := flags.Bool("remove", false, "take the platform out of the image")
			asJSON := flags.Bool("json", false, "print one JSON object")
			return func(ctx context.Context, args []string) error {
				r, err := runPlatform(ctx, args, parameters, *out, *remove)
				if err != nil {
					return err
				}
				return output(c.out, r, *asJSON, func(w io.Writer) error { return printPlatform(w, r) })
			}
		},
	}
}

// networkParameters are those that are no matter of provisioning.
func networkParameters() string {
	var names []string
	for _, p := range firstboot.Parameters("metal") {
		if !strings.HasPrefix(p, "ignition.") {
			names = append(names, p)
		}
	}
	return strings.Join(names, ", ")
}

func runPlatform(ctx context.Context, args, parameters []string, out string, remove bool) (*platform.Result, error) {
	switch {
	case len(args) == 2 && remove:
		return nil, command.Wrong("platform: --remove takes the platform away, and %s was given; leave one of them out", args[1])
	case remove && len(parameters) > 0:
		return nil, command.Wrong("platform: --remove takes all arguments away, and --arg %s was given; leave one of them out", parameters[0])
	case remove:
		return platform.Set(ctx, args[0], nil, out)
	case len(args) == 1 && (len(parameters) > 0 || out != ""):
		return nil, command.Wrong("platform: PLATFORM is missing (image-builder help platform)")
	case len(args) == 1:
		return platform.Read(args[0])
	}
	words, err := firstboot.Words(args[1], parameters)
	if err != nil {
		return nil, command.Wrong("platform: %w", err)
	}
	return platform.Set(ctx, args[0], words, out)
}

func printPlatform(w io.Writer, r *platform.Result) (err error) {
	for _, f := range r.Files {
		state := ""
		if f.Written {
			state = "written: "
		}
		if len(r.Arguments) == 0 {
			_, perr := fmt.Fprintf(w, "%s: %sno platform is named, so no machine of it is provisioned unless its firmware names one\n", f.Name, state)
			err = errors.Join(err, perr)
			continue
		}
		_, perr := fmt.Fprintf(w, "%s: %s%s\n", f.Name, state, strings.Join(r.Arguments, " "))
		err = errors.Join(err, perr)
	}
	return err
}
