package module_test

import (
	"bytes"
	"slices"
	"testing"

	"github.com/proa-os/proa/update-engine/column"
	"github.com/proa-os/proa/update-engine/module"
	"github.com/proa-os/proa/update-engine/module/moduletest"
)

// check walks the pieces of the tables, which must make the new ones in order of what is in the old ones.
func check(t *testing.T, tables []module.Table, old, new []byte) {
	t.Helper()
	end := 0
	for _, b := range tables {
		if b.New < end || b.New+b.NewSize > len(new) || b.Old < 0 || b.Old+b.OldSize > len(old) || b.NewSize == 0 {
			t.Fatalf("table of kind %d, %d bytes at %d of %d, old %d at %d of %d, behind %d", b.Kind, b.NewSize, b.New, len(new), b.OldSize, b.Old, len(old), end)
		}
		end = b.New + b.NewSize
		n := 0
		for _, p := range b.Pieces {
			if p.Old < 0 || p.Like < 0 || p.Rest < 0 || p.Old+p.Like > b.OldSize {
				t.Fatalf("piece %+v of a table of %d bytes", p, b.OldSize)
			}
			n += p.Like + p.Rest
		}
		if n != b.NewSize {
			t.Fatalf("kind %d: pieces of %d bytes for a table of %d", b.Kind, n, b.NewSize)
		}
	}
}

// differences are the bytes of a table's differences, before and after they are foretold, and those that are new.
func differences(b module.Table, old, new []byte) (plain, left, rest int) {
	var was, diff []byte
	at := b.New
	for _, p := range b.Pieces {
		for i := range p.Like {
			o := old[b.Old+p.Old+i]
			was, diff = append(was, o), append(diff, new[at+i]-o)
		}
		at += p.Like + p.Rest
		rest += p.Rest
	}
	count := func() (n int) {
		for _, v := range diff {
			if v != 0 {
				n++
			}
		}
		return n
	}
	plain = count()
	column.New().Pack(diff, was, []column.Range{{Count: len(diff) / b.Kind.Size(), Kind: b.Kind, First: true, Target: b.Target}})
	return plain, count(), rest
}

// A function grows and another one is new: every table behind them changes, and each record is found again. What is left of the differences is what
// the change itself is.
func TestTables(t *testing.T) {
	old := moduletest.Module{Seed: 1, Functions: 400, Insert: -1}.File()
	new := moduletest.Module{Seed: 1, Functions: 400, Insert: 150}.File()
	tables := module.Tables(old, new)
	check(t, tables, old, new)
	var kinds []column.Kind
	for _, b := range tables {
		kinds = append(kinds, b.Kind)
		plain, left, rest := differences(b, old, new)
		t.Logf("kind %d: %d bytes, %d differ, %d are not foretold, %d are new", b.Kind, b.NewSize, plain, left, rest)
		if b.Kind == column.Version { // each is seen once, and none says anything of another
			left = 0
		}
		if plain < 200 || left > plain/5 || rest > 100 {
			t.Errorf("kind %d: %d differences, of which %d are not foretold, %d bytes are new", b.Kind, plain, left, rest)
		}
	}
	if want := []column.Kind{column.Rela, column.Rela, column.Version, column.Words, column.Symbol}; !slices.Equal(kinds, want) {
		t.Errorf("tables of kinds %d, want %d", kinds, want)
	}
	for _, b := range module.Tables(new, new) {
		if len(b.Pieces) != 1 || b.Pieces[0] != (module.Piece{Like: b.NewSize}) {
			t.Errorf("a table of the same file is made of %+v", b.Pieces)
		}
	}
}

// Other files have none.
func TestNoTables(t *testing.T) {
	m := moduletest.Module{Seed: 2, Functions: 10, Insert: -1}.File()
	program := bytes.Clone(m)
	program[16] = 2 // ET_EXEC
	for name, b := range map[string][]byte{"nothing": nil, "text": []byte("\x7fELF is how it begins"), "program": program, "header alone": m[:64]} {
		if got := module.Tables(b, m); got != nil {
			t.Errorf("%s, old: %+v", name, got)
		}
		if got := module.Tables(m, b); got != nil {
			t.Errorf("%s, new: %+v", name, got)
		}
	}
}

// Whatever the files are, what is said of them holds.
func FuzzTables(f *testing.F) {
	old := moduletest.Module{Seed: 1, Functions: 6, Insert: -1}.File()
	new := moduletest.Module{Seed: 1, Functions: 6, Insert: 2}.File()
	f.Add(old, new)
	f.Add(new, old)
	f.Add(old[:len(old)/2], new)
	f.Fuzz(func(t *testing.T, old, new []byte) {
		if len(old)+len(new) < 1<<20 {
			check(t, module.Tables(old, new), old, new)
		}
	})
}
