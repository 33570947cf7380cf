package state

import (
	"fmt"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/slot"
)

// A Program is a boot program on the ESP, with what its content says it boots.
type Program struct {
	File string
	Root digest.SHA256 // zero if it cannot be read
}

// A Boot is what the present boot is.
type Boot struct {
	File    string    `json:"file"`               // the boot program that runs; empty if none on the ESP boots what runs
	Version string    `json:"version"`            // of File
	Trying  bool      `json:"trying"`             // it has a counter: this boot decides
	Left    int       `json:"tries_left"`         // behind this one
	WayBack string    `json:"way_back,omitempty"` // what boots if File is marked bad; empty if there is nothing else that is good
	Lost    []Release `json:"lost,omitempty"`     // releases whose tries are used up, and that are not quarantined yet
	Next    string    `json:"next"`               // what boots next
}

// Judge finds out, by content, what this boot is. running is the root hash on the kernel command line, counts are GRUB's.
func Judge(running digest.SHA256, programs []Program, counts slot.Counts, q Quarantine) Boot {
	var b Boot
	var names, others []string
	for _, p := range programs {
		n, err := counts.Seen(p.File)
		if err != nil {
			continue
		}
		names = append(names, p.File)
		switch {
		case p.Root == running:
			// Two files for one root hash: the good one counts, a leftover must not make it a try.
			if b.File == "" || n.Good() {
				b.File, b.Version, b.Trying, b.Left = p.File, n.Version, n.Counted, n.Left
			}
		case n.Exhausted():
			if !p.Root.IsZero() && q.Find(p.Root) == nil {
				b.Lost = append(b.Lost, Release{n.Version, p.Root})
			}
		case n.Good():
			others = append(others, p.File)
		}
	}
	b.Next, _, _ = slot.ChooseBIOS(names, counts) // without counts this is what systemd-boot chooses
	b.WayBack, _, _ = slot.Choose(others)
	return b
}

// LostReason is why a release whose tries are used up is quarantined.
const LostReason = "its tries are used up and none reached a verdict: kernel, /init or early userspace failed"

// Why explains in one line why the machine is or is not updated.
func Why(version string, boot Boot, m Machine, q Quarantine) string {
	switch {
	case boot.Trying:
		return fmt.Sprintf("runs %s on trial: its health check decides, %d tries are left", version, boot.Left)
	case m.Phase == Checking || m.Phase == Downloading || m.Phase == Writing || m.Phase == Rebooting:
		return fmt.Sprintf("runs %s and is %s", version, m.Phase)
	case m.Phase == Armed && m.Target != nil:
		return fmt.Sprintf("runs %s: release %s is written and armed, the next boot tries it", version, m.Target.Version)
	case m.Check == nil:
		return fmt.Sprintf("runs %s: has not looked for a newer release yet", version)
	case m.Check.Error != "":
		return fmt.Sprintf("runs %s: the last look for a newer release failed: %s", version, m.Check.Error)
	}
	offered := m.Check.Offered
	if e := q.FindVersion(offered); e != nil {
		return fmt.Sprintf("stays on %s: release %s is quarantined since %s: %s", version, offered, e.Time.UTC().Format("2006-01-02 15:04"), e.Reason)
	}
	switch {
	case m.Check.Held != "":
		return fmt.Sprintf("stays on %s: %s", version, m.Check.Held)
	case offered == version:
		return fmt.Sprintf("runs %s, the release of channel %s", version, m.Check.Channel)
	case slot.Compare(offered, version) < 0:
		return fmt.Sprintf("stays on %s: channel %s offers the older %s, and machines never go back by plan", version, m.Check.Channel, offered)
	case m.Phase == Failed:
		return fmt.Sprintf("stays on %s: release %s could not be installed: %s", version, offered, m.Error)
	}
	return fmt.Sprintf("runs %s: release %s is there, updatectl apply installs it", version, offered)
}
