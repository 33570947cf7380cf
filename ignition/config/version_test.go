package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/coreos/ignition/v2/config/v3_6"
	"github.com/coreos/ignition/v2/config/v3_6/types"
	"github.com/coreos/vcontext/report"

	"github.com/proa-os/proa/ignition/butane"

	types30 "github.com/coreos/ignition/v2/config/v3_0/types"
	types31 "github.com/coreos/ignition/v2/config/v3_1/types"
	types32 "github.com/coreos/ignition/v2/config/v3_2/types"
	types33 "github.com/coreos/ignition/v2/config/v3_3/types"
	types34 "github.com/coreos/ignition/v2/config/v3_4/types"
	types35 "github.com/coreos/ignition/v2/config/v3_5/types"
)

// allPaths are the paths of all keys below t.
func allPaths(path string, t reflect.Type, into map[string]bool, of func(reflect.Type, string) map[string]reflect.Type) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		if t.Kind() == reflect.Slice {
			path += "[]"
		}
		t = t.Elem()
	}
	into[path] = true
	if t.Kind() != reflect.Struct {
		return
	}
	for key, field := range of(t, path) {
		allPaths(join(path, key), field, into, of)
	}
}

// Each version has the keys that upstream's types of that version have, no more and no less.
func TestKeysOfVersions(t *testing.T) {
	for minor, theirs := range []reflect.Type{
		reflect.TypeFor[types30.Config](), reflect.TypeFor[types31.Config](), reflect.TypeFor[types32.Config](), reflect.TypeFor[types33.Config](),
		reflect.TypeFor[types34.Config](), reflect.TypeFor[types35.Config](), reflect.TypeFor[types.Config](),
	} {
		want, got := map[string]bool{}, map[string]bool{}
		allPaths("", theirs, want, func(t reflect.Type, _ string) map[string]reflect.Type { return butane.Fields(t) })
		allPaths("", reflect.TypeFor[types.Config](), got, func(t reflect.Type, path string) map[string]reflect.Type { return keys(t, path, minor) })
		if !maps.Equal(got, want) || len(want) < 90 {
			t.Errorf("3.%d.0: %d keys, want %d\ngot  %v\nwant %v", minor, len(got), len(want), got, want)
		}
	}
}

// bodies are configs without their version: what versions know, value by value, and what upstream's validation refuses.
var bodies = []string{
	`"storage":{"files":[{"path":"/a","mode":2541,"contents":{"source":"data:,x","compression":"gzip"}}],"directories":[{"path":"/d","mode":1023}]}`,
	`"storage":{"files":[{"path":"/a","mode":4096}]}`,
	`"storage":{"files":[{"path":"/a","contents":{"source":"s3://b/k?versionId="}}]}`,
	`"storage":{"files":[{"path":"/a","contents":{"source":"gs://b/k"}}]}`,
	`"storage":{"files":[{"path":"/a","contents":{"source":"arn:aws:s3:::b/k"}}]}`,
	`"storage":{"files":[{"path":"/a","append":[{"source":"arn:aws:s3:::b/k"},{"source":"gs://b/k"}]}]}`,
	`"storage":{"files":[{"path":"/a","contents":{"source":"data:,x","verification":{"hash":"sha256-2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"}}}]}`,
	`"storage":{"files":[{"path":"/a","contents":{"source":"data:,x","verification":{"hash":"sha256-00"}}}]}`,
	`"storage":{"files":[{"path":"/a","contents":{"verification":{"hash":"sha512-00"}}}]}`,
	`"storage":{"files":[{"path":"/a","contents":{"source":"http://h/a","httpHeaders":[{"name":"A","value":"b"}]}}]}`,
	`"storage":{"files":[{"path":"/a","contents":{"source":"data:,a","httpHeaders":[{"name":"A","value":"b"}]}}]}`,
	`"storage":{"files":[{"path":"/a","user":{"id":1,"name":"x"}}]}`,
	`"storage":{"files":[{"path":"/l/a"}],"links":[{"path":"/l","target":"/x"}]}`,
	`"storage":{"links":[{"path":"/l","target":"/x","hard":true},{"path":"/l","target":"/y"}]}`,
	`"storage":{"filesystems":[{"device":"/dev/a","format":"none"}]}`,
	`"storage":{"filesystems":[{"device":"/dev/a","format":"btrfs","path":"/data","label":"l","uuid":"8A7A6E26-5E8F-4CCA-A654-46215D4696AC","options":["-a"],"wipeFilesystem":true}]}`,
	`"storage":{"filesystems":[{"device":"/dev/a","format":"ext4","mountOptions":["ro"]}]}`,
	`"storage":{"filesystems":[{"device":"/dev/a","path":"/data","label":"x"}]}`,
	`"storage":{"filesystems":[{"device":"a","format":"zfs"}]}`,
	`"storage":{"disks":[{"device":"/dev/a","wipeTable":true,"partitions":[{"label":"x","number":1,"sizeMiB":5,"startMiB":0,"guid":"8A7A6E26-5E8F-4CCA-A654-46215D4696AC","wipePartitionEntry":true}]}]}`,
	`"storage":{"disks":[{"device":"/dev/a","partitions":[{"number":1,"resize":true,"sizeMiB":5},{"number":1},{"label":"a:b"}]}]}`,
	`"storage":{"raid":[{"name":"r","level":"raid1","devices":["/dev/a","/dev/b"],"spares":1,"options":["-x"]}]}`,
	`"storage":{"raid":[{"name":"r","level":"raid9","devices":["/dev/a"]},{"name":"s","devices":["/dev/a"]},{"name":"u","level":"0"}]}`,
	`"storage":{"luks":[{"name":"l","device":"/dev/a","keyFile":{"source":"data:,k"},"clevis":{"tpm2":true,"threshold":1,"tang":[{"url":"http://h","thumbprint":"x"}]}}]}`,
	`"storage":{"luks":[{"name":"l","device":"/dev/a","clevis":{"custom":{"pin":"yubikey","config":"{}"}}}]}`,
	`"storage":{"luks":[{"name":"l","device":"/dev/a","clevis":{"tpm2":true,"custom":{"pin":"tpm2","config":"{}"}}}]}`,
	`"storage":{"luks":[{"name":"l","device":"/dev/a","discard":true,"openOptions":["-x"],"clevis":{"tang":[{"url":"http://h","thumbprint":"x","advertisement":"{}"}]}}]}`,
	`"storage":{"luks":[{"name":"l","device":"/dev/a","cex":{"enabled":true},"clevis":{"tpm2":true}}]}`,
	`"storage":{"luks":[{"name":"l","device":"/dev/a","keyFile":{"source":"gs://b/k"}}]}`,
	`"passwd":{"users":[{"name":"u","passwordHash":"x","sshAuthorizedKeys":["a","b"],"uid":5,"gecos":"g","homeDir":"/h","noCreateHome":true,"primaryGroup":"g","groups":["a"],"noUserGroup":true,"noLogInit":true,"shell":"/s","system":true}],"groups":[{"name":"g","gid":1,"passwordHash":"x","system":true}]}`,
	`"passwd":{"users":[{"name":"u","shouldExist":false}],"groups":[{"name":"g","shouldExist":true}]}`,
	`"passwd":{"users":[{"name":"u"},{"name":"u"}]}`,
	`"systemd":{"units":[{"name":"a.service","contents":"[Service]\nX=1","enabled":true,"mask":false,"dropins":[{"name":"b.conf","contents":"[Unit]\nX=1"}]}]}`,
	`"systemd":{"units":[{"name":"a.servce","dropins":[{"name":"b","contents":"[Unit"}]}]}`,
	`"kernelArguments":{"shouldExist":["a"],"shouldNotExist":["b","b"]}`,
	`"kernelArguments":{"shouldExist":["a"],"shouldNotExist":["a"]}`,
}

// ignitions are sections that stand beside the version.
var ignitions = []string{
	`"timeouts":{"httpResponseHeaders":20,"httpTotal":0}`,
	`"proxy":{"httpProxy":"http://p","httpsProxy":"ftp://p","noProxy":["a"]}`,
	`"security":{"tls":{"certificateAuthorities":[{"source":"data:,x","verification":{"hash":"sha512-0000"}}]}}`,
	`"security":{"tls":{"certificateAuthorities":[{"source":"data:,x"},{"source":"data:,x"}]}}`,
	`"security":{"tls":{"certificateAuthorities":[{"source":"gs://b/x","compression":"gzip"}]}}`,
	`"config":{"merge":[{"source":"http://h/a"},{"source":"data:,x","compression":"gzip"}]}`,
	`"config":{"replace":{"source":"http://h/a","httpHeaders":[{"name":"A"}]}}`,
}

// theirs is what upstream makes of a config, with unknown keys as errors.
func theirs(raw []byte) (types.Config, error) {
	cfg, rpt, err := v3_6.ParseCompatibleVersion(raw)
	for _, e := range rpt.Entries {
		if e.Kind == report.Warn && strings.HasPrefix(e.Message, "unused key ") {
			err = errors.New(e.String())
		}
	}
	return cfg, err
}

// Every version means what upstream takes it to mean.
func TestAgainstUpstream(t *testing.T) {
	refused := 0
	for minor := range newest + 1 {
		var configs []string
		for _, body := range bodies {
			configs = append(configs, fmt.Sprintf(`{"ignition":{"version":"3.%d.0"},%s}`, minor, body))
		}
		for _, ign := range ignitions {
			configs = append(configs, fmt.Sprintf(`{"ignition":{"version":"3.%d.0",%s}}`, minor, ign))
		}
		for _, raw := range configs {
			want, wantErr := theirs([]byte(raw))
			d, err := Parse("c.ign", []byte(raw))
			if (err == nil) != (wantErr == nil) {
				t.Errorf("%s\ngot  %v\nwant %v", raw, err, wantErr)
			}
			if err != nil {
				refused++
				continue
			}
			a, aerr := json.Marshal(d.Config)
			b, berr := json.Marshal(want)
			if dropped := minor == 4 && strings.Contains(raw, "advertisement"); dropped {
				if bytes.Equal(a, b) {
					t.Error("upstream's step from 3.4.0 to 3.5.0 keeps tang's advertisement now: this exception can go")
				}
				continue
			}
			if !bytes.Equal(a, b) || aerr != nil || berr != nil {
				t.Errorf("%s\ngot  %s\nwant %s", raw, a, b)
			}
		}
	}
	if all := (newest + 1) * (len(bodies) + len(ignitions)); refused < all/4 || refused > all*3/4 {
		t.Errorf("%d of %d refused: the configs say little", refused, all)
	}
}

// FuzzAgainstUpstream: what both accept means the same.
func FuzzAgainstUpstream(f *testing.F) {
	for n, body := range bodies {
		f.Add(fmt.Appendf(nil, `{"ignition":{"version":"3.%d.0"},%s}`, n%(newest+1), body))
	}
	examples, err := filepath.Glob("../examples/*.ign")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range examples {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if butane.Is(raw) || bytes.Contains(raw, []byte("advertisement")) { // which upstream's step from 3.4.0 to 3.5.0 drops
			return
		}
		d, err := Parse("c.ign", raw)
		want, wantErr := theirs(raw)
		if err != nil {
			return
		}
		if wantErr != nil {
			t.Fatalf("upstream refuses: %v", wantErr)
		}
		a, _ := json.Marshal(d.Config)
		b, _ := json.Marshal(want)
		if !bytes.Equal(a, b) {
			t.Errorf("got  %s\nwant %s", a, b)
		}
	})
}

// The bits that old versions ignore are taken away, with a warning.
func TestSpecialBits(t *testing.T) {
	for minor := range newest + 1 {
		d, err := Parse("c.ign", fmt.Appendf(nil, `{"ignition":{"version":"3.%d.0"},"storage":{"files":[{"path":"/a","mode":2541}]}}`, minor))
		if err != nil {
			t.Fatal(err)
		}
		want, warnings := 0o755, 1
		if minor == newest {
			want, warnings = 0o4755, 0
		}
		if got := *d.Config.Storage.Files[0].Mode; got != want || len(d.Warnings) != warnings {
			t.Errorf("3.%d.0: got %#o, %v", minor, got, d.Warnings)
		}
	}
}
