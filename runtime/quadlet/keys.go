package quadlet

import (
	"path"
	"slices"
)

// A form is how the value of a key becomes flags.
type form int

const (
	own       form = iota // code of its own
	once                  // the last value: --flag value
	each                  // every assignment: --flag value
	words                 // every word: --flag word
	arguments             // every word, with escapes: --flag word
	pairs                 // NAME=VALUE words: --flag NAME=VALUE
	boolean               // --flag=true or --flag=false
	refused               // an error; flag says why
	ignored               // understood, and without effect here
)

// A rule is one key of a section.
type rule struct {
	key  string
	form form
	flag string
}

// kind is one type of declaration.
type kind struct {
	section string
	suffix  string // of the service's name
	rules   []rule
	why     string // if the kind as a whole is refused
}

const (
	podmans   = "is an option of podman itself: containerctl has none of its kind"
	remap     = "was replaced in podman: use UserNS="
	numbers   = "the system gives out the numbers of users: say UserNS=auto"
	selinux   = "this system has no SELinux policy"
	toJournal = "results of health checks are in the journal"
	platform  = "the image for this machine is the one that is fetched"
	authFiles = "credentials are those of containerctl login and /etc/containers/auth.json, authorities lie in /etc/containers/certs.d"
)

// kinds by extension.
func kinds() map[string]kind {
	return map[string]kind{
		".container": {section: "Container", rules: containerRules()},
		".volume":    {section: "Volume", suffix: "-volume", rules: volumeRules()},
		".network":   {section: "Network", suffix: "-network", rules: networkRules()},
		".image":     {section: "Image", suffix: "-image", rules: imageRules()},
		".pod":       {section: "Pod", suffix: "-pod", rules: podRules()},
		".build":     {section: "Build", suffix: "-build", why: "images are not built on the machine: build elsewhere, push, and declare a .container or .image"},
		".kube":      {section: "Kube", why: "Kubernetes YAML is not read: declare a .pod and .container files"},
		".artifact":  {section: "Artifact", suffix: "-artifact", why: "OCI artifacts are not carried out: declare an .image"},
	}
}

// Known reports whether a file's name has the extension of a declaration.
func Known(name string) bool {
	ext := path.Ext(name)
	_, ok := kinds()[ext]
	return ok && len(name) > len(ext)
}

// Keys are the names of a section's keys, sorted: those that are carried out, or those that are refused with a reason.
func Keys(extension string, isRefused bool) []string {
	var out []string
	for _, r := range kinds()[extension].rules {
		if (r.form == refused) == isRefused {
			out = append(out, r.key)
		}
	}
	slices.Sort(out)
	return out
}

func containerRules() []rule {
	return []rule{
		{"ContainerName", own, ""}, {"ServiceName", own, ""}, {"Image", own, ""}, {"Exec", own, ""}, {"Pod", own, ""},
		{"StartWithPod", own, ""}, {"Notify", own, ""}, {"ReloadCmd", own, ""}, {"ReloadSignal", own, ""},
		{"User", own, "--user"}, {"Group", own, ""}, {"Entrypoint", own, "--entrypoint"}, {"AddDevice", own, "--device"},
		{"Volume", own, "--volume"}, {"Mount", own, "--mount"}, {"Network", own, "--network"}, {"Memory", own, "--memory"},
		{"PidsLimit", own, "--pids-limit"}, {"EnvironmentFile", own, "--env-file"}, {"NoNewPrivileges", own, "--security-opt"},
		{"SeccompProfile", own, ""}, {"ReadOnly", own, "--read-only"}, {"ReadOnlyTmpfs", own, ""}, {"CgroupsMode", own, ""},
		{"LogDriver", own, ""}, {"LogOpt", own, ""}, {"StopTimeout", own, "--stop-timeout"}, {"HealthOnFailure", once, "--health-on-failure"},
		{"PodmanArgs", own, ""}, {"SecurityLabelDisable", own, ""}, {"ExposeHostPort", own, ""}, {"AutoUpdate", own, ""},
		{"Secret", arguments, "--secret"}, {"Environment", pairs, "--env"}, {"Label", pairs, "--label"}, {"Annotation", pairs, "--annotation"},
		{"HostName", once, "--hostname"}, {"WorkingDir", once, "--workdir"}, {"Pull", once, "--pull"}, {"StopSignal", once, "--stop-signal"},
		{"ShmSize", once, "--shm-size"}, {"IP", once, "--ip"}, {"IP6", once, "--ip6"}, {"UserNS", own, "--userns"},
		{"Retry", once, "--retry"}, {"RetryDelay", once, "--retry-delay"},
		{"HealthCmd", once, "--health-cmd"}, {"HealthInterval", once, "--health-interval"}, {"HealthRetries", once, "--health-retries"},
		{"HealthTimeout", once, "--health-timeout"}, {"HealthStartPeriod", once, "--health-start-period"},
		{"NetworkAlias", each, "--network-alias"}, {"PublishPort", each, "--publish"}, {"DNS", each, "--dns"}, {"DNSOption", each, "--dns-option"},
		{"DNSSearch", each, "--dns-search"}, {"AddHost", each, "--add-host"}, {"Ulimit", each, "--ulimit"}, {"GroupAdd", each, "--group-add"},
		{"Tmpfs", each, "--tmpfs"}, {"DropCapability", words, "--cap-drop"}, {"AddCapability", words, "--cap-add"}, {"Sysctl", words, "--sysctl"},
		{"Mask", own, ""}, {"Unmask", own, ""}, {"AppArmor", own, ""},
		{"RunInit", boolean, "--init"}, {"EnvironmentHost", boolean, "--env-host"}, {"HttpProxy", boolean, "--http-proxy"},

		{"GlobalArgs", refused, podmans}, {"ContainersConfModule", refused, podmans},
		{"Rootfs", refused, "a container is made from an image, whose layers are verified: load the directory as an image"},
		{"HealthLogDestination", refused, toJournal}, {"HealthMaxLogCount", refused, toJournal}, {"HealthMaxLogSize", refused, toJournal},
		{"HealthStartupCmd", refused, "there is one check: use HealthStartPeriod="}, {"HealthStartupInterval", refused, "there is one check: use HealthInterval="},
		{"HealthStartupRetries", refused, "there is one check: use HealthRetries="}, {"HealthStartupSuccess", refused, "there is one check, and it has to succeed once"},
		{"HealthStartupTimeout", refused, "there is one check: use HealthTimeout="},
		{"SecurityLabelFileType", refused, selinux}, {"SecurityLabelLevel", refused, selinux}, {"SecurityLabelNested", refused, selinux}, {"SecurityLabelType", refused, selinux},
		{"UIDMap", refused, numbers}, {"GIDMap", refused, numbers}, {"SubUIDMap", refused, numbers}, {"SubGIDMap", refused, numbers},
		{"Timezone", refused, "the system has no time zone data: say Environment=TZ= and use an image that has it"},
		{"RemapUsers", refused, remap}, {"RemapUid", refused, remap}, {"RemapGid", refused, remap}, {"RemapUidSize", refused, remap},
		{"VolatileTmp", refused, "was replaced in podman: use Tmpfs=/tmp"},
	}
}

func volumeRules() []rule {
	return []rule{
		{"VolumeName", own, ""}, {"ServiceName", own, ""}, {"Driver", own, "--driver"}, {"Copy", own, ""}, {"Device", own, ""},
		{"Type", own, ""}, {"Options", own, ""}, {"UID", once, "--uid"}, {"GID", once, "--gid"}, {"User", once, "--uid"},
		{"Group", once, "--gid"}, {"Label", pairs, "--label"}, {"PodmanArgs", own, ""},
		{"Image", refused, "a volume is a directory or a device: mount an image with Mount=type=image in the container"},
		{"GlobalArgs", refused, podmans}, {"ContainersConfModule", refused, podmans},
	}
}

func networkRules() []rule {
	return []rule{
		{"NetworkName", own, ""}, {"ServiceName", own, ""}, {"NetworkDeleteOnStop", own, ""},
		{"Subnet", own, "--subnet"}, {"Gateway", own, "--gateway"}, {"IPRange", own, "--ip-range"},
		{"Driver", once, "--driver"}, {"InterfaceName", once, "--interface-name"}, {"DNS", each, "--dns"},
		{"DisableDNS", boolean, "--disable-dns"}, {"Internal", boolean, "--internal"}, {"IPv6", boolean, "--ipv6"},
		{"Options", pairs, "--opt"}, {"Label", pairs, "--label"}, {"PodmanArgs", own, ""}, {"IPAMDriver", own, ""},
		{"GlobalArgs", refused, podmans}, {"ContainersConfModule", refused, podmans},
	}
}

func imageRules() []rule {
	return []rule{
		{"Image", own, ""}, {"ImageTag", own, ""}, {"ServiceName", own, ""}, {"TLSVerify", boolean, "--tls-verify"},
		{"Policy", once, "--policy"}, {"Retry", own, ""}, {"RetryDelay", own, ""}, {"PodmanArgs", own, ""},
		{"AllTags", refused, "one image is fetched: name its tag"}, {"Arch", refused, platform}, {"OS", refused, platform}, {"Variant", refused, platform},
		{"AuthFile", refused, authFiles}, {"CertDir", refused, authFiles}, {"Creds", refused, "a password has no place in a unit, which everybody can read: " + authFiles},
		{"DecryptionKey", refused, "encrypted images are not carried out"},
		{"GlobalArgs", refused, podmans}, {"ContainersConfModule", refused, podmans},
	}
}

func podRules() []rule {
	return []rule{
		{"PodName", own, ""}, {"ServiceName", own, ""}, {"ExitPolicy", own, ""}, {"StopTimeout", own, ""}, {"Volume", own, ""},
		{"Network", own, "--network"}, {"PodmanArgs", own, ""},
		{"NetworkAlias", each, "--network-alias"}, {"PublishPort", each, "--publish"}, {"IP", once, "--ip"}, {"IP6", once, "--ip6"},
		// These are said for every container of the pod.
		{"AddHost", own, ""}, {"DNS", own, ""}, {"DNSOption", own, ""}, {"DNSSearch", own, ""}, {"HostName", own, ""}, {"ShmSize", own, ""},
		{"Label", refused, "a pod is no thing of its own to label: label its containers"},
		{"UserNS", refused, "containers of a pod share their network only: say UserNS= in each"}, {"UIDMap", refused, numbers}, {"GIDMap", refused, numbers},
		{"SubUIDMap", refused, numbers}, {"SubGIDMap", refused, numbers},
		{"RemapUsers", refused, remap}, {"RemapUid", refused, remap}, {"RemapGid", refused, remap}, {"RemapUidSize", refused, remap},
		{"GlobalArgs", refused, podmans}, {"ContainersConfModule", refused, podmans},
	}
}
