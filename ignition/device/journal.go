package device

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"github.com/proa-os/proa/ignition/apply"
	"github.com/proa-os/proa/internal/durable"
	"github.com/proa-os/proa/internal/gpt"
)

const journalFile = apply.StateDir + "/devices.json"

// A record is what is known of one operation: that it has begun, or what it has made. It is believed only of a device of the same size,
// and of the same disk if that has a number: the kernel may call another one so next time.
type record struct {
	Size   int64      `json:"size"`             // bytes of the device
	Disk   string     `json:"disk,omitempty"`   // its ID
	Begun  bool       `json:"begun"`            // it may have changed the device, and is not done
	Table  *gpt.Table `json:"table,omitempty"`  // the partition table it writes
	Result string     `json:"result,omitempty"` // what was found on the device afterwards
	UUID   string     `json:"uuid,omitempty"`   // that it gives to what it makes
}

func (r *run) openJournal() error {
	r.journal = map[string]record{}
	b, err := r.o.Root.ReadFile(journalFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, &r.journal); err != nil {
		return fmt.Errorf("/%s: %w; remove the file to forget what was made", journalFile, err)
	}
	return nil
}

// note makes a record durable.
func (r *run) note(key string, rec record) error {
	r.journal[key] = rec
	b, err := json.MarshalIndent(r.journal, "", " ")
	if err != nil {
		return err
	}
	if err := r.step("write journal"); err != nil {
		return err
	}
	if err := r.o.Root.MkdirAll(apply.StateDir, 0o755); err != nil {
		return err
	}
	return durable.WriteFile(r.o.Root, journalFile, append(b, '\n'), 0o600)
}

// known returns the record of an operation on a device of that size.
func (r *run) known(key string, size int64) (rec record, begun bool) {
	rec = r.journal[key]
	if rec.Size != size {
		return record{}, false
	}
	return rec, rec.Begun
}
