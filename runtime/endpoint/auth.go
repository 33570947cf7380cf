package endpoint

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/proa-os/proa/internal/durable"
)

// hub is the key of docker.io's credentials, for history's sake.
const hub = "https://index.docker.io/v1/"

// authFile is docker's config.json, as far as credentials go.
type authFile struct {
	Auths   map[string]authEntry `json:"auths,omitempty"`
	Helpers map[string]string    `json:"credHelpers,omitempty"`
	Store   string               `json:"credsStore,omitempty"`
}

type authEntry struct {
	Auth          string `json:"auth,omitempty"` // base64 of user:password
	Username      string `json:"username,omitempty"`
	Password      string `json:"password,omitempty"`
	IdentityToken string `json:"identitytoken,omitempty"`
}

// keys are what a repository's credentials may be filed under, the most particular first: its path and every shorter one down to
// the host, as containers-auth.json(5) has it, and the forms docker writes.
func keys(repository string) []string {
	var list []string
	host, _, _ := strings.Cut(repository, "/")
	for p := repository; p != "." && p != ""; p = path.Dir(p) {
		list = append(list, p)
	}
	if host == "docker.io" || host == "index.docker.io" {
		list = append(list, hub, "index.docker.io", "docker.io")
	}
	return append(list, "https://"+host, "https://"+host+"/", "https://"+host+"/v1/", "https://"+host+"/v2/", "http://"+host)
}

// credential finds what the files hold for a repository; nothing is no error.
func (c Config) credential(repository string) (Auth, error) {
	for _, name := range c.Auth {
		b, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0 {
			continue
		}
		if err != nil {
			return Auth{}, fmt.Errorf("read credentials: %w", err)
		}
		var f authFile
		if err := json.Unmarshal(b, &f); err != nil {
			return Auth{}, fmt.Errorf("read credentials: %s: %w", name, err)
		}
		a, err := f.find(repository)
		if err != nil {
			return Auth{}, fmt.Errorf("read credentials: %s: %w", name, err)
		}
		if a != (Auth{}) {
			return a, nil
		}
	}
	return Auth{}, nil
}

func (f *authFile) find(repository string) (Auth, error) {
	host, _, _ := strings.Cut(repository, "/")
	server := host
	if host == "docker.io" || host == "index.docker.io" {
		server = hub
	}
	for _, k := range keys(repository) {
		if h := f.Helpers[k]; h != "" {
			return ask(h, k)
		}
	}
	for _, k := range keys(repository) {
		if e, ok := f.Auths[k]; ok && e != (authEntry{}) {
			a, err := e.auth()
			if err != nil {
				return Auth{}, fmt.Errorf("entry %s: %w", k, err)
			}
			return a, nil
		}
	}
	if f.Store != "" {
		return ask(f.Store, server)
	}
	return Auth{}, nil
}

func (e authEntry) auth() (Auth, error) {
	a := Auth{Username: e.Username, Password: e.Password, Token: e.IdentityToken}
	if e.Auth == "" {
		return a, nil
	}
	b, err := base64.StdEncoding.DecodeString(e.Auth)
	if err != nil {
		return Auth{}, fmt.Errorf("auth: %w", err)
	}
	user, password, ok := strings.Cut(strings.TrimRight(string(b), "\x00"), ":")
	if !ok {
		return Auth{}, errors.New("auth: want base64 of user:password")
	}
	a.Username, a.Password = user, password
	return a, nil
}

// ask runs docker-credential-<helper>, docker's protocol: the server's name in, JSON out.
func ask(helper, server string) (Auth, error) {
	if !regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`).MatchString(helper) {
		return Auth{}, fmt.Errorf("credential helper %q: no name of a program", helper)
	}
	cmd := exec.Command("docker-credential-"+helper, "get")
	cmd.Stdin = strings.NewReader(server)
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Run(); err != nil {
		if strings.Contains(out.String(), "credentials not found") {
			return Auth{}, nil
		}
		return Auth{}, fmt.Errorf("credential helper %s: %w: %.200s", helper, err, strings.TrimSpace(out.String()))
	}
	var got struct{ Username, Secret string }
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		return Auth{}, fmt.Errorf("credential helper %s: %w", helper, err)
	}
	if got.Username == "<token>" {
		return Auth{Token: got.Secret}, nil
	}
	return Auth{Username: got.Username, Password: got.Secret}, nil
}

// Save files a credential for a host in a file that only its owner reads; the zero value removes it.
func Save(file, host string, a Auth) error {
	var f authFile
	b, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(b, &f)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read credentials: %s: %w", file, err)
	}
	if f.Auths == nil {
		f.Auths = make(map[string]authEntry)
	}
	if a == (Auth{}) {
		delete(f.Auths, host)
	} else {
		f.Auths[host] = authEntry{Auth: base64.StdEncoding.EncodeToString([]byte(a.Username + ":" + a.Password))}
	}
	if b, err = json.MarshalIndent(f, "", "  "); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return fmt.Errorf("save credentials: %w", err)
	}
	return durable.WritePath(file, append(b, '\n'), 0o600)
}
