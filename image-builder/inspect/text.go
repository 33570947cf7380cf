package inspect

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/proa-os/proa/internal/gpt"
)

// typeName is what a person calls a partition type.
func typeName(guid string) string {
	switch gpt.GUID(guid) {
	case gpt.TypeESP:
		return "EFI system"
	case gpt.TypeBIOSBoot:
		return "BIOS boot"
	case gpt.TypeRootAMD64:
		return "root (amd64)"
	case gpt.TypeRootARM64:
		return "root (arm64)"
	}
	return guid
}

// Print writes what a person wants to see; --json has the rest.
func (i *Image) Print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintf(t, "%s: %s, %s, %d bytes", i.File, i.Kind, i.Format, i.Size)
	for n, size := range i.SectorSizes {
		fmt.Fprintf(t, "%s%d", []string{", for sectors of ", " and "}[min(n, 1)], size)
	}
	if len(i.SectorSizes) > 0 {
		fmt.Fprint(t, " bytes")
	}
	fmt.Fprintln(t)
	for _, p := range i.Partitions {
		if p.Number == i.Partitions[0].Number {
			fmt.Fprintf(t, "\nPARTITION\tNAME\tTYPE\tSTART\tSIZE\n")
		}
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\n", p.Number, p.Name, typeName(p.Type), mib(p.Start), mib(p.Size))
	}
	for n, s := range i.Slots {
		if n == 0 {
			fmt.Fprintf(t, "\nSLOT\tVERSION\tSIZE\tVERIFIED\tBOOT PROGRAMS\tROOT HASH\n")
		}
		s.print(t)
	}
	for n, p := range i.Programs {
		if n == 0 {
			fmt.Fprintf(t, "\nBOOT PROGRAM\tVERSION\tSTATE\tSIZE\tKERNEL\tROOT HASH\n")
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", p.File, p.Version, p.state(i.Kind), mib(p.Size), p.Kernel, p.RootHash)
	}
	for _, p := range i.Programs {
		fmt.Fprintf(t, "\nCOMMAND LINE of %s\n  %s\n", p.File, p.CommandLine)
	}
	for _, a := range i.Addons {
		fmt.Fprintf(t, "\nADDED to it by %s\n  %s\n", a.File, a.CommandLine)
	}
	for _, s := range i.Slots {
		if len(s.Packages) == 0 {
			continue
		}
		fmt.Fprintf(t, "\n%d PACKAGES in %s\n", len(s.Packages), s.Name)
		for _, p := range s.Packages {
			fmt.Fprintf(t, "  %s\t%s\n", p.Name, p.Version)
		}
	}
	for _, warning := range i.Warnings {
		fmt.Fprintf(t, "\nwarning: %s\n", warning)
	}
	return t.Flush()
}

func (s Slot) print(w io.Writer) {
	if !s.Filled {
		fmt.Fprintf(w, "%s\t(empty)\n", s.Name)
		return
	}
	verified := "not asked"
	if s.Verified != nil {
		verified = map[bool]string{true: "yes", false: "NO"}[*s.Verified]
	}
	programs := strings.Join(s.Programs, " ")
	if programs == "" {
		programs = "none"
	}
	fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", s.Name, s.Version, mib(s.Size), verified, programs, s.RootHash)
}

func (p BootProgram) state(kind string) string {
	switch {
	case kind == KindBoot:
		return "a file"
	case p.Good:
		return "good"
	}
	return fmt.Sprintf("%d tries left, %d done", p.TriesLeft, p.TriesDone)
}

func mib(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
