#!/bin/bash
# Makes an installed Debian of the unpacked packages in /var/cache/apt/archives, in the order in which debootstrap's second stage
# does it. Package guest runs it as root of the machine, with this file system as /. What it says on lines that begin with "step"
# is what the person who waits sees.
set -eu
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true
export DEBCONF_NOWARNINGS=yes

step() { echo "step $*"; }
debs() { for name; do ls "/var/cache/apt/archives/${name}_"*.deb; done; }
# dpkg's flushes buy nothing: nobody cuts this machine's power, and a half-made disk is thrown away.
dpkg() { command dpkg --force-unsafe-io --force-depends --force-confold "$@" < /dev/null; }

# No service may start while packages are configured.
printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
chmod 0755 /usr/sbin/policy-rc.d
mkdir -p /var/lib/dpkg
touch /var/lib/dpkg/status /var/lib/dpkg/available
echo debian > /etc/hostname
printf '127.0.0.1 localhost\n127.0.1.1 debian\n::1 localhost ip6-localhost ip6-loopback\n' > /etc/hosts
printf 'UUID=%s / ext4 errors=remount-ro 0 1\n' "$ROOT_UUID" > /etc/fstab

step "installing the base packages"
dpkg --install $(debs base-passwd)
dpkg --install $(debs base-files)
dpkg --install $(debs dpkg)
dpkg --install $(debs libc6 perl-base mawk debconf)
step "unpacking $(ls /var/cache/apt/archives/*.deb | wc -l) packages"
dpkg --unpack --skip-same-version /var/cache/apt/archives/*.deb
step "configuring the packages; then the initramfs is made"
dpkg --configure --pending
rm /usr/sbin/policy-rc.d /var/cache/apt/archives/*.deb
command dpkg --audit

step "enabling network and ssh"
printf '[Match]\nType=ether\n\n[Network]\nDHCP=yes\n' > /etc/systemd/network/80-dhcp.network
systemctl enable systemd-networkd.service systemd-resolved.service systemd-timesyncd.service ssh.service
install -d -m 0700 /root/.ssh
printf '%s\n' "$AUTHORIZED_KEY" > /root/.ssh/authorized_keys
chmod 0600 /root/.ssh/authorized_keys
[ -s /etc/ssh/ssh_host_ed25519_key ] || ssh-keygen -A

# The loader's files have fixed names; Debian's have the kernel's version.
cp -L "$(ls /boot/vmlinuz-*)" /boot/loader-linux
cp -L "$(ls /boot/initrd.img-*)" /boot/loader-initrd
rm /configure.sh
