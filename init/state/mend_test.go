package state

import (
	"slices"
	"testing"
)

// A damaged backup is mended; whenever the power goes meanwhile, the table is there with its state.
func TestMendPowerCut(t *testing.T) {
	for _, sectorSize := range []int{512, 4096} {
		whole := fresh(t, smallDisk, sectorSize)
		mustBoot(t, "first", whole, 1)
		w := &dyingDisk{size: whole.size, sectorSize: sectorSize, left: 1 << 30, stored: slices.Clone(whole.stored)}
		w.stored = append(w.stored, write{w.size - int64(sectorSize), make([]byte, sectorSize)})
		if w.read(t, "damaged").Table.BackupError == nil {
			t.Fatal("the backup is not damaged")
		}
		mend := func(w *dyingDisk) error {
			mended, err := Mend(w, w.read(t, "mend"))
			if err == nil && !mended {
				t.Error("was left damaged")
			}
			return err
		}
		cutEverywhere(t, w, mend, func(when string, w *dyingDisk, done bool) {
			if format, size := stateOf(t, when, w); format != 1 || size != MinSize {
				t.Fatalf("%s: state %d of %d bytes", when, format, size)
			}
			if table := w.read(t, when).Table; done && (table.BackupError != nil || table.PrimaryError != nil) {
				t.Fatalf("%s: still damaged: %v, %v", when, table.PrimaryError, table.BackupError)
			}
		})
		for name, w := range map[string]*dyingDisk{"whole": whole, "grown": {size: largeDisk, sectorSize: sectorSize, left: 1 << 30, stored: w.stored}} {
			if mended, err := Mend(w, w.read(t, name)); err != nil || mended || len(w.pending) != 0 {
				t.Errorf("%s: mended %t, %v", name, mended, err)
			}
		}
	}
}
