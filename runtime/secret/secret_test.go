package secret

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestStore(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "secrets")
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	data := []byte("pass\x00word\xff\n")
	if err := s.Put(&Secret{Name: "db", Data: data, Labels: map[string]string{"a": "b"}}, false); err != nil {
		t.Fatal(err)
	}
	if v, err := s.Get("db"); err != nil || !bytes.Equal(v.Data, data) || v.Labels["a"] != "b" {
		t.Errorf("got %+v, %v", v, err)
	}
	if err := s.Put(&Secret{Name: "db", Data: []byte("x")}, false); !errors.Is(err, ErrExists) {
		t.Errorf("a second one: %v", err)
	}
	if err := s.Put(&Secret{Name: "db", Data: []byte("x")}, true); err != nil {
		t.Error(err)
	}
	if v, err := s.Get("db"); err != nil || string(v.Data) != "x" {
		t.Errorf("got %+v, %v", v, err)
	}
	if list, err := s.List(); err != nil || len(list) != 1 || list[0].Name != "db" || list[0].Data != nil {
		t.Errorf("list: %v, %v", list, err)
	}
	for path, want := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, "db.json"): 0o600} {
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", path, st, err)
		}
	}
	for _, bad := range []*Secret{{Name: "x"}, {Name: "x", Data: make([]byte, MaxSize+1)}, {Name: "../x", Data: data}, {Name: "", Data: data}, {Name: "a,b", Data: data}, {Name: "a\nb", Data: data}} {
		if err := s.Put(bad, true); err == nil {
			t.Errorf("%.20q with %d bytes was taken", bad.Name, len(bad.Data))
		}
	}
	if err := s.Remove("other"); !errors.Is(err, ErrNone) {
		t.Errorf("a missing one: %v", err)
	}
	if err := s.Remove("db"); err != nil {
		t.Error(err)
	}
	if _, err := s.Get("db"); !errors.Is(err, ErrNone) || !strings.Contains(err.Error(), "db") {
		t.Errorf("after rm: %v", err)
	}
	if names, _ := os.ReadDir(dir); len(names) != 0 {
		t.Errorf("left: %v", names)
	}
}
