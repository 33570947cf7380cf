package kernel

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/proa-os/proa/image-builder/manifest"
	"github.com/proa-os/proa/internal/testenv"
	"github.com/proa-os/proa/internal/tooltree"
)

func TestSelect(t *testing.T) {
	for _, tt := range []struct {
		name  string
		rules Rules
		want  string
	}{
		{"a module with what it needs", Rules{Keep: []string{"kernel/drivers/md/dm-verity"}}, "dm-bufio dm-mod dm-verity erofs libcrc32c crc32c-intel crc32c_generic"},
		{"a directory", Rules{Keep: []string{"kernel/crypto"}}, "crc32c_generic"},
		{"a pattern", Rules{Keep: []string{"kernel/drivers/*/dm-b*"}}, "dm-bufio dm-mod erofs libcrc32c crc32c-intel crc32c_generic"},
		{"dropped, but needed", Rules{Keep: []string{"kernel/fs", "kernel/lib"}, Drop: []string{"kernel/lib"}}, "erofs libcrc32c crc32c-intel crc32c_generic"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := index(t).Select(tt.rules)
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, p := range got {
				names = append(names, strings.TrimSuffix(filepath.Base(p), ".ko"))
			}
			want := strings.Fields(tt.want)
			slices.Sort(names)
			slices.Sort(want)
			if !slices.Equal(names, want) {
				t.Errorf("got %q, want %q", names, want)
			}
		})
	}
}

func TestSelectRefuses(t *testing.T) {
	for _, tt := range []struct {
		rules Rules
		want  string
	}{
		{Rules{Keep: []string{"kernel/fs", "kernel/soundd"}}, `kernel.keep: ["kernel/soundd"]`},
		{Rules{Keep: []string{"kernel/fs", "kernel/fs/erofs"}}, `kernel.keep: ["kernel/fs/erofs"]`},
		{Rules{Keep: []string{"kernel/fs"}, Drop: []string{"kernel/lib"}}, `kernel.drop: ["kernel/lib"]`},
		{Rules{Keep: []string{"kernel/["}}, "syntax error"},
	} {
		if _, err := index(t).Select(tt.rules); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: got %v, want an error with %q", tt.rules, err, tt.want)
		}
	}
}

// toolsKernel returns the modules' directory of the kernel package in the tools tree, and its version.
func toolsKernel(t *testing.T, tools *tooltree.Tree) (dir, version string) {
	t.Helper()
	dirs, err := filepath.Glob(tools.Path("usr/lib/modules/*"))
	if err != nil || len(dirs) != 1 {
		t.Fatalf("kernels in the tools tree: got %q, %v, want one", dirs, err)
	}
	return dirs[0], filepath.Base(dirs[0])
}

// manifestKernel returns the whole kernel package's index, and the modules that the manifest's rules keep of it.
func manifestKernel(t *testing.T) (*Index, []string) {
	t.Helper()
	tools := testenv.Tools(t)
	dir, version := toolsKernel(t, tools)
	m, err := manifest.Read("../../manifests/image.toml")
	if err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	depmod := tools.Command(t.Context(), "depmod", "-b", tools.Dir(), "-o", out, "-m", "/usr/lib/modules", version)
	if output, err := depmod.CombinedOutput(); err != nil {
		t.Fatalf("depmod: %v\n%s", err, output)
	}
	x, err := ReadIndex(func(name string) (io.ReadCloser, error) {
		if f, err := os.Open(filepath.Join(out, "usr/lib/modules", version, name)); err == nil {
			return f, nil
		}
		return os.Open(filepath.Join(dir, name))
	})
	if err != nil {
		t.Fatal(err)
	}
	rules := m.Kernel.For("amd64")
	kept, err := x.Select(Rules{Keep: rules.Keep, Drop: rules.Drop})
	if err != nil {
		t.Fatal(err)
	}
	return x, kept
}

// TestManifestSelects holds the manifest's rules against the whole kernel package: what servers and virtual machines cannot do
// without is there, what they have no use for is not.
func TestManifestSelects(t *testing.T) {
	x, kept := manifestKernel(t)
	names := map[string]bool{}
	for _, p := range kept {
		names[nameOf(p)] = true
		for _, family := range unwanted {
			if strings.HasPrefix(p, family) {
				t.Errorf("%s is in the image", p)
			}
		}
		for _, d := range x.deps[p] {
			if !slices.Contains(kept, d) {
				t.Errorf("%s needs %s, which is not in the image", p, d)
			}
		}
	}
	for _, n := range strings.Fields(wanted) {
		if n = normalise(n); !names[n] && !x.builtin[n] {
			t.Errorf("%s is not in the image", n)
		}
	}
	for _, n := range strings.Fields(unwantedNames) {
		if names[normalise(n)] {
			t.Errorf("%s is in the image", n)
		}
	}
}

// TestManifestKeepsWhatIgnitionLoads: a module that provisioning loads by its name is in the image, or a platform works in tests only.
func TestManifestKeepsWhatIgnitionLoads(t *testing.T) {
	x, kept := manifestKernel(t)
	names := map[string]bool{}
	for _, p := range kept {
		names[nameOf(p)] = true
	}
	loads := loadedBy(t, "../../ignition")
	if !loads["qemu_fw_cfg"] {
		t.Fatalf("the calls of Load in ignition name %v: want at least qemu_fw_cfg", loads)
	}
	for n := range loads {
		if reason := elsewhere[n]; reason != "" {
			if names[normalise(n)] {
				t.Errorf("%s is in the image, but said not to be: %s", n, reason)
			}
			continue
		}
		if n := normalise(n); !names[n] && !x.builtin[n] {
			t.Errorf("ignition loads %s, which is not in the image: keep it in manifests/image.toml", n)
		}
	}
}

// elsewhere are modules that ignition loads and an image for amd64 need not have, and why.
var elsewhere = map[string]string{"mlxbf_bootctl": "BlueField cards have arm64 processors"}

// loadedBy returns the names that the programs below dir write in a call of a function Load behind its context.
func loadedBy(t *testing.T, dir string) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	err := filepath.WalkDir(dir, func(name string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) < 2 {
				return true
			}
			if f, ok := call.Fun.(*ast.SelectorExpr); !ok || f.Sel.Name != "Load" {
				return true
			}
			for _, a := range call.Args[1:] {
				if l, ok := a.(*ast.BasicLit); ok && l.Kind == token.STRING {
					n, err := strconv.Unquote(l.Value)
					if err != nil {
						t.Fatal(err)
					}
					names[n] = true
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// wanted are modules (or built-in functions) that people look for on a container host.
const wanted = `
virtio_pci virtio_mmio virtio_blk virtio_scsi virtio_net virtio_balloon virtio_console virtio-rng virtio_input virtiofs virtio_pmem virtio-iommu
hv_vmbus hv_storvsc hv_netvsc hv_utils hv_balloon hv_sock hyperv-keyboard hid-hyperv pci-hyperv
vmw_pvscsi vmxnet3 vmw_balloon vmw_vmci vmw_vsock_vmci_transport mptspi mptsas
xen-blkfront xen-netfront xen-scsifront xen-pcifront nsm pvpanic-pci ptp_kvm sev-guest tdx-guest
ahci ata_piix ata_generic nvme nvme-tcp nvme-fc vmd sd_mod sr_mod sg ses megaraid_sas mpt3sas mpi3mr smartpqi hpsa aacraid qla2xxx lpfc
iscsi_tcp iscsi_ibft scsi_dh_alua dm-multipath nd_pmem
usb-storage uas xhci-pci ehci-pci ohci-pci uhci-hcd usbhid hid-generic evdev
e1000 e1000e igb igbvf igc ixgbe ixgbevf i40e iavf ice idpf tg3 bnx2 bnx2x bnxt_en mlx4_en mlx5_core r8169 8139too 8139cp ena gve mana
atlantic amd-xgbe pcnet32 sfc cxgb4 cxgb4vf enic be2net qede ionic nfp hinic sky2 realtek marvell broadcom
overlay erofs ext4 xfs btrfs vfat exfat isofs udf squashfs fuse autofs4 nfs nfsv3 nfsv4 cifs ceph 9p efivarfs binfmt_misc
dm-mod dm-verity dm-crypt dm-integrity dm-thin-pool dm-snapshot dm-cache dm-mirror dm-raid dm-writecache
md-mod raid0 raid1 raid10 raid456 loop nbd rbd zram
nf_tables nft_ct nft_nat nft_masq nft_reject_inet nft_compat nft_chain_nat nft_fib_inet nft_log nft_limit nft_redir nf_conntrack nf_nat
ip_tables iptable_nat ip6table_filter xt_conntrack xt_MASQUERADE xt_addrtype xt_comment xt_mark xt_multiport xt_set ip_set_hash_net
ip_vs ip_vs_rr ip_vs_wrr ip_vs_sh br_netfilter bridge veth macvlan ipvlan macvtap tun tap dummy ifb vrf bonding team 8021q
vxlan geneve wireguard ipip sit ip_gre ip6_gre ip6_tunnel esp4 esp6 ah4 xfrm_user xfrm_interface openvswitch sctp tls tcp_bbr mptcp_diag inet_diag
sch_fq sch_fq_codel sch_htb sch_ingress sch_netem cls_bpf cls_flower act_mirred
vsock vmw_vsock_virtio_transport vhost vhost_net vhost_vsock vfio-pci kvm kvm-intel kvm-amd
tpm_tis tpm_crb softdog iTCO_wdt i6300esb hpwdt sp5100_tco wdat_wdt ipmi_si ipmi_devintf ipmi_watchdog
coretemp k10temp drivetemp amd64_edac skx_edac i10nm_edac sb_edac acpi-cpufreq x86_pkg_temp_thermal intel_rapl_msr button qemu_fw_cfg
aesni-intel sha256-ssse3 crc32c-intel crc32c_generic gcm ccm cmac md4 md5 algif_hash algif_skcipher xts`

// unwanted are families that must not come back, not even as what something else needs; unwantedNames are single modules.
var unwanted = []string{
	"kernel/sound/", "kernel/drivers/gpu/", "kernel/drivers/media/", "kernel/drivers/bluetooth/", "kernel/drivers/infiniband/hw/",
	"kernel/drivers/iio/", "kernel/drivers/input/joystick/", "kernel/drivers/input/tablet/", "kernel/drivers/input/touchscreen/",
	"kernel/drivers/isdn/", "kernel/drivers/net/can/", "kernel/drivers/net/hamradio/", "kernel/drivers/net/wireless/", "kernel/drivers/net/wwan/",
	"kernel/drivers/nfc/", "kernel/drivers/parport/", "kernel/drivers/pcmcia/", "kernel/drivers/staging/", "kernel/drivers/thunderbolt/",
	"kernel/drivers/usb/gadget/", "kernel/drivers/firewire/", "kernel/drivers/comedi/", "kernel/drivers/accel/",
	"kernel/net/bluetooth/", "kernel/net/mac80211/", "kernel/net/wireless/", "kernel/net/can/", "kernel/net/ax25/", "kernel/net/nfc/", "kernel/net/appletalk/",
	"kernel/net/atm/", "kernel/net/tipc/", "kernel/net/rds/", "kernel/net/dccp/", "kernel/net/rose/", "kernel/net/netrom/", "kernel/net/rxrpc/",
}

const unwantedNames = `
floppy pcspkr tcrypt test_bpf null_blk scsi_debug bcachefs reiserfs ocfs2 gfs2 jfs hfs hfsplus ntfs3 f2fs nilfs2 minix ufs sysv affs befs nfsd ksmbd`
