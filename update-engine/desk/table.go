package desk

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/proa-os/proa/update-engine/repo"
)

// table lays out rows of cells that tabs separate.
func table(rows ...string) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, r := range rows {
		fmt.Fprintln(w, r)
	}
	w.Flush()
	return strings.TrimRight(b.String(), "\n")
}

// payloads is the table of payload sizes. took is the heading of the times.
func payloads(made []repo.Made, took string) string {
	rows := []string{"release\tkind\tfrom\tbytes\t% of full\t% of raw\t" + took}
	for _, m := range made {
		from, note := m.From, ""
		if from == "" {
			from = "-"
		}
		if m.Dropped {
			note = fmt.Sprintf("\tdropped: above %d %% of full", repo.DropAbove)
		}
		rows = append(rows, fmt.Sprintf("%s\t%s\t%s\t%d\t%s\t%s\t%s%s", m.Release, m.Kind, from, m.Size, percent(m.Size, m.Full), percent(m.Size, m.Raw), seconds(m.Took), note))
	}
	return table(rows...)
}

func percent(part, whole int64) string {
	if whole == 0 {
		return "-"
	}
	return fmt.Sprintf("%.3g", 100*float64(part)/float64(whole))
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

// written lists files, for a dry run.
func (c *common) written(files []repo.Written) string {
	if !c.dry {
		return ""
	}
	rows := []string{"dry run: nothing was written; this would be, in this order:"}
	for _, f := range files {
		rows = append(rows, fmt.Sprintf("  %s\t%d bytes", f.Name, f.Size))
	}
	return "\n" + table(rows...)
}

// bar prints a line for each tenth of a stage.
type bar struct {
	w     io.Writer
	start time.Time
	stage string
	tenth int64
}

func (b *bar) show(stage string, done, total int64) {
	tenth := done * 10 / max(total, 1)
	if stage == b.stage && tenth == b.tenth {
		return
	}
	b.stage, b.tenth = stage, tenth
	fmt.Fprintf(b.w, "%6.1f s  %s %3d %%\n", time.Since(b.start).Seconds(), stage, done*100/max(total, 1))
}
