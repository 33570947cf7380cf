package desk

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"

	"github.com/proa-os/proa/internal/command"
	"github.com/proa-os/proa/internal/durable"
	"github.com/proa-os/proa/update-engine/repo"
)

func (s Streams) signCommand() command.Command {
	return command.Command{
		Name: "sign", Short: "look at what is staged, and sign it", Setup: s.setup(setupSign),
		Long: `Shows what waits for signatures and what it would change, releases with their hashes and packages, keys and thresholds, and adds the
signatures of the keys at hand: all of a folder, or one with --key. With --dry-run it only shows.

Offline keys need no repository. Carry its staged/request.json to them; it holds everything that is shown, and the signed metadata to check that
by. There, release sign --request FILE --key FILE signs in the file. With --root, the trust anchor that you know, the request must be of
your repository. Carry the file back and take the signatures over with --merge; copies that were signed in several places at a time can be merged in
any order. Compare the root hash with that of your own build: builds are reproducible.`,
		Examples: []string{"release sign --repo repo --keys keys", "release sign --request request.json --key /media/stick/targets-1c0ffee1.pem --root 1.root.json",
			"release sign --repo repo --merge /media/stick/request.json"},
	}
}

type signed struct {
	Summary []string      `json:"summary"`
	By      []string      `json:"signed_by,omitempty"` // key ids
	Merged  int           `json:"merged,omitempty"`
	Needed  []repo.Needed `json:"signatures"`
}

type signFlags struct{ key, request, anchor, merge string }

func setupSign(c *common, flags *flag.FlagSet) action {
	var f signFlags
	flags.StringVar(&f.key, "key", "", "`file` of one private key, instead of --keys")
	flags.StringVar(&f.request, "request", "", "`file` that was carried here, staged/request.json of the repository, instead of --repo")
	flags.StringVar(&f.anchor, "root", "", "`file` of a root.json that you trust: the request must be of that repository")
	flags.StringVar(&f.merge, "merge", "", "`file` that was carried back: take its signatures over, and sign nothing")
	c.repoFlag(flags)
	c.keysFlag(flags, "the keys that sign")
	c.dryFlag(flags)
	c.needsRepo, c.needKeys = false, false // one of two each
	return func(context.Context, []string) (*result, error) {
		where, what := f.request != "" || c.repo != "", f.key != "" || c.keys != "" || f.merge != "" || c.dry
		if !where || !what || f.request != "" && f.merge != "" {
			return nil, command.Wrong("sign: expected --repo or --request, and --keys, --key or --merge")
		}
		r, done, err := c.sign(f)
		if err != nil {
			return nil, err
		}
		done.Summary = r.Summary()
		if done.Needed, err = r.Needed(); err != nil {
			return nil, err
		}
		if f.merge == "" && !c.dry && len(done.By) == 0 {
			err = errors.New("sign: no key at hand may sign this: nothing was added; the table says whose keys may")
		}
		return &result{json: done, text: done.text(c, f)}, err
	}
}

func (c *common) sign(f signFlags) (*repo.Request, *signed, error) {
	done := &signed{}
	ring := repo.OpenKeys(c.keys)
	if f.key != "" {
		ring = repo.OpenKey(f.key)
	}
	if f.request != "" {
		r, err := c.signFile(f, ring, done)
		return r, done, err
	}
	d := c.desk()
	d.Keys = ring
	r, err := d.Staged()
	if err != nil {
		return nil, nil, fmt.Errorf("sign: %w", err)
	}
	if err := checkAnchor(r, f.anchor); err != nil {
		return nil, nil, err
	}
	switch {
	case c.dry:
	case f.merge != "":
		var other *repo.Request
		if other, err = readRequest(f.merge); err == nil {
			r, done.Merged, err = d.MergeSignatures(other)
		}
	default:
		r, done.By, err = d.Sign()
	}
	return r, done, err
}

// signFile signs in a file that travels.
func (c *common) signFile(f signFlags, ring repo.Keyring, done *signed) (*repo.Request, error) {
	r, err := readRequest(f.request)
	if err != nil {
		return nil, err
	}
	if err := checkAnchor(r, f.anchor); err != nil {
		return nil, err
	}
	if c.dry {
		return r, nil
	}
	if done.By, err = r.Sign(ring); err != nil {
		return nil, err
	}
	b, err := r.Marshal()
	if err != nil {
		return nil, err
	}
	return r, durable.WritePath(f.request, b, 0o644)
}

func readRequest(name string) (*repo.Request, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	r, err := repo.ParseRequest(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return r, nil
}

func checkAnchor(r *repo.Request, name string) error {
	if name == "" {
		return nil
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return fmt.Errorf("read trust anchor: %w", err)
	}
	return r.SameAnchor(b)
}

func (s *signed) text(c *common, f signFlags) string {
	lines := append(s.Summary, "")
	switch {
	case c.dry:
		lines = append(lines, "dry run: nothing was written")
	case f.merge != "":
		lines = append(lines, fmt.Sprintf("took over %d signatures that were not here", s.Merged))
	}
	for _, id := range s.By {
		lines = append(lines, "signed with key "+repo.Short(id))
	}
	lines = append(lines, signatures(s.Needed))
	if complete(s.Needed) {
		lines = append(lines, "complete: release publish makes it current")
	} else {
		lines = append(lines, "next: release sign where the other keys are")
	}
	return strings.Join(lines, "\n")
}

// signatures is a table of how many signatures there are, and who is still asked.
func signatures(list []repo.Needed) string {
	rows := []string{"file\tkeys\tsignatures\tsigned by\tnot yet"}
	for _, n := range list {
		rows = append(rows, fmt.Sprintf("%s\t%s\t%d of %d needed\t%s\t%s", n.File, n.Keys, n.Have, n.Need, shortIDs(n.By), shortIDs(n.Open)))
	}
	return table(rows...)
}

func shortIDs(ids []string) string {
	if len(ids) == 0 {
		return "-"
	}
	var list []string
	for _, id := range ids {
		list = append(list, repo.Short(id))
	}
	return strings.Join(list, " ")
}

func complete(list []repo.Needed) bool {
	for _, n := range list {
		if n.Missing() > 0 {
			return false
		}
	}
	return true
}
