package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/proa-os/proa/ignition/keyring"
	"github.com/proa-os/proa/ignition/platform"
	"github.com/proa-os/proa/ignition/stage"
	"github.com/proa-os/proa/internal/command"
)

const stageManual = `Runs a stage of a first boot, or several with commas between them. "ignition -stage STAGE" is the same; flags, stages, environment and exit codes are those of upstream's ignition, so that what drives one drives the other.

Stages:
  fetch-offline   read the config of the platform, check it, cache it; if
                  that needs the network, make the file of -neednet instead
  network         start provision-network.service if fetch-offline has made
                  that file
  fetch           the same as fetch-offline, with the network; nothing if it
                  is cached already
  kargs           make the machine boot with the kernel arguments of the
                  config; if it does not yet, it starts again
  disks           make partitions, arrays, encrypted volumes and file
                  systems
  mount, umount   mount the file systems of the config below -root, and take
                  them away
  files           apply the rest of the cached config to -root

Platforms:
  qemu            firmware configuration device, key opt/com.coreos/config
  metal           ignition.config.url=, or ignition.config.device= and
                  ignition.config.path=, on the kernel command line, or the
                  file config.ign on a medium labelled "ignition"
  file            the file $IGNITION_CONFIG_FILE, or config.ign
  and, as their metadata services, drives and devices give it: akamai,
  aliyun, applehv, aws, azure, azurestack, brightbox, cloudstack,
  digitalocean, exoscale, gcp, hetzner, hyperv, ibmcloud, kubevirt,
  nutanix, nvidiabluefield, openstack, oraclecloud, packet, powervs,
  proxmoxve, scaleway, upcloud, virtualbox, vmware, vultr.
  A platform is never guessed.

Environment:
  IGNITION_CONFIG_FILE        the config of -platform file
  IGNITION_SYSTEM_CONFIG_DIR  configs of the image (/usr/lib/ignition):
                              user.ign instead of the platform's; beneath it
                              base.platform.d/ID/* and base.d/*
  IGNITION_WRITE_AUTHORIZED_KEYS_FRAGMENT
                              false: ssh keys go into
                              ~/.ssh/authorized_keys, not into
                              ~/.ssh/authorized_keys.d/ignition

Files:
  /var/lib/ignition/provisioned   exists on a provisioned machine
  /var/lib/ignition/result.json   when, from which config, in which boot
  /var/lib/ignition/journal       which files provisioning has made, and
                                  what was there before
  /var/lib/ignition/devices.json  what provisioning has made of disks, or
                                  was making
  /var/lib/ignition/original/     contents of files that provisioning has
                                  changed
  /var/lib/ignition/applied.json  what provisioning has made, for drift
  /var/lib/ignition/delete-config the platform is still to delete the config
  /var/lib/ignition/reset         a request to forget all this at the next
                                  boot
  /run/ignition/failure           the error, for the consoles`

// stageFlags registers upstream's flags.
func (p *program) stageFlags(flags *flag.FlagSet) (toStdout *bool, fetchTimeout *time.Duration) {
	flags.StringVar(&p.Platform, "platform", "", "the `id` of the platform (default: ignition.platform.id= of the kernel command line)")
	flags.StringVar(&p.Root, "root", "/", "root of the file tree, a `directory`")
	flags.StringVar(&p.ConfigCache, "config-cache", "/run/ignition.json", "`file` for the merged config; it holds secrets, for root only")
	flags.StringVar(&p.StateFile, "state-file", "/run/ignition/state", "`file` for what else stages pass on")
	flags.StringVar(&p.NeedNet, "neednet", "/run/ignition/neednet", "flag `file` that fetch-offline makes if it needs the network")
	if p.Failure == "" { // tests have their own, and leave the host's alone
		p.Failure, p.Restart, p.Reread = "/run/ignition/failure", "/run/ignition/restart", "/run/ignition/reread"
	}
	return flags.Bool("log-to-stdout", false, "log to standard output, not to standard error"),
		flags.Duration("fetch-timeout", 0, "how long the config of the platform may take, a `duration` (default 10m0s)")
}

// defaults are the flags of who has none.
func (p *program) defaults() { p.stageFlags(flag.NewFlagSet("", flag.ContinueOnError)) }

// upstream takes the flags of upstream's program.
func (p *program) upstream(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("ignition", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	stages := flags.String("stage", "", "")
	version := flags.Bool("version", false, "")
	run := p.stageCommand(flags)
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return p.run(ctx, []string{"help", "stage"})
	case err != nil:
		return command.Wrong("%w; ignition help stage has the flags", err)
	case *version:
		return p.version(nil)(ctx, nil)
	case *stages == "" || flags.NArg() > 0:
		return command.Wrong("expected -stage with one of %s, and no arguments, or a command; ignition help lists the commands", strings.Join(stage.Stages(), ", "))
	}
	return run(ctx, []string{*stages})
}

func (p *program) stageCommand(flags *flag.FlagSet) func(context.Context, []string) error {
	toStdout, fetchTimeout := p.stageFlags(flags)
	return func(ctx context.Context, args []string) error {
		p.Stage = args[0]
		for name := range strings.SplitSeq(p.Stage, ",") {
			if !slices.Contains(stage.Stages(), name) {
				return command.Wrong("stage %q: expected one of %s", name, strings.Join(stage.Stages(), ", "))
			}
		}
		if p.Platform != "" {
			if _, err := platform.Lookup(p.Platform); err != nil {
				return command.Wrong("%w", err)
			}
		}
		switch fragment := p.getenv("IGNITION_WRITE_AUTHORIZED_KEYS_FRAGMENT"); fragment {
		case "", "true", "1":
		case "false", "0":
			p.PlainKeys = true
		default:
			return command.Wrong("IGNITION_WRITE_AUTHORIZED_KEYS_FRAGMENT: expected true, 1, false or 0, found %q", fragment)
		}
		if *toStdout {
			p.logTo(p.stdout)
		}
		m, err := p.machine()
		if err != nil {
			return err
		}
		m.Total = *fetchTimeout
		p.Fetcher.Secrets = keyring.ThisMachine().Open
		return stage.Run(ctx, m, p.Options)
	}
}

// machine is the one this program runs on.
func (p *program) machine() (*platform.Machine, error) {
	m, err := platform.ThisMachine()
	if err != nil {
		return nil, err
	}
	m.Getenv, m.Route = p.getenv, p.Fetcher.Route
	return m, nil
}

func (p *program) rmcfg(flags *flag.FlagSet) func(context.Context, []string) error {
	p.stageFlags(flags)
	return func(ctx context.Context, _ []string) error {
		m, err := p.machine()
		if err != nil {
			return err
		}
		id := p.Platform
		if id == "" {
			if id, err = platform.Argument(m.CommandLine); err != nil {
				return err
			}
		}
		found, err := platform.Lookup(id)
		if err != nil {
			return command.Wrong("%w", err)
		}
		deleted, err := stage.Delete(ctx, m, p.Options, found)
		switch {
		case err != nil:
			return fmt.Errorf("delete the config: %w", err)
		case !deleted:
			return fmt.Errorf("delete the config: platform %s has no way to; delete it in the platform's console", id)
		}
		_, err = fmt.Fprintf(p.stdout, "platform %s has deleted the config of this machine\n", id)
		return err
	}
}
