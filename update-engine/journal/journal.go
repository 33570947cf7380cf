// Package journal is how the update agent logs: one fact a line, with a stable MESSAGE_ID for each kind of fact and its values as fields.
//
// The text of a log record names the kind (Messages); its attributes become fields PROA_VERSION, PROA_REASON ... and stand behind the text as
// key=value, too. It speaks the journal's native protocol; where there is no journal, as in tests and by hand, the same text goes to a
// writer. Find a fact with journalctl MESSAGE_ID=..., its meaning in /usr/lib/systemd/catalog/proa.catalog.
//
// Priorities: information is 6, what went wrong is 4 (warning), because the machine is as it was and the agent tries again; only what
// somebody must look at is 3 (err).
package journal

import (
	"context"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"strings"

	"github.com/coreos/go-systemd/v22/journal"
)

// A Handler is a slog.Handler.
type Handler struct {
	send  func(message string, p journal.Priority, fields map[string]string) error
	out   io.Writer // for what the journal does not take
	known map[string]Message
	attrs []slog.Attr
}

// New returns a handler that speaks to the journal, if it is there, else to w.
func New(w io.Writer) *Handler {
	h := &Handler{out: w, known: map[string]Message{}}
	if journal.Enabled() {
		h.send = journal.Send
	}
	for _, m := range Messages() {
		h.known[m.Text] = m
	}
	return h
}

// Enabled implements slog.Handler.
func (h *Handler) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }

// WithAttrs implements slog.Handler.
func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	more := *h
	more.attrs = slices.Concat(h.attrs, attrs)
	return &more
}

// WithGroup implements slog.Handler. Keys are few and have no groups.
func (h *Handler) WithGroup(string) slog.Handler { return h }

// Handle implements slog.Handler.
func (h *Handler) Handle(_ context.Context, r slog.Record) error {
	attrs := slices.Clone(h.attrs)
	r.Attrs(func(a slog.Attr) bool {
		attrs = append(attrs, a)
		return true
	})
	var text strings.Builder
	text.WriteString(r.Message)
	fields := map[string]string{"SYSLOG_IDENTIFIER": "update-engine"}
	for _, a := range attrs {
		v := strings.Join(strings.Fields(strings.ToValidUTF8(a.Value.Resolve().String(), "?")), " ")
		fields[field(a.Key)] = v
		if v == "" {
			continue // as for nobody's reason
		}
		if strings.ContainsAny(v, " \"=") {
			v = strconv.Quote(v)
		}
		text.WriteString(" " + a.Key + "=" + v)
	}
	p := priority(r.Level)
	if m, ok := h.known[r.Message]; ok {
		fields["MESSAGE_ID"] = m.ID
		if m.Grave {
			p = journal.PriErr
		}
	}
	if h.send != nil && h.send(text.String(), p, fields) == nil {
		return nil
	}
	_, err := io.WriteString(h.out, text.String()+"\n")
	return err
}

func priority(l slog.Level) journal.Priority {
	if l >= slog.LevelWarn {
		return journal.PriWarning
	}
	return journal.PriInfo
}

// field is the name of an attribute as a field of the journal: capital letters, digits and underscores.
func field(key string) string {
	return "PROA_" + strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, strings.ToUpper(key))
}
