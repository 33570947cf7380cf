package main

import (
	"encoding/base64"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/proa-os/proa/ignition/platform"
	"github.com/proa-os/proa/ignition/secret"
	"github.com/proa-os/proa/ignition/stage"
	"github.com/proa-os/proa/internal/testenv"
)

func do(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, errs strings.Builder
	p := &program{stdin: strings.NewReader(""), stdout: &out, stderr: &errs, getenv: func(string) string { return "" }}
	err = p.run(t.Context(), args)
	return out.String(), errs.String(), err
}

// TestExamples: every example of the README passes `ignition check` and has a plan.
func TestExamples(t *testing.T) {
	examples, err := filepath.Glob("../../examples/*.*")
	if err != nil || len(examples) < 4 {
		t.Fatal("want four examples", examples, err)
	}
	for _, name := range examples {
		out, _, err := do(t, "check", name)
		if err != nil || out != name+": ok\n" {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
		if out, _, err = do(t, "plan", name); err != nil || !strings.HasPrefix(out, "  1. ") {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

func TestCheckReportsAll(t *testing.T) {
	name := filepath.Join(t.TempDir(), "bad.ign")
	if err := os.WriteFile(name, []byte(`{"ignition":{"version":"3.4.0"},"storag":{},"passwd":{"user":[]}}`), 0o644); err != nil {
		t.Fatal(err)
	}
	out, _, err := do(t, "check", name, "../../examples/ssh.ign")
	if err == nil || err.Error() != "check: 1 of 2 configs cannot be applied" || exitStatus(err) != 1 {
		t.Errorf("got %v", err)
	}
	for _, want := range []string{"error: " + name + ":1:33: storag\n", `did you mean "storage"?`, `did you mean "users"?`, "ssh.ign: ok"} {
		if !strings.Contains(out, want) {
			t.Errorf("want %q in\n%s", want, out)
		}
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{{"check"}, {"plan", "a", "b"}, {"frobnicate"}, {"-nope"}, {"-stage", "files", "extra"}, {"-stage", "file"}, {"-stage", "fetch,disk"},
		{"-platform", "qemu"}, {"rmcfg", "-platform", "nowhere"}, {"-stage", "files", "-platform", "nowhere"}, {"-fetch-timeout", "soon", "-stage", "fetch"}, {"reset", "/etc/a"}, {"drift", "x"}} {
		if _, _, err := do(t, args...); err == nil || exitStatus(err) != 2 {
			t.Errorf("%q: got %v", args, err)
		}
	}
	for _, args := range [][]string{{}, {"-help"}, {"--help"}, {"help"}} {
		if out, _, err := do(t, args...); err != nil || !strings.HasPrefix(out, "usage: ignition COMMAND") || strings.Contains(out, "show-failure") {
			t.Errorf("%q: got %v, %s", args, err, out)
		}
	}
	for _, args := range [][]string{{"help", "stage"}, {"stage", "-help"}, {"-stage", "fetch", "-help"}} {
		out, _, err := do(t, args...)
		for _, want := range append(append([]string{"IGNITION_WRITE_AUTHORIZED_KEYS_FRAGMENT", "--fetch-timeout DURATION"}, stage.Stages()...), platform.IDs()...) {
			if err != nil || !strings.Contains(out, want) {
				t.Errorf("%q: %v, no %q in\n%s", args, err, want, out)
			}
		}
	}
	if out, _, err := do(t, "-version"); err != nil || !strings.HasPrefix(out, "ignition ") {
		t.Errorf("got %q, %v", out, err)
	}
}

func TestApplyToTree(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/config.ign", []byte(`{"ignition":{"version":"3.4.0"},"storage":{"files":[{"path":"/etc/a","contents":{"source":"data:,x"}}]}}`), 0o644); err != nil {
		t.Fatal(err)
	}
	_, log, err := do(t, "apply", "-root", dir, dir+"/config.ign")
	if os.Geteuid() != 0 { // files get owner 0:0
		if err == nil || !strings.HasSuffix(err.Error(), "operation not permitted; run as root") {
			t.Errorf("as an ordinary user: got %v", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(dir + "/etc/a"); string(b) != "x" {
		t.Errorf("got %q, %v", b, err)
	}
	want := "level=INFO msg=done operation=\"write file /etc/a\"\nlevel=INFO msg=\"applied config\" operations=1\n"
	if log != want {
		t.Errorf("log: got %s", log)
	}
}

func TestDriftAndReset(t *testing.T) {
	if os.Geteuid() != 0 {
		testenv.Missing(t, "as an ordinary user: files get owner 0:0")
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "c.ign")
	if err := os.WriteFile(config, []byte(`{"ignition":{"version":"3.4.0"},"storage":{"files":[{"path":"/etc/a","contents":{"source":"data:,x"}}]}}`), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := do(t, "apply", "-root", dir, config); err != nil {
		t.Fatal(err)
	}
	if out, _, err := do(t, "drift", "-root", dir); err != nil || out != "nothing differs from what was provisioned\n" {
		t.Errorf("got %q, %v", out, err)
	}
	if err := os.WriteFile(dir+"/etc/a", []byte("y"), 0o644); err != nil {
		t.Fatal(err)
	}
	out, _, err := do(t, "drift", "-root", dir)
	if want := "file /etc/a\n    contents: changed\n    config " + config + ":1:61: storage.files[0].path\n"; out != want || err == nil || exitStatus(err) != 1 {
		t.Errorf("got %q, %v", out, err)
	}
	out, _, err = do(t, "reset", "-root", dir, "-keep", "/etc/a")
	if err != nil || !strings.Contains(out, "/etc/a") || !strings.Contains(out, "systemctl reboot") {
		t.Errorf("got %q, %v", out, err)
	}
	if b, err := os.ReadFile(dir + "/var/lib/ignition/reset"); string(b) != "reset 1\nlib/etc/upper/a\n" {
		t.Errorf("got %q, %v", b, err)
	}
	if _, _, err := do(t, "reset", "-root", dir, "-keep", "/none"); err == nil {
		t.Error("keeps what does not exist")
	}
}

func TestPlanOnImageAndTree(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return filepath.Join(dir, name)
	}
	image := write("disk.img", "")
	if err := os.Truncate(image, 64<<20); err != nil {
		t.Fatal(err)
	}
	write("tree/etc/there", "x")
	write("tree/etc/passwd", "core:x:1000:1000::/home/core:/bin/sh\n")
	config := write("c.ign", `{"ignition":{"version":"3.4.0"},"passwd":{"users":[{"name":"core"},{"name":"web"}]},"storage":{"disks":[{"device":"/dev/vdb","partitions":[{"label":"data","sizeMiB":8}]}],
	 "files":[{"path":"/etc/new"},{"path":"/etc/there","overwrite":true,"contents":{"source":"data:,y"}}],"links":[{"path":"/etc/there2","target":"x"}]}}`)
	out, _, err := do(t, "plan", "-image", image, "-root", dir+"/tree", config)
	for _, want := range []string{"new partition table; what the disk holds is lost\n", `create 1 "data", sectors 2048 to 18431`,
		"there already, with uid 1000: made as described", "       new\n", "replaces a file 0644"} {
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("%v, no %q in\n%s", err, want, out)
		}
	}
	write("tree/etc/there2", "in the way")
	out, _, err = do(t, "plan", "-image", "/dev/vdb="+image, "-root", dir+"/tree", config)
	if err == nil || exitStatus(err) != 1 || !strings.Contains(out, "refused: something exists at /etc/there2") {
		t.Errorf("%v\n%s", err, out)
	}
	if _, _, err := do(t, "plan", "-image", "/dev/vdz="+image, config); err == nil || exitStatus(err) != 2 {
		t.Errorf("an image for no disk: %v", err)
	}
	if info, err := os.Stat(image); err != nil || info.Size() != 64<<20 {
		t.Errorf("the image was changed: %v", err)
	}
}

// Upstream's flags (coreos/ignition internal/main.go, v2.26.0), with their defaults but for -platform, which may be on the kernel command
// line here, and -fetch-timeout.
func TestUpstreamsFlags(t *testing.T) {
	want := map[string]string{
		"config-cache": "/run/ignition.json", "fetch-timeout": "0s", "neednet": "/run/ignition/neednet", "platform": "", "root": "/",
		"state-file": "/run/ignition/state", "log-to-stdout": "false",
	}
	p := &program{}
	flags := flag.NewFlagSet("", flag.ContinueOnError)
	p.stageFlags(flags)
	got := map[string]string{}
	flags.VisitAll(func(f *flag.Flag) { got[f.Name] = f.DefValue })
	for name, value := range want {
		if got[name] != value {
			t.Errorf("-%s: got %q, want %q", name, got[name], value)
		}
	}
	if len(got) != len(want) {
		t.Errorf("got %v", got)
	}
	for _, name := range []string{"disks", "fetch", "fetch-offline", "files", "kargs", "mount", "umount"} {
		if !slices.Contains(stage.Stages(), name) {
			t.Errorf("there is no stage %s", name)
		}
	}
}

// upstreams runs a stage by upstream's command line against the platform "file", or another that more names.
func upstreams(t *testing.T, dir, config string, env map[string]string, name string, more ...string) (stdout, stderr string, err error) {
	t.Helper()
	if err := os.WriteFile(dir+"/config.ign", []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	var out, errs strings.Builder
	p := &program{stdin: strings.NewReader(""), stdout: &out, stderr: &errs, getenv: func(name string) string {
		if name == "IGNITION_CONFIG_FILE" {
			return dir + "/config.ign"
		}
		return env[name]
	}}
	p.Fetcher.Route = func(string) string { return "127.0.0.1:1" } // where nobody listens
	p.Failure = dir + "/failure"
	args := append([]string{"-platform", "file", "-stage", name, "-root", dir + "/root", "-config-cache", dir + "/cache", "-state-file", dir + "/state", "-neednet", dir + "/neednet", "-fetch-timeout", "5s"}, more...)
	err = p.run(t.Context(), args)
	return out.String(), errs.String(), err
}

func stages(t *testing.T, dir, config string, env map[string]string, names ...string) error {
	t.Helper()
	for _, name := range names {
		if _, _, err := upstreams(t, dir, config, env, name, "-log-to-stdout"); err != nil {
			return err
		}
	}
	return nil
}

// What upstream's flags are for: where the log goes, who may read the cache, that the network is needed, when to give up.
func TestUpstreamsFetch(t *testing.T) {
	const config = `{"ignition":{"version":"3.4.0"},"passwd":{"users":[{"name":"core","passwordHash":"hunter2"}]}}`
	dir := t.TempDir()
	out, errs, err := upstreams(t, dir, config, nil, "fetch-offline", "-log-to-stdout")
	if err != nil || !strings.Contains(out, `msg="fetched config"`) || errs != "" {
		t.Errorf("got %v, on standard output %q, on standard error %q", err, out, errs)
	}
	if info, err := os.Stat(dir + "/cache"); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the cache, which holds secrets: got %v, %v, want mode 0600", info, err)
	}
	if _, err := os.Stat(dir + "/neednet"); err == nil {
		t.Error("a config without sources needs the network")
	}
	dir = t.TempDir()
	if out, errs, err = upstreams(t, dir, config, nil, "fetch"); err != nil || out != "" || !strings.Contains(errs, `msg="fetched config"`) {
		t.Errorf("got %v, on standard output %q, on standard error %q", err, out, errs)
	}
	dir = t.TempDir()
	if _, _, err := upstreams(t, dir, `{"ignition":{"version":"3.4.0","config":{"replace":{"source":"http://127.0.0.1:1/c.ign"}}}}`, nil, "fetch-offline"); err != nil {
		t.Fatal(err)
	}
	_, cerr := os.Stat(dir + "/cache")
	if _, err := os.Stat(dir + "/neednet"); err != nil || cerr == nil {
		t.Errorf("a config on the network: flag file %v, cache %v", err, cerr)
	}
	start := time.Now()
	_, _, err = upstreams(t, dir, config, nil, "fetch", "-platform", "hetzner", "-fetch-timeout", "300ms")
	if screen, _ := os.ReadFile(dir + "/failure"); !strings.Contains(string(screen), "platform hetzner") {
		t.Errorf("the screen says %q", screen)
	}
	if err == nil || !strings.Contains(err.Error(), "gave up") || time.Since(start) > time.Minute { // ten minutes without the flag
		t.Errorf("got %v after %s", err, time.Since(start))
	}
}

// Where a platform has no way to delete its user data, a person is told so.
func TestRmcfg(t *testing.T) {
	_, _, err := do(t, "rmcfg", "-platform", "file")
	if err == nil || exitStatus(err) != exitError || !strings.Contains(err.Error(), "platform file has no way to") {
		t.Errorf("got %v", err)
	}
}

func TestUpstreamsCommandLine(t *testing.T) {
	if os.Geteuid() != 0 {
		testenv.Missing(t, "as an ordinary user: files get owner 0:0")
	}
	const config = `{"ignition":{"version":"3.4.0"},"passwd":{"users":[{"name":"core","sshAuthorizedKeys":["ssh-ed25519 AAAA a"]}]}}`
	for fragment, file := range map[string]string{"": ".ssh/authorized_keys.d/ignition", "true": ".ssh/authorized_keys.d/ignition", "false": ".ssh/authorized_keys", "0": ".ssh/authorized_keys"} {
		dir := t.TempDir()
		if err := os.MkdirAll(dir+"/root/bin", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dir+"/root/bin/bash", nil, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := stages(t, dir, config, map[string]string{"IGNITION_WRITE_AUTHORIZED_KEYS_FRAGMENT": fragment}, "fetch-offline", "fetch", "files"); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(dir + "/root/home/core/" + file); string(b) != "ssh-ed25519 AAAA a\n" {
			t.Errorf("%q: got %q, %v", fragment, b, err)
		}
		if out, _, err := do(t, "drift", "--json", "--root", dir+"/root"); err != nil || out != "[]\n" {
			t.Errorf("%q: drift: %v %s", fragment, err, out)
		}
	}
	err := stages(t, t.TempDir(), config, map[string]string{"IGNITION_WRITE_AUTHORIZED_KEYS_FRAGMENT": "no"}, "fetch")
	if err == nil || exitStatus(err) != exitUsage {
		t.Errorf("got %v", err)
	}
	dir := t.TempDir()
	if err := stages(t, dir, config, nil, "files"); err == nil || exitStatus(err) != exitError {
		t.Errorf("files without fetch: got %v", err)
	}
	if err := os.WriteFile(dir+"/state", []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := stages(t, dir, config, nil, "files"); err == nil || exitStatus(err) != exitSetup {
		t.Errorf("damaged state: got %v", err)
	}
}

func TestJSON(t *testing.T) {
	name := filepath.Join(t.TempDir(), "c.ign")
	if err := os.WriteFile(name, []byte(`{"ignition":{"version":"3.4.0"},"storage":{"filez":[]}}`), 0o644); err != nil {
		t.Fatal(err)
	}
	out, _, err := do(t, "check", "--json", name, "../../examples/ssh.ign")
	var all []checked
	if jerr := json.Unmarshal([]byte(out), &all); jerr != nil || err == nil || len(all) != 2 || all[0].OK || !all[1].OK || len(all[0].Findings) != 1 || all[0].Findings[0].Line != 1 || all[0].Findings[0].Path != "storage.filez" {
		t.Errorf("%v, %v in\n%s", jerr, err, out)
	}
	out, _, err = do(t, "plan", "--json", "../../examples/ssh.ign")
	var ops []planned
	if jerr := json.Unmarshal([]byte(out), &ops); jerr != nil || err != nil || len(ops) == 0 || ops[0].Operation == "" || ops[0].Place.Line == 0 {
		t.Errorf("%v, %v in\n%s", jerr, err, out)
	}
}

// A whole config can be encrypted: the one that refers to it is checked, planned and applied with the key.
func TestEncryptedConfig(t *testing.T) {
	k, err := secret.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := secret.Encrypt([]byte(`{"ignition":{"version":"3.4.0"},"storage":{"directories":[{"path":"/etc/hidden"}]}}`), k.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config := `{"ignition":{"version":"3.4.0","config":{"replace":{"source":"data:application/age;base64,` + base64.StdEncoding.EncodeToString([]byte(sealed)) + `"}}}}`
	for name, text := range map[string]string{"c.ign": config, "key": k.Identity(), "bad": "AGE-SECRET-KEY-1CANARY"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, _, err := do(t, "plan", "--key", dir+"/key", dir+"/c.ign"); err != nil || !strings.Contains(out, "make directory /etc/hidden") {
		t.Errorf("got %v\n%s", err, out)
	}
	if out, _, err := do(t, "check", dir+"/c.ign"); err == nil || !strings.Contains(out, "expected the key of a machine") {
		t.Errorf("without the key: got %v\n%s", err, out)
	}
	if _, _, err := do(t, "check", "--key", dir+"/bad", dir+"/c.ign"); err == nil || exitStatus(err) != exitUsage || strings.Contains(err.Error(), "CANARY") {
		t.Errorf("no key: got %v", err)
	}
	out, _, err := do(t, "secret", "encrypt", "--to", k.Recipient())
	if plain, derr := k.Decrypt([]byte(out)); err != nil || derr != nil || len(plain) != 0 {
		t.Errorf("got %q, %v, %v", plain, err, derr)
	}
	if _, _, err := do(t, "secret", "encrypt"); err == nil || exitStatus(err) != exitUsage {
		t.Errorf("for nobody: got %v", err)
	}
}
