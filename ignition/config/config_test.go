package config

import (
	"context"
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coreos/ignition/v2/config/v3_6/types"
)

// dataOnly fetches data URLs in base64, which is all these tests need.
func dataOnly(_ context.Context, r types.Resource, _ types.Config) ([]byte, error) {
	_, b64, ok := strings.Cut(*r.Source, "base64,")
	if !ok {
		return nil, errors.New("connection refused")
	}
	return base64.StdEncoding.DecodeString(b64)
}

func dataURL(text string) string {
	return "data:;base64," + base64.StdEncoding.EncodeToString([]byte(text))
}

// TestMalformed holds the whole text of errors: it is what an operator has at three in the morning.
func TestMalformed(t *testing.T) {
	const v = `{"ignition":{"version":"3.4.0"},`
	tests := []struct{ name, config, want string }{
		{"empty", "", `c.ign: empty config: expected an Ignition config: a JSON object with ignition.version, found 0 bytes; give it a whole config; ignition check tells whether it is one`},
		{"cloud-config", "#cloud-config\nusers: []\n", `c.ign: not an Ignition config: expected an Ignition config: a JSON object with ignition.version, found cloud-config; write it as an Ignition config, or as Butane YAML with variant: proa`},
		{"not an object", "[1]", `c.ign: wrong type: expected an Ignition config: a JSON object with ignition.version, found a list; give it a whole config; ignition check tells whether it is one`},
		{"cut off", v + `"storage":{"files":[`, `c.ign:1:53: invalid JSON: expected JSON as RFC 8259 describes it, found unexpected end of JSON input; the config was cut off, or a bracket is missing`},
		{"octal", "{\n \"ignition\": {\"version\": \"3.4.0\"},\n \"storage\": {\"files\": [{\"path\": \"/a\", \"mode\": 0644}]}}", `c.ign:3:48: invalid JSON: expected JSON as RFC 8259 describes it, found invalid character '6' after object key:value pair; JSON has no octal numbers: write 0644 as 420, 0755 as 493, 0600 as 384`},
		{"no version", `{"ignition":{}}`, `c.ign:1:13: ignition.version: missing spec version: expected 3.0.0 to 3.6.0, found nothing; add "ignition": {"version": "3.6.0"}`},
		{"version 2", `{"ignition":{"version":"2.3.0"}}`, `c.ign:1:24: ignition.version: unsupported spec version: expected 3.0.0 to 3.6.0, found "2.3.0"; translate the config with ign-converter`},
		{"experimental", `{"ignition":{"version":"3.7.0-experimental"}}`, `c.ign:1:24: ignition.version: unsupported spec version: expected 3.0.0 to 3.6.0, found "3.7.0-experimental"; use the newest stable version, 3.6.0`},
		{"version is a number", `{"ignition":{"version":3}}`, `c.ign:1:24: ignition.version: wrong type: expected a string, found a number, 3; write one value, in quotes`},
		{"unknown key", v + `"storage":{"filez":[]}}`, `c.ign:1:44: storage.filez: unknown key: expected one of directories, disks, files, filesystems, links, luks, raid, found "filez"; did you mean "files"?`},
		{"key of a later version", `{"ignition":{"version":"3.0.0"},"kernelArguments":{}}`, `c.ign:1:33: kernelArguments: unknown key: expected one of ignition, passwd, storage, systemd, found "kernelArguments"; remove it, or check the spec version`},
		{"capital key", v + `"Storage":{}}`, `c.ign:1:33: Storage: unknown key: expected one of ignition, kernelArguments, passwd, storage, systemd, found "Storage"; did you mean "storage"?`},
		{"key twice", v + `"storage":{},"storage":{}}`, `c.ign:1:46: storage: key given twice: expected each key once; keep one of them`},
		{"wrong type", v + `"storage":{"files":[{"path":"/a","mode":"0644"}]}}`, `c.ign:1:73: storage.files[0].mode: wrong type: expected an integer, found a string, "0644"; write 420, which is 0644 in decimal`},
		{"all wrong types", v + `"storage":{"files":{"a":[1,{}]}},"systemd":[]}`, "c.ign:1:52: storage.files: wrong type: expected a list, found an object; put it into a list, even if it is the only one\nc.ign:1:76: systemd: wrong type: expected an object, found a list; write it as keys with values"},
		{"fraction", v + `"storage":{"files":[{"path":"/a","mode":1.5}]}}`, `c.ign:1:73: storage.files[0].mode: wrong type: expected an integer, found a number, 1.5; write its digits, without quotes and without a point`},
		{"huge number", v + `"storage":{"files":[{"path":"/a","mode":99999999999999999999}]}}`, `c.ign:1:73: storage.files[0].mode: wrong type: expected an integer, found a number, 99999999999999999999; write its digits, without quotes and without a point`},
		{"illegal mode", v + `"storage":{"files":[{"path":"/a","mode":9999}]}}`, `c.ign:1:73: storage.files[0].mode: illegal file mode: expected 0 to 4095 (07777 in octal), found 9999; JSON numbers are decimal: 0644 is 420`},
		{"relative path", v + `"storage":{"files":[{"path":"etc/a"}]}}`, `c.ign:1:61: storage.files[0].path: path not absolute: expected a path that begins with /, found "etc/a"; correct it there; ignition check tells whether it is right`},
		{"dirty path", v + `"storage":{"files":[{"path":"/etc/../a"}]}}`, `c.ign:1:61: storage.files[0].path: path is not fully simplified: expected a path without //, /./, /../ and without a / at its end, found "/etc/../a"; correct it there; ignition check tells whether it is right`},
		{"no path", v + `"storage":{"files":[{"mode":1}]}}`, `c.ign:1:53: storage.files[0].path: path not specified: expected an absolute path, found nothing; add "path"`},
		{"path twice", v + `"storage":{"files":[{"path":"/a"}],"links":[{"path":"/a","target":"b"}]}}`, `c.ign:1:77: storage.links[0]: duplicate entry defined: expected each name or path once in a config; remove one of the two entries`},
		{"bad hash", v + `"storage":{"files":[{"path":"/a","contents":{"source":"data:,s","verification":{"hash":"md5-00"}}}]}}`, `c.ign:1:120: storage.files[0].contents.verification.hash: unrecognized hash function: expected sha512-<hex> or sha256-<hex>, found "md5-00"; correct it there; ignition check tells whether it is right`},
		{"short hash", v + `"storage":{"files":[{"path":"/a","contents":{"source":"data:,s","verification":{"hash":"sha256-00"}}}]}}`, `c.ign:1:120: storage.files[0].contents.verification.hash: incorrect size for hash sum: expected 128 hexadecimal digits behind sha512-, 64 behind sha256-, found "sha256-00"; correct it there; ignition check tells whether it is right`},
		{"unit name", v + `"systemd":{"units":[{"name":"a.servce"}]}}`, `c.ign:1:61: systemd.units[0].name: invalid systemd unit extension: expected a unit name ending in .service, .socket, .mount, .timer, .target ..., found "a.servce"; correct it there; ignition check tells whether it is right`},
		{"unit syntax, no secret", v + `"systemd":{"units":[{"name":"a.service","contents":"[Service] hunter2"}]}}`, `c.ign:1:84: systemd.units[0].contents: invalid unit content: found garbage after section name: expected sections in [], and KEY=VALUE lines; correct it there; ignition check tells whether it is right`},
		{"unit name that goes on, with a secret", v + `"systemd":{"units":[{"name":"a.servce [Service] hunter2"}]}}`, `c.ign:1:61: systemd.units[0].name: invalid systemd unit extension: expected a unit name ending in .service, .socket, .mount, .timer, .target ..., found "a.servce..."; correct it there; ignition check tells whether it is right`},
		{"header in the place of its name, no secret", v + `"storage":{"files":[{"path":"/a","contents":{"source":"https://h/","httpHeaders":[{"name":"Authorization: hunter2","value":"x"}]}}]}}`, `c.ign:1:123: storage.files[0].contents.httpHeaders[0].name: invalid name of an HTTP header: expected letters, digits and -, such as Authorization; write the name alone, and the rest as "value"`},
		{"scheme", v + `"storage":{"files":[{"path":"/a","contents":{"source":"ftp://user:pw@h/k"}}]}}`, `c.ign:1:87: storage.files[0].contents.source: invalid url scheme: expected a URL of scheme data, http, https, tftp, s3, arn or gs, found a ftp: URL; correct it there; ignition check tells whether it is right`},
		{"tang server", v + `"storage":{"luks":[{"name":"l","device":"/dev/a","clevis":{"tang":[{"url":"tang://user:pw@h/","thumbprint":"x"}]}}]}}`, `c.ign:1:107: storage.luks[0].clevis.tang[0].url: invalid url scheme: expected a URL of scheme http or https, found a tang: URL; correct it there; ignition check tells whether it is right`},
		{"proxy", v[:len(v)-2] + `,"proxy":{"httpsProxy":"socks5://user:pw@h"}}}`, `c.ign:1:54: ignition.proxy.httpsProxy: proxies must be http(s): expected a URL of scheme http or https, found a socks5: URL; correct it there; ignition check tells whether it is right`},
		{"headers for nothing", v + `"storage":{"files":[{"path":"/a","contents":{"httpHeaders":[{"name":"a","value":"b"}]}}]}}`, `c.ign:1:92: storage.files[0].contents.httpHeaders: unable to parse url: expected a URL of scheme http or https as the source of what has headers; remove httpHeaders, or correct the source`},
		{"format", v + `"storage":{"filesystems":[{"device":"/dev/a","format":"zfs"}]}}`, `c.ign:1:87: storage.filesystems[0].format: invalid filesystem format: expected ext4, xfs, btrfs, vfat, swap, or none (from spec 3.3.0 on), found "zfs"; correct it there; ignition check tells whether it is right`},
		{"array", v + `"storage":{"raid":[{"name":"a","level":"raid7"}]}}`, `c.ign:1:72: storage.raid[0].level: unrecognized raid level: expected linear, raid0, raid1, raid4, raid5, raid6 or raid10, found "raid7"; correct it there; ignition check tells whether it is right
c.ign:1:52: storage.raid[0].devices: raid devices required: expected the devices that the array is made of, found nothing; add "devices"`},
		{"data URL", v + `"storage":{"files":[{"path":"/a","contents":{"source":"data:hunter2"}}]}}`, `c.ign:1:87: storage.files[0].contents.source: missing media type slash: expected a URL of scheme data, http, https, tftp, s3, arn or gs, found a data: URL; correct it there; ignition check tells whether it is right`},
		{"child", v[:len(v)-2] + `,"config":{"merge":[{"source":"` + dataURL(v+"\n\"storage\":{\"files\":[{\"path\":1}]}}") + `"}]}}}`, `ignition.config.merge[0] of c.ign:2:29: storage.files[0].path: wrong type: expected a string, found a number, 1; write one value, in quotes`},
		{"unreachable child", v[:len(v)-2] + `,"config":{"replace":{"source":"http://user:pw@h/c?secret=1"}}}}`, `c.ign:1:62: ignition.config.replace.source: fetch config: connection refused; check the address and the server`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Load(t.Context(), "c.ign", []byte(tt.config), dataOnly)
			if err == nil || err.Error() != tt.want {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
		})
	}
}

func TestAllStableVersions(t *testing.T) {
	for _, v := range []string{"3.0.0", "3.1.0", "3.2.0", "3.3.0", "3.4.0", "3.5.0", "3.6.0"} {
		m, err := Load(t.Context(), "c.ign", []byte(`{"ignition":{"version":"`+v+`"},"storage":{"files":[{"path":"/a","contents":{"source":"data:,x"}}]}}`), dataOnly)
		if err != nil {
			t.Errorf("%s: %v", v, err)
		} else if got := m.Config.Ignition.Version; got != "3.6.0" {
			t.Errorf("%s: translated to %s", v, got)
		}
	}
}

// Values keep the place they were written at, through two levels of merging.
func TestMergedPlaces(t *testing.T) {
	grandchild := "{\"ignition\":{\"version\":\"3.3.0\"},\n\n\"storage\":{\"files\":[{\"path\":\"/c\"},{\"path\":\"/b\",\"mode\":1}]}}"
	child := "{\"ignition\":{\"version\":\"3.2.0\",\"config\":{\"merge\":[{\"source\":\"" + dataURL(grandchild) + "\"}]}},\n\"storage\":{\"files\":[{\"path\":\"/b\",\"overwrite\":false}]}}"
	parent := "{\"ignition\":{\"version\":\"3.6.0\",\"config\":{\"merge\":[{\"source\":\"" + dataURL(child) + "\"}]}},\n\n\n\"storage\":{\"files\":[{\"path\":\"/a\"}]}}"
	m, err := Load(t.Context(), "p.ign", []byte(parent), dataOnly)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"storage.files[0].path":      "p.ign:4:29: storage.files[0].path",
		"storage.files[1].overwrite": "ignition.config.merge[0] of p.ign:2:46: storage.files[0].overwrite",
		"storage.files[1].mode":      "ignition.config.merge[0] of ignition.config.merge[0] of p.ign:3:55: storage.files[1].mode",
		"storage.files[2].path":      "ignition.config.merge[0] of ignition.config.merge[0] of p.ign:3:29: storage.files[0].path",
		"storage.files[2].user.name": "ignition.config.merge[0] of ignition.config.merge[0] of p.ign:3:21: storage.files[0].user.name",
	}
	for path, w := range want {
		if got := m.Place(path).String(); got != w {
			t.Errorf("%s: got %s, want %s", path, got, w)
		}
	}
	if len(m.Origins) != 3 {
		t.Errorf("got %d origins, want 3", len(m.Origins))
	}
}

func TestReplace(t *testing.T) {
	child := `{"ignition":{"version":"3.6.0"},"storage":{"files":[{"path":"/child"}]}}`
	m, err := Load(t.Context(), "p.ign", []byte(`{"ignition":{"version":"3.0.0","config":{"replace":{"source":"`+dataURL(child)+`"}}},"storage":{"files":[{"path":"/parent"}]}}`), dataOnly)
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Config.Storage.Files) != 1 || m.Config.Storage.Files[0].Path != "/child" {
		t.Errorf("got %+v", m.Config.Storage.Files)
	}
}

func TestEndlessConfigs(t *testing.T) {
	self := []byte(`{"ignition":{"version":"3.4.0","config":{"merge":[{"source":"http://h/self"}]}}}`)
	fetch := func(context.Context, types.Resource, types.Config) ([]byte, error) { return self, nil }
	_, err := Load(t.Context(), "self", self, fetch)
	if err == nil || !strings.Contains(err.Error(), "too many configs: expected at most 64, nested at most 16 deep") {
		t.Errorf("got %v", err)
	}
}

func TestScreen(t *testing.T) {
	_, err := Parse("fw_cfg opt/com.coreos/config", []byte(`{"ignition":{"version":"3.4.0"},"storage":{"filez":[]}}`))
	var issues Issues
	if !errors.As(err, &issues) {
		t.Fatal(err)
	}
	want := `  config:    fw_cfg opt/com.coreos/config
  path:      storage.filez
  line:      1, column 44
  problem:   unknown key
  expected:  one of directories, disks, files, filesystems, links, luks, raid
  found:     "filez"
  next step: did you mean "files"?
`
	if got := issues[0].Screen(); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// What a server or a file says neither moves the cursor nor fills the screen.
func TestScreenOfForeignText(t *testing.T) {
	got := Issue{Problem: "a\x1b[2J\nb\u009b", Found: strings.Repeat("é", 1000)}.Screen()
	if want := "  problem:   a [2J b \n  found:     " + strings.Repeat("é", 300) + "...\n"; got != want {
		t.Errorf("got %q", got)
	}
}

func TestWarningsAreKept(t *testing.T) {
	d, err := Parse("c.ign", []byte(`{"ignition":{"version":"3.4.0"},"systemd":{"units":[{"name":"a.service","enabled":true,"contents":"[Service]\n"}]}}`))
	if err != nil {
		t.Fatal(err)
	}
	if len(d.Warnings) != 1 || !strings.Contains(d.Warnings[0].Error(), "expected an [Install] section") {
		t.Errorf("got %v", d.Warnings)
	}
}

// FuzzParse: any bytes are a config or an error with a place, and no error shows what may be secret.
func FuzzParse(f *testing.F) {
	examples, err := filepath.Glob("../examples/*.ign")
	if err != nil || len(examples) == 0 {
		f.Fatal("no examples", err)
	}
	for _, name := range examples {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"ignition":{"version":"3.6.0"},"storage":{"files":[null]}}`))
	f.Add([]byte(`{"ignition":null}`))
	f.Add([]byte(` {"ignition":{"version":"3.0.0","config":{"replace":{}}},"x":[[[{"a":{}}]]]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		d, err := Parse("fuzz", raw)
		if err == nil {
			d.Place("storage.files[0].path")
			return
		}
		var issues Issues
		if !errors.As(err, &issues) || len(issues) == 0 || issues[0].Config != "fuzz" || issues[0].Problem == "" {
			t.Fatalf("got %#v", err)
		}
	})
}

func FuzzMerge(f *testing.F) {
	f.Add([]byte(`{"ignition":{"version":"3.6.0"},"storage":{"files":[{"path":"/a"}]}}`), []byte(`{"ignition":{"version":"3.0.0"},"storage":{"links":[{"path":"/a","target":"b"}]}}`))
	f.Fuzz(func(t *testing.T, parent, child []byte) {
		p, err := Parse("parent", parent)
		if err != nil {
			return
		}
		c, err := Parse("child", child)
		if err != nil {
			return
		}
		mergePlaced(&Merged{Config: p.Config, Places: p.places}, &Merged{Config: c.Config, Places: c.places})
	})
}
