package state

import (
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
	Lost    []Release `json:"lost,omitempty"`     // releases whose tries are used up, and that are neither quarantined nor rolled back by hand
	Next    string    `json:"next"`               // what boots next
	// Soft means that a soft reboot has led here: the loader knows nothing of it, and the boot program of what runs has not been tried.
	Soft bool `json:"soft,omitempty"`
	// Pending means that a soft reboot is under way: Next is what runs now until the release is left for the next one.
	Pending bool `json:"pending,omitempty"`
	Leaving bool `json:"leaving,omitempty"` // File was rolled back by hand: Next is something else, and nothing is tried
}

// Judge finds out, by content, what this boot is. running is the root hash of what runs, counts are GRUB's.
func Judge(running digest.SHA256, programs []Program, counts slot.Counts, q Quarantine, o Orders) Boot {
	var b Boot
	var left digest.SHA256 // by hand
	if o.Back != nil {
		left = o.Back.From.Root
	}
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
			if !p.Root.IsZero() && p.Root != left && q.Find(p.Root) == nil {
				b.Lost = append(b.Lost, Release{n.Version, p.Root})
			}
		case n.Good():
			others = append(others, p.File)
		}
	}
	b.Next, _, _ = slot.ChooseBIOS(names, counts) // without counts this is what systemd-boot chooses
	b.WayBack, _, _ = slot.Choose(others)
	if b.Trying && b.Left == 0 && running == left && b.Next != b.File {
		b.Trying, b.Leaving = false, true
	}
	return b
}

// LostReason is why a release whose tries are used up is quarantined.
const LostReason = "its tries are used up and none reached a verdict: kernel, /init or early userspace failed"
