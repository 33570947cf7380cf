package diff

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Print writes what a person wants to see.
func (d *Diff) Print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintf(t, "%s (%s) -> %s (%s)\n", d.Old.File, cmp.Or(d.Old.Version, "?"), d.New.File, cmp.Or(d.New.Version, "?"))
	if d.Empty() {
		fmt.Fprintln(t, "nothing has changed")
		return t.Flush()
	}
	fmt.Fprintf(t, "\npackages: %d changed\n", len(d.Packages))
	for _, p := range d.Packages {
		switch {
		case p.Old == "":
			fmt.Fprintf(t, "  + %s\t%s\n", p.Name, p.New)
		case p.New == "":
			fmt.Fprintf(t, "  - %s\t%s\n", p.Name, p.Old)
		default:
			fmt.Fprintf(t, "  ~ %s\t%s -> %s\n", p.Name, p.Old, p.New)
		}
	}
	fmt.Fprintf(t, "\nboot program: %d parts changed\n", len(d.Boot))
	if d.Old.Kernel != d.New.Kernel {
		fmt.Fprintf(t, "  ~ kernel\t%s -> %s\n", d.Old.Kernel, d.New.Kernel)
	}
	for _, p := range d.Boot {
		fmt.Fprintf(t, "  ~ %s\t%d -> %d bytes\n", p.Name, p.OldSize, p.NewSize)
	}
	if d.Old.CommandLine != d.New.CommandLine {
		fmt.Fprintf(t, "  - command line\t%s\n  + command line\t%s\n", d.Old.CommandLine, d.New.CommandLine)
	}
	n := d.Totals
	fmt.Fprintf(t, "\nfiles: %d added, %d removed, %d changed\n", n.Added, n.Removed, n.Changed)
	for _, f := range d.Files {
		switch f.Change {
		case Added:
			fmt.Fprintf(t, "  + %s\t%d bytes\n", f.Path, f.NewSize)
		case Removed:
			fmt.Fprintf(t, "  - %s\t%d bytes\n", f.Path, f.OldSize)
		default:
			size := fmt.Sprintf("%d bytes", f.NewSize)
			if f.OldSize != f.NewSize {
				size = fmt.Sprintf("%d -> %d bytes", f.OldSize, f.NewSize)
			}
			fmt.Fprintf(t, "  ~ %s\t%s\t%s\n", f.Path, size, strings.Join(f.What, ", "))
		}
	}
	fmt.Fprintf(t, "\ntotal: %d bytes of files became %d; root image %d -> %d bytes\n", n.OldContent, n.NewContent, d.Old.RootSize, d.New.RootSize)
	return t.Flush()
}
