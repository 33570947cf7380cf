package desk

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/proa-os/proa/internal/command"
	"github.com/proa-os/proa/update-engine/client"
	"github.com/proa-os/proa/update-engine/repo"
)

func (s Streams) statusCommand() command.Command {
	return command.Command{
		Name: "status", Short: "show roles, channels and releases", Setup: s.setup(setupStatus),
		Long: `Shows the roles with their keys, thresholds, versions and expiry, what each channel gets, the releases with the sizes of their payloads, and
what waits for whose signature. It believes the files; release verify does not.`,
		Examples: []string{"release status --repo repo"},
	}
}

func setupStatus(c *common, flags *flag.FlagSet) action {
	c.repoFlag(flags)
	return func(context.Context, []string) (*result, error) {
		s, err := c.desk().Status()
		if err != nil {
			return nil, err
		}
		return &result{json: s, text: statusText(s, c.Now())}, nil
	}
}

func statusText(s *repo.Status, now time.Time) string {
	rows := []string{"role\tkept\tversion\texpires\tin\tsignatures\tkeys"}
	for _, r := range s.Roles {
		kept := "online"
		if r.Offline {
			kept = "offline"
		}
		rows = append(rows, fmt.Sprintf("%s\t%s\t%d\t%s\t%s\t%d of %d\t%s", r.Role, kept, r.Version, r.Expires.Format("2006-01-02 15:04"), until(r.Expires, now), r.Threshold, len(r.Keys), shortIDs(r.Keys)))
	}
	parts := []string{table(rows...)}
	for _, p := range s.Channels {
		parts = append(parts, describePlan(p))
	}
	if len(s.Channels) == 0 {
		parts = append(parts, "no channel has a release yet")
	}
	rows = []string{"release\tarch\troot hash\tpayload\tbytes\t% of full\t% of raw\t"}
	for _, r := range slices.Backward(s.Releases) {
		rows = append(rows, releaseRows(r)...)
	}
	if len(s.Releases) > 0 {
		parts = append(parts, table(rows...))
	}
	if len(s.Staged) > 0 {
		parts = append(parts, "staged:", signatures(s.Staged))
	}
	return strings.Join(parts, "\n\n")
}

func releaseRows(r repo.ReleaseStatus) []string {
	var names, rows []string
	for name := range r.Payloads {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { // full first
		return strings.Compare(strings.Replace(a, "full", "", 1), strings.Replace(b, "full", "", 1))
	})
	note := ""
	if r.Staged {
		note = "staged"
	}
	for i, name := range names {
		head := "\t\t"
		if i == 0 {
			head = r.Version + "\t" + r.Arch + "\t" + repo.Short(r.RootHash.String())
		}
		rows = append(rows, fmt.Sprintf("%s\t%s\t%d\t%s\t%s\t%s", head, name, r.Payloads[name], percent(r.Payloads[name], r.Payloads["full"]), percent(r.Payloads[name], r.Raw), note))
	}
	return rows
}

// until is a time to come in the unit that fits.
func until(t, now time.Time) string {
	d := t.Sub(now)
	switch {
	case d < 0:
		return "EXPIRED"
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

func (s Streams) verifyCommand() command.Command {
	return command.Command{
		Name: "verify", Short: "check everything in a repository", Setup: s.setup(setupVerify),
		Long: `For a folder: checks the chain of root metadata from the first, or from --root; all signatures, versions, times, lengths and hashes; every plan
and every release; and applies every payload of every release, deltas to what they start from, and compares what comes out with release.json.
--quick leaves out the payloads' contents. Every problem is named with its file. Then, for each channel or for --channel, it reads the repository as a
machine with that trust anchor does.

For a URL only the last is done, and --root is needed: metadata, plan, release and full payload of a channel.`,
		Examples: []string{"release verify --repo repo", "release verify --repo https://updates.example.org/ --root 1.root.json --channel stable",
			"release verify --repo oci://registry.example.org/os/updates:latest --root 1.root.json"},
	}
}

const defaultChannel = "stable"

type verified struct {
	*repo.Checked
	Channels []*repo.Verified `json:"channels"`
}

func setupVerify(c *common, flags *flag.FlagSet) action {
	var root, channel string
	var quick bool
	flags.StringVar(&root, "root", "", "`file` of a trust anchor (default for a folder: its own 1.root.json)")
	flags.StringVar(&channel, "channel", "", "`name` of the channel (default: all of a folder, "+defaultChannel+" of a URL)")
	flags.BoolVar(&quick, "quick", false, "do not apply the payloads")
	c.repoFlag(flags)
	return func(ctx context.Context, _ []string) (*result, error) {
		if isURL(c.repo) && root == "" {
			return nil, command.Wrong("verify: --root is missing")
		}
		if root == "" {
			root = filepath.Join(c.repo, "metadata", "1.root.json")
		}
		anchor, err := os.ReadFile(root)
		if err != nil {
			return nil, fmt.Errorf("read trust anchor: %w", err)
		}
		if isURL(c.repo) {
			return c.verifyURL(ctx, anchor, channel, quick)
		}
		return c.verifyFolder(ctx, anchor, channel, quick)
	}
}

func (c *common) verifyURL(ctx context.Context, anchor []byte, channel string, quick bool) (*result, error) {
	if channel == "" {
		channel = defaultChannel
	}
	view := repo.View{Server: c.repo, Source: client.NewHTTP(30 * time.Second), Anchor: anchor, Now: c.Now(), Quick: quick}
	v, err := view.Verify(ctx, channel)
	if err != nil {
		return nil, err
	}
	return &result{json: verified{Channels: []*repo.Verified{v}}, text: viewText(v)}, nil
}

func viewText(v *repo.Verified) string {
	return fmt.Sprintf("a machine of channel %s gets release %s for %s, root hash %s, %d bytes in full", v.Channel, v.Version, v.Arch, v.RootHash, v.Payloads["full"])
}

func (c *common) verifyFolder(ctx context.Context, anchor []byte, channel string, quick bool) (*result, error) {
	d := c.desk()
	checked, err := d.Check(ctx, anchor, quick)
	if err != nil {
		return nil, err
	}
	done := verified{Checked: checked, Channels: []*repo.Verified{}}
	var lines []string
	if len(checked.Problems) == 0 {
		lines, err = c.views(ctx, d, anchor, channel, &done)
		if err != nil {
			return nil, err
		}
	}
	text := fmt.Sprintf("root 1 to %d, %d releases, %d payloads applied", checked.Roots, checked.Releases, len(checked.Applied))
	if len(checked.Applied) > 0 {
		text += "\n" + payloads(checked.Applied, "applied in")
	}
	for _, u := range checked.Unused {
		lines = append(lines, fmt.Sprintf("not used: %s, %d bytes: no metadata leads there; it may be removed", u.Name, u.Size))
	}
	if len(lines) > 0 {
		text += "\n" + strings.Join(lines, "\n")
	}
	if len(checked.Problems) == 0 {
		return &result{json: done, text: text + "\nverified"}, nil
	}
	return &result{json: done, text: text}, fmt.Errorf("%w:\n%s", errProblems, strings.Join(checked.Problems, "\n"))
}

// views looks at a folder as machines do. The payloads were applied before.
func (c *common) views(ctx context.Context, d *repo.Desk, anchor []byte, channel string, done *verified) (lines []string, err error) {
	s, err := d.Status()
	if err != nil {
		return nil, err
	}
	names := []string{channel}
	if channel == "" {
		names = nil
		for _, p := range s.Channels {
			names = append(names, p.Channel)
		}
	}
	url, err := client.FolderURL(c.repo)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		v, err := repo.View{Server: url, Source: client.Folder{}, Anchor: anchor, Now: c.Now(), Quick: true}.Verify(ctx, name)
		if err != nil {
			return nil, err
		}
		done.Channels, lines = append(done.Channels, v), append(lines, viewText(v))
	}
	return lines, nil
}
