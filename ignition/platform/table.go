package platform

import (
	"net/http"
	"time"
)

// The services that more than one item of the table is asked of.
const linkLocal = "http://169.254.169.254"

// stickWait is how long a stick or a BMC's virtual medium may take to appear after the device before it (controller, hub, stick, disk): two
// descriptors that are not answered (usbcore's initial_descriptor_timeout, 5 s each, which a BMC that turns its medium on just
// then and a slow stick are known for), then debouncing, usb-storage's delay_use (1 s) and the disk's own start. A machine that is provisioned
// without the config of its stick has nobody's keys: it is locked, so waiting too long is the smaller harm. A chain of all of these
// takes less than stickLongest, which is for devices that never stop appearing.
const (
	stickWait    = 15 * time.Second
	stickLongest = time.Minute
)

// table is all platforms: an id that upstream gives, the origins of its config, and what else is there. The sources are upstream's
// docs/supported-platforms.md and Afterburn's docs/platforms.md, and the documentation of each platform.
func table() []Platform {
	plain := service{base: linkLocal}
	aws := amazonService()
	azure := service{base: linkLocal, headers: []string{"Metadata: true"}, again: []int{http.StatusNotFound, http.StatusGone, http.StatusTooManyRequests}}
	azureFacts := azure
	azureFacts.again = []int{http.StatusGone, http.StatusTooManyRequests}
	google := googleService()
	akamai := service{base: linkLocal, accept: "*/*", token: &token{
		path: "/v1/token", headers: []string{"Accept: text/plain", "Metadata-Token-Expiry-Seconds: 300"}, header: "Metadata-Token",
	}}
	akamaiFacts := akamai
	akamaiFacts.accept = "application/json"
	oracle := service{base: linkLocal, headers: []string{"Authorization: Bearer Oracle"}, again: []int{http.StatusTooManyRequests}}
	alibaba := service{base: "http://100.100.100.200"}
	equinix := service{base: "https://metadata.packet.net", accept: "*/*"}
	scaleway := service{base: "http://169.254.42.42", lowPort: true}
	configDrive := drive{labels: []string{"config-2"}}
	openstack := []origin{
		novaOrigin(drive{labels: []string{"config-2"}, present: true}),
		novaOrigin(plain),
		novaOrigin(service{base: "http://[fe80::a9fe:a9fe%25LINK]", links: true}),
	}
	noCloud := origin{
		at: drive{labels: []string{"cidata"}}, config: []string{"/user-data"},
		hostname: item{path: "/meta-data", as: jsonOr("local-hostname", yamlValue("local-hostname"))},
	}
	ibm := waiting(noCloud, 30*time.Second)
	ibm.keys = item{path: "/vendor-data", as: cloudConfigs(yamlValue("ssh_authorized_keys"))}
	kubevirt := noCloud
	kubevirt.keys = item{path: "/meta-data", as: jsonOr("public-keys.*", yamlValue("public-keys"))}
	return []Platform{
		{ID: "akamai", origins: []origin{{at: akamai, config: []string{"/v1/user-data"}, as: fromBase64,
			keys: item{path: "/v1/ssh-keys", as: jsonAt("users.*.*")}, facts: akamaiFacts}}},
		{ID: "aliyun", origins: []origin{{at: alibaba, config: []string{"/latest/user-data"},
			hostname: item{path: "/latest/meta-data/hostname", as: lines}, keys: item{path: keysDirectory, as: indexed}}}},
		{ID: "applehv", origins: []origin{{at: guestPlace{label: "vsock 2:1024", read: appleConfig}, config: []string{""}}}},
		{ID: "aws", origins: []origin{{at: aws, config: []string{"/2019-10-01/user-data"},
			hostname: item{path: "/2021-01-03/meta-data/hostname", as: lines}, keys: item{path: keysDirectory, as: indexed}}}},
		{ID: "azure", inTurn: true, origins: []origin{
			azureOrigin(azure, azureFacts, "/metadata/instance/compute/userData?api-version=2021-01-01&format=text", fromBase64),
			azureOrigin(drive{optical: true, holding: "/ovf-env.xml"}, azureFacts, "/CustomData.bin", nil)}},
		{ID: "azurestack", origins: []origin{{at: drive{optical: true, holding: "/ovf-env.xml"}, config: []string{"/CustomData.bin"}}}},
		{ID: "brightbox", origins: openstack},
		{ID: "cloudstack", origins: []origin{
			{at: drive{labels: []string{"config-2"}, present: true}, config: []string{"/cloudstack/userdata/user_data.txt"},
				hostname: item{path: "/cloudstack/metadata/local_hostname.txt", as: lines}, keys: item{path: "/cloudstack/metadata/public_keys.txt", as: lines}},
			{at: dhcpServer{}, config: []string{"/latest/user-data"},
				hostname: item{path: "/latest/meta-data/local-hostname", as: lines}, keys: item{path: "/latest/meta-data/public-keys", as: lines}}}},
		{ID: "digitalocean", origins: []origin{{at: plain, config: []string{"/metadata/v1/user-data"},
			hostname: item{path: "/metadata/v1.json", as: jsonAt("hostname")}, keys: item{path: "/metadata/v1.json", as: jsonAt("public_keys.*")}}}},
		{ID: "exoscale", origins: []origin{{at: plain, config: []string{"/1.0/user-data"},
			hostname: item{path: "/1.0/meta-data/local-hostname", as: lines}, keys: item{path: "/1.0/meta-data/public-keys", as: lines}}}},
		{ID: "file", origins: []origin{{at: guestPlace{read: fileConfig}, config: []string{""}}}},
		{ID: "gcp", origins: []origin{{at: google, config: []string{"/computeMetadata/v1/instance/attributes/user-data"},
			hostname: item{path: "/computeMetadata/v1/instance/hostname", as: lines}, keys: item{path: "/computeMetadata/v1/instance/attributes/ssh-keys", as: googleKeys, always: true}}}},
		{ID: "hetzner", origins: []origin{{at: plain, config: []string{"/hetzner/v1/userdata"},
			hostname: item{path: "/hetzner/v1/metadata/hostname", as: lines}, keys: item{path: "/hetzner/v1/metadata/public-keys", as: jsonAt("*")}}}},
		{ID: "hyperv", origins: []origin{{at: guestPlace{label: "Hyper-V key ignition.config", read: hypervConfig}, config: []string{""}}}},
		{ID: "ibmcloud", origins: []origin{ibm}},
		{ID: "kubevirt", origins: []origin{kubevirt, novaOrigin(configDrive)}},
		{ID: "metal", inTurn: true, origins: []origin{
			{at: commandLineDrive{}, config: []string{""}},
			{at: drive{labels: []string{"ignition"}, wait: stickWait, longest: stickLongest}, config: []string{"/config.ign", "/ignition/config.ign"}}}},
		{ID: "nutanix", origins: []origin{novaOrigin(configDrive)}},
		{ID: "nvidiabluefield", origins: []origin{{at: guestPlace{label: "bootfifo", read: bluefieldConfig}, config: []string{""}}}},
		{ID: "openstack", origins: openstack},
		{ID: "oraclecloud", origins: []origin{{at: oracle, config: []string{"/opc/v2/instance/metadata/user_data"}, as: fromBase64,
			hostname: item{path: "/opc/v2/instance/", as: jsonAt("hostname")}, keys: item{path: "/opc/v2/instance/", as: jsonAt("metadata.ssh_authorized_keys")}}}},
		{ID: "packet", report: phoneHome(equinix), origins: []origin{{at: equinix, config: []string{"/userdata"},
			hostname: item{path: "/metadata", as: jsonAt("hostname")}, keys: item{path: "/metadata", as: jsonAt("ssh_keys.*")}}}},
		{ID: "powervs", origins: []origin{novaOrigin(configDrive)}},
		{ID: "proxmoxve", origins: []origin{{at: drive{labels: []string{"cidata"}, wait: 30 * time.Second}, skipCloud: true,
			config:   []string{"/user-data", "/vendor-data"},
			hostname: item{path: "/user-data", as: yamlValue("hostname")}, keys: item{path: "/user-data", as: yamlValue("ssh_authorized_keys")}}}},
		{ID: "qemu", origins: []origin{{at: guestPlace{label: "fw_cfg opt/com.coreos/config", read: qemuConfig}, config: []string{""}}}},
		{ID: "scaleway", origins: []origin{{at: scaleway, config: []string{"/user_data/cloud-init"},
			hostname: item{path: "/conf?format=json", as: jsonAt("hostname")}, keys: item{path: "/conf?format=json", as: jsonAt("ssh_public_keys.*.key")}}}},
		{ID: "upcloud", origins: []origin{{at: plain, config: []string{"/metadata/v1/user_data"},
			hostname: item{path: "/metadata/v1/hostname", as: lines}, keys: item{path: "/metadata/v1/public_keys", as: lines}}}},
		{ID: "virtualbox", remove: removeVirtualBox, origins: []origin{{at: guestPlace{label: "guest property /Ignition/Config", read: virtualboxConfig}, config: []string{""}}}},
		{ID: "vmware", remove: removeVMware, origins: []origin{{at: guestPlace{label: "guestinfo.ignition.config.data", read: vmwareConfig}, config: []string{""}}}},
		{ID: "vultr", origins: []origin{{at: plain, config: []string{"/user-data/user-data"},
			hostname: item{path: "/v1/hostname", as: lines}, keys: item{path: "/v1/public-keys", as: lines}}}},
	}
}

func amazonService() service {
	return service{base: linkLocal, token: &token{
		path: "/latest/api/token", headers: []string{"X-aws-ec2-metadata-token-ttl-seconds: 21600"}, header: "X-aws-ec2-metadata-token", optional: true,
	}}
}

func googleService() service {
	return service{base: linkLocal, headers: []string{"Metadata-Flavor: Google"}}
}

// novaOrigin is the layout of OpenStack's config drives and metadata service.
func novaOrigin(at place) origin {
	return origin{
		at: at, config: []string{"/openstack/latest/user_data"},
		hostname: item{path: "/openstack/latest/meta_data.json", as: jsonAt("hostname")}, keys: item{path: "/openstack/latest/meta_data.json", as: jsonAt("public_keys.*")},
	}
}

// azureOrigin takes metadata from the service wherever the config is.
func azureOrigin(at, facts place, path string, as func([]byte) ([]byte, error)) origin {
	return origin{
		at: at, config: []string{path}, as: as, facts: facts,
		hostname: item{path: "/metadata/instance/compute/name?api-version=2017-08-01&format=text", as: lines},
		keys:     item{path: "/metadata/instance/compute/publicKeys?api-version=2021-02-01", as: jsonAt("*.keyData")},
	}
}

func waiting(o origin, wait time.Duration) origin {
	d := o.at.(drive)
	d.wait = wait
	o.at = d
	return o
}
