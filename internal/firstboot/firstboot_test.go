package firstboot

import (
	"slices"
	"strings"
	"testing"
)

func TestWords(t *testing.T) {
	const address = "ip=192.0.2.10::192.0.2.1:255.255.255.0::eth0:off"
	for _, tt := range []struct{ platform, parameters, want string }{
		{"aws", "", "ignition.platform.id=aws"},
		{"metal", "ignition.config.url=https://h/c.ign?a=1&b=[2] " + address + " nameserver=192.0.2.53 nameserver=192.0.2.54",
			"ignition.platform.id=metal ignition.config.url=https://h/c.ign?a=1&b=[2] " + address + " nameserver=192.0.2.53 nameserver=192.0.2.54"},
		{"metal", "ignition.config.device=/dev/sdb1 ignition.config.path=/c.ign", "ignition.platform.id=metal ignition.config.device=/dev/sdb1 ignition.config.path=/c.ign"},
	} {
		got, err := Words(tt.platform, strings.Fields(tt.parameters))
		if err != nil || strings.Join(got, " ") != tt.want || Platform(got) != tt.platform {
			t.Errorf("%s %s: got %q, %v", tt.platform, tt.parameters, got, err)
		}
	}
}

func TestRefused(t *testing.T) {
	for _, tt := range []struct{ platform, parameter, want string }{
		{"awz", "", "(did you mean aws?): expected one of akamai, aliyun, "},
		{"", "", "unknown platform"},
		{"aws", "ignition.platform.id=gcp", "leave this one out"},
		{"aws", "ignition.config.device=/dev/sdb", "expected one of ignition.config.url, ip, "},
		{"metal", "proa.roothash=00", "belongs into the config"},
		{"metal", "ignition.config.url", "expected ignition.config.url=VALUE"},
		{"metal", "ignition.config.url=", "expected ignition.config.url=VALUE"},
		{"metal", "ignition.config.url=c.ign", "expected a URL"},
		{"metal", "ignition.config.url=http://h/$c", "%24"},
		{"metal", "ignition.config.url=http://h/a b", "%20"},
		{"metal", "ignition.config.path=/ä", "printable ASCII"},
	} {
		var parameters []string
		if tt.parameter != "" {
			parameters = []string{tt.parameter}
		}
		if _, err := Words(tt.platform, parameters); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s %s: got %v, want %q", tt.platform, tt.parameter, err, tt.want)
		}
	}
	if _, err := Words("metal", []string{"ignition.config.url=http://a", "ignition.config.url=http://b"}); err == nil || !strings.Contains(err.Error(), "twice") {
		t.Errorf("two URLs: got %v", err)
	}
}

func TestPlatforms(t *testing.T) {
	if !slices.IsSorted(Platforms()) {
		t.Error("not sorted")
	}
	if got := Platform([]string{"quiet", "ignition.platform.id=", "x.ignition.platform.id=aws"}); got != "" {
		t.Errorf("got %q", got)
	}
}
