package desk

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/proa-os/proa/internal/command"
	"github.com/proa-os/proa/update-engine/repo"
)

func (s Streams) keysCommand() command.Command {
	return command.Command{
		Name: "keys", Args: "new", Min: 1, Max: 1, Short: "make keys for a role", Words: []string{"new"}, Setup: s.setup(setupKeys),
		Long: `Makes ed25519 keys in a folder, each in two files that are named after the role and the first digits of its id:

ROLE-ID.pem  the private key, PKCS #8, readable by its owner only
ROLE-ID.pub  the public key, which is all that other desks need of it

The roles root and targets belong offline: make each key on the machine or the medium where it will stay, and carry only its .pub file to the
desk that has the repository. snapshot, timestamp and plan are online: they stay with the server that publishes. There is no pass phrase; a medium
that is kept encrypted does that better. An existing file is never overwritten.`,
		Examples: []string{"release keys new --role root --count 1 --out /media/stick", "release keys new --role timestamp --out keys"},
	}
}

func setupKeys(c *common, flags *flag.FlagSet) action {
	var role, out string
	var n int
	flags.StringVar(&role, "role", "", "`role`: root, targets, snapshot, timestamp or plan")
	flags.StringVar(&out, "out", "", "`folder` of the keys, made if it is not there")
	flags.IntVar(&n, "count", 1, "how `many`")
	c.dryFlag(flags)
	return func(_ context.Context, args []string) (*result, error) {
		if args[0] != "new" || role == "" || out == "" || n < 1 {
			return nil, command.Wrong("keys: expected keys new --role ROLE --out FOLDER")
		}
		if c.dry {
			text := fmt.Sprintf("dry run: nothing was written; this would be %d files %s and as many .pub", n, filepath.Join(out, role+"-<key id>.pem"))
			return &result{json: map[string]any{"role": role, "count": n}, text: text}, nil
		}
		made, err := repo.KeyDir(out).NewKeys(role, n)
		rows := []string{"role\tkey id\tprivate\tpublic"}
		for _, k := range made {
			rows = append(rows, strings.Join([]string{k.Role, repo.Short(k.ID), k.Private, k.Public}, "\t"))
		}
		return &result{json: made, text: table(rows...)}, err
	}
}

func (s Streams) initCommand() command.Command {
	return command.Command{
		Name: "init", Short: "make an empty repository", Setup: s.setup(setupInit),
		Long: `Makes a repository in an empty folder. Its first root metadata names the keys of all roles; root and targets need --threshold signatures.

The folder --keys holds a key of each role, private (.pem) or, for root and targets, public (.pub) at least. If it is empty or not there, keys are
made: --offline-keys for root and as many for targets, one for each online role.

When the root and targets keys at hand reach the threshold, the repository is signed and published at once, and metadata/1.root.json is the
trust anchor that machines get as /etc/proa/update/root.json. Otherwise it waits in staged/request.json for release sign, where the other
keys are, and for release publish.`,
		Examples: []string{"release init --repo repo --keys keys --threshold 2 --offline-keys 3", "release init --repo repo --keys public --threshold 2"},
	}
}

type initialised struct {
	Anchor  string        `json:"trust_anchor,omitempty"` // file, once it is published
	NewKeys []repo.NewKey `json:"new_keys,omitempty"`
	Needed  []repo.Needed `json:"signatures,omitempty"`
}

func setupInit(c *common, flags *flag.FlagSet) action {
	var threshold, offline int
	flags.IntVar(&threshold, "threshold", 1, "how `many` signatures root and targets need")
	flags.IntVar(&offline, "offline-keys", 0, "how `many` keys of root, and of targets, are made if there are none (default: the threshold)")
	c.repoFlag(flags)
	c.keysFlag(flags, "the keys")
	c.dryFlag(flags)
	return func(context.Context, []string) (*result, error) {
		done, err := c.initialise(threshold, max(offline, threshold))
		if err != nil {
			return nil, err
		}
		return &result{json: done, text: done.text(c, threshold)}, nil
	}
}

func (c *common) initialise(threshold, offline int) (*initialised, error) {
	keys, done := repo.OpenKeys(c.keys), &initialised{}
	have := 0
	for _, role := range repo.Roles {
		public, err := keys.PublicKeys(role)
		if err != nil {
			return nil, err
		}
		have += len(public)
	}
	if have == 0 && c.dry {
		return done, nil
	}
	if folder, ok := keys.(repo.KeyDir); ok && have == 0 { // elsewhere keys are made with their store's own program
		for _, role := range repo.Roles {
			n := 1
			if role == "root" || role == "targets" {
				n = offline
			}
			made, err := folder.NewKeys(role, n)
			if err != nil {
				return nil, err
			}
			done.NewKeys = append(done.NewKeys, made...)
		}
	}
	d := c.desk()
	if err := d.FoundWith(keys, threshold); err != nil || c.dry {
		return done, err
	}
	_, err := d.PublishStaged(nil)
	var missing *repo.MissingError
	if errors.As(err, &missing) {
		r, err := d.Staged()
		if err == nil {
			done.Needed, err = r.Needed()
		}
		return done, err
	}
	done.Anchor = filepath.Join(c.repo, "metadata", "1.root.json")
	return done, err
}

func (i *initialised) text(c *common, threshold int) string {
	var b strings.Builder
	switch {
	case c.dry:
		return fmt.Sprintf("dry run: nothing was written; this would be the repository %s, in which root and targets need %d signatures", c.repo, threshold)
	case i.Anchor != "":
		fmt.Fprintf(&b, "made repository %s; root and targets need %d signatures\ntrust anchor for machines: %s\n", c.repo, threshold, i.Anchor)
	default:
		fmt.Fprintf(&b, "staged the first root of repository %s\n%s\nnext: release sign where the offline keys are, then release publish\n", c.repo, signatures(i.Needed))
	}
	if len(i.NewKeys) > 0 {
		fmt.Fprintf(&b, "made keys in %s: take root-*.pem and targets-*.pem offline\n", c.keys)
	}
	return b.String()
}
