package main

const manual = `NAME
    ignition - provision a machine from an Ignition config

SYNOPSIS
    ignition check CONFIG...
    ignition plan [-image [DEVICE=]IMAGE]... [-root DIR] CONFIG
    ignition apply [-root DIR] CONFIG
    ignition drift [-root DIR]
    ignition reset [-root DIR] [-keep PATH...]
    ignition -stage STAGE [-platform ID] [-root DIR] [-config-cache FILE] [-state-file FILE]
             [-neednet FILE] [-log-to-stdout]
    ignition finish
    ignition show-failure

DESCRIPTION
    An Ignition config (spec 3.0.0 to 3.6.0) describes users, ssh keys, files, directories, links and
    units, disks and file systems. On its first boot a machine gets it from its platform, applies it before anything else starts, and
    never again. An error stops the machine with the reason on every console; the next boot tries again.

COMMANDS
    check CONFIG...
        Report everything wrong with each config, with path, line, column, what was expected, what was found
        and what to do. Unknown keys are errors. "-" is standard input.
    plan [-image [DEVICE=]IMAGE]... [-root DIR] CONFIG
        Show the operations in their order and where the config asks for them. With a disk image in the place
        of a device: which partitions would be kept, made, resized or deleted there, and why. With a tree:
        what each operation would find. Nothing is changed. Exit status 1 if something would be refused.
    apply [-root DIR] CONFIG
        Apply a config to the file tree DIR. It can be run again and ends the same.
    drift [-root DIR]
        Show what differs now from what was provisioned, and where the config asked for it. Exit status 1 if
        anything does.
    reset [-keep PATH...]
        Ask for a new first boot: the next start of the machine (systemctl reboot; a soft reboot is not enough)
        forgets everything in /var and /etc but the paths to keep, and provisions the machine from what its
        platform gives it then. Owners of kept files are numbers: describe the users with the same ids.
        Until then, removing the file /var/lib/ignition/reset takes the request back.
    finish
        Write the result and the marker that make a first boot the last first boot.
    show-failure
        Write the error of the last stage to every console, and the journal of this boot, as JSON, to the virtio port
        com.coreos.ignition.journal of a virtual machine that has one.

FLAGS
    -stage STAGE
        fetch-offline   read the config of the platform, check it, cache it; if that needs the network,
                        make the file that -neednet names instead
        network         start provision-network.service if fetch-offline has made that file
        fetch           the same as fetch-offline, with the network; nothing if it is cached already
        disks           make partitions, arrays, encrypted volumes and file systems
        mount, umount   mount the file systems of the config below -root, and take them away
        files           apply the rest of the cached config to -root
                        Several, with commas between them, are run in their order.
    -platform ID
        qemu            firmware configuration device, key opt/com.coreos/config
        metal           ignition.config.url= or ignition.config.device= and ignition.config.path= on the kernel command
                        line, or the file config.ign on a medium labelled "ignition"
        file            the file $IGNITION_CONFIG_FILE, or config.ign
        and, as their metadata services, drives and devices give it: akamai, aliyun, applehv, aws, azure, azurestack,
        brightbox, cloudstack, digitalocean, exoscale, gcp, hetzner, hyperv, ibmcloud, kubevirt, nutanix,
        nvidiabluefield, openstack, oraclecloud, packet, powervs, proxmoxve, scaleway, upcloud, virtualbox, vmware, vultr
        Without this flag the kernel argument ignition.platform.id= is used. A platform is never guessed.
    -root DIR           root of the file tree (/)
    -config-cache FILE  the merged config (/run/ignition.json); holds secrets, for root only
    -state-file FILE    what else stages pass on (/run/ignition/state)
    -neednet FILE       flag file of fetch-offline (/run/ignition/neednet)
    -log-to-stdout      log to standard output, not to standard error
    -version, -help

ENVIRONMENT
    IGNITION_CONFIG_FILE        the config of -platform file
    IGNITION_SYSTEM_CONFIG_DIR  configs of the image (/usr/lib/ignition): user.ign instead of the platform's; beneath it
                                base.platform.d/ID/* and base.d/*

FILES
    /var/lib/ignition/provisioned   exists on a provisioned machine
    /var/lib/ignition/result.json   when, from which config, in which boot
    /var/lib/ignition/journal       which files provisioning has made, and what was there before
    /var/lib/ignition/devices.json  what provisioning has made of disks, or was making
    /var/lib/ignition/original/     contents of files that provisioning has changed
    /var/lib/ignition/applied.json  what provisioning has made, for drift
    /var/lib/ignition/reset         a request to forget all this at the next boot

EXIT STATUS
    0 success, 1 error, 2 wrong usage
`
