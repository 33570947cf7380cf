// Package trust decides whether an image may be unpacked: by its name, and where the policy demands it by a signature on its
// digest.
//
// It runs on root's side, between image.Resolve, which has verified the documents, and the store, which takes an image only
// with a Verdict of this package. What it reads of a registry (signatures) is as untrusted as everything else: a signature
// counts only if a key of the policy made it over the very digest that is about to be unpacked.
//
// # Policy
//
// TOML files: /usr/share/proa/trust/*.toml come with the OS, /etc/proa/trust/*.toml are the machine's. A file in /etc takes the place of
// the file of that name in /usr; an empty one masks it.
//
//	[[trust]]
//	prefix = "registry.example.com/team"   # host[:port][/path...], up to the end of an element; "" is every image
//	require = "signature"                  # or "accept", or "reject"
//	keys = ["team.pub"]                    # PEM public keys, beside this file or by absolute path; one of them must have signed
//	identity = "repository"                # or "any", see below
//
// The rule with the longest prefix counts, of two with the same prefix that in /etc. No rule, an unknown key, a key file that is
// not there, two rules of one directory for one prefix: nothing is pulled until that is put right.
//
// # Signatures
//
// What cosign writes with a key: a manifest under the tag sha256-<digest>.sig, or one that refers to the image (OCI 1.1
// referrers), whose layers are simple-signing payloads with the signature in an annotation; or a sigstore bundle (cosign 3) with
// a DSSE envelope. ECDSA (P-256, P-384, P-521) and RSA (PKCS #1 1.5, at least 2048 bits) over SHA-256, Ed25519. A signature of the index
// counts for the images in it, a signature of the image for itself. Certificates (keyless), transparency logs and timestamps are
// not looked at: the key in the policy is the trust.
//
// A simple-signing payload names the repository it was signed for. With identity "repository", the default, that must be
// the one that is pulled, so that a signed image cannot be passed off as another one of the same signer. Bundles name none:
// they need identity "any", as do images that were copied elsewhere with their signatures. No signature names a tag or ends
// the validity of an older image: an old signed image under a new tag is accepted.
//
// Formats: github.com/sigstore/cosign specs/SIGNATURE_SPEC.md; containers/image docs/containers-signature.5.md, "JSON data";
// DSSE protocol.md (PAE); in-toto Statement v1; distribution-spec 1.1, "listing referrers".
package trust

import (
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
)

// Directories of policies on a machine; later ones count more.
const (
	VendorDir = "/usr/share/proa/trust"
	AdminDir  = "/etc/proa/trust"
)

// Ways to treat images under a prefix.
const (
	Accept    = "accept"
	Reject    = "reject"
	Signature = "signature"
)

// A Rule is one [[trust]].
type Rule struct {
	Prefix   string   `toml:"prefix"`
	Require  string   `toml:"require"`
	Keys     []string `toml:"keys"`
	Identity string   `toml:"identity"` // repository (default) or any

	file string
	keys []key
}

type key struct {
	file   string
	public crypto.PublicKey
}

// A Policy is the rules of a machine.
type Policy struct {
	rules []Rule
}

// Read reads the policy of directories, of which later ones count more.
func Read(dirs ...string) (*Policy, error) {
	files := make(map[string]int) // base name to the last directory that has it
	for i, dir := range dirs {
		names, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read trust policy: %w", err)
		}
		for _, n := range names {
			if strings.HasSuffix(n.Name(), ".toml") && !strings.HasPrefix(n.Name(), ".") {
				files[n.Name()] = i
			}
		}
	}
	p := &Policy{}
	where := make(map[string]int) // prefix to directory
	for i, dir := range dirs {
		for _, base := range sorted(files) {
			if files[base] != i {
				continue
			}
			rules, err := readFile(filepath.Join(dir, base))
			if err != nil {
				return nil, fmt.Errorf("read trust policy: %w", err)
			}
			for _, r := range rules {
				if before, ok := where[r.Prefix]; ok && before == i {
					return nil, fmt.Errorf("read trust policy: %s: prefix %q has another rule in %s", r.file, r.Prefix, p.exact(r.Prefix).file)
				}
				where[r.Prefix] = i
				p.rules = slices.DeleteFunc(p.rules, func(old Rule) bool { return old.Prefix == r.Prefix })
				p.rules = append(p.rules, r)
			}
		}
	}
	return p, nil
}

func sorted(m map[string]int) []string {
	var out []string
	for n := range m {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}

func (p *Policy) exact(prefix string) Rule {
	for _, r := range p.rules {
		if r.Prefix == prefix {
			return r
		}
	}
	return Rule{}
}

func readFile(name string) ([]Rule, error) {
	var f struct {
		Trust []Rule `toml:"trust"`
	}
	meta, err := toml.DecodeFile(name, &f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		return nil, fmt.Errorf("%s: unknown key %s", name, unknown[0])
	}
	for i := range f.Trust {
		r := &f.Trust[i]
		r.file = name
		if err := r.complete(); err != nil {
			return nil, fmt.Errorf("%s: prefix %q: %w", name, r.Prefix, err)
		}
	}
	return f.Trust, nil
}

// complete checks a rule and reads its keys.
func (r *Rule) complete() error {
	switch r.Require {
	case Accept, Reject:
		if len(r.Keys) > 0 || r.Identity != "" {
			return fmt.Errorf("keys and identity need require = %q", Signature)
		}
		return r.checkPrefix()
	case Signature:
	default:
		return fmt.Errorf("require %q: want %s, %s or %s", r.Require, Accept, Reject, Signature)
	}
	switch r.Identity {
	case "":
		r.Identity = "repository"
	case "repository", "any":
	default:
		return fmt.Errorf("identity %q: want repository or any", r.Identity)
	}
	if len(r.Keys) == 0 {
		return errors.New("no keys: nothing could ever be pulled; that is require = \"reject\"")
	}
	for _, k := range r.Keys {
		if !filepath.IsAbs(k) {
			k = filepath.Join(filepath.Dir(r.file), k)
		}
		b, err := os.ReadFile(k)
		if err != nil {
			return fmt.Errorf("read key: %w", err)
		}
		public, err := parseKey(b)
		if err != nil {
			return fmt.Errorf("key %s: %w", k, err)
		}
		r.keys = append(r.keys, key{k, public})
	}
	return r.checkPrefix()
}

func (r *Rule) checkPrefix() error {
	p := r.Prefix
	host, _, _ := strings.Cut(p, "/")
	switch {
	case p == "":
		return nil
	case strings.Contains(p, "://") || strings.HasSuffix(p, "/") || strings.ContainsAny(p, "@* \t") || strings.ToLower(p) != p:
		return errors.New("want host[:port][/path...] in lower case, without scheme, tag and / at the end")
	case !strings.ContainsAny(host, ".:") && host != "localhost":
		return fmt.Errorf("%q is no registry's name: images without one are docker.io's", host)
	case host == "index.docker.io":
		return errors.New("write docker.io")
	}
	return nil
}

// rule returns the rule for a repository, or nil.
func (p *Policy) rule(repository string) *Rule {
	var found *Rule
	for i, r := range p.rules {
		rest, ok := strings.CutPrefix(repository, r.Prefix)
		if !ok || r.Prefix != "" && rest != "" && rest[0] != '/' {
			continue
		}
		if found == nil || len(r.Prefix) > len(found.Prefix) {
			found = &p.rules[i]
		}
	}
	return found
}
