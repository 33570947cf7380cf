package tuf_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"testing"
)

// What a server sends in the place of any metadata file does not end the client; if it is taken, it is what was signed.
func FuzzServer(f *testing.F) {
	names := []string{"timestamp.json", "2.root.json", "2.snapshot.json", "2.targets.json", "2.plan.json"}
	repo := secondVersion(f)
	for i, name := range names {
		f.Add(uint8(i), repo.files["metadata/"+name])
		f.Add(uint8(i), []byte(`{"signed":{"_type":"root"},"signatures":[null]}`))
	}
	f.Fuzz(func(t *testing.T, which uint8, b []byte) {
		name := "metadata/" + names[int(which)%len(names)]
		g := *repo
		g.t, g.files = t, maps.Clone(repo.files)
		g.files[name] = b
		if err := g.visitor().read(&g); err == nil && !sameSigned(b, repo.files[name]) {
			t.Errorf("%s was taken: %s", name, b)
		}
	})
}

// Names of fields may differ in case: what counts is how they are read.
func sameSigned(a, b []byte) bool {
	var x, y struct {
		Signed any `json:"signed"`
	}
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return false
	}
	m, err := json.Marshal(x.Signed)
	n, err2 := json.Marshal(y.Signed)
	return err == nil && err2 == nil && bytes.Equal(m, n)
}

// What a thief of a role's keys signs does not end the client either.
func FuzzThief(f *testing.F) {
	names := []string{"timestamp.json", "2.root.json", "2.snapshot.json", "2.targets.json", "2.plan.json"}
	repo := secondVersion(f)
	for i, name := range names {
		var whole struct {
			Signed json.RawMessage `json:"signed"`
		}
		if err := json.Unmarshal(repo.files["metadata/"+name], &whole); err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(i), []byte(whole.Signed))
	}
	f.Fuzz(func(t *testing.T, which uint8, b []byte) {
		var signed any
		if json.Unmarshal(b, &signed) != nil {
			return
		}
		name := names[int(which)%len(names)]
		g := *repo
		g.t, g.files = t, maps.Clone(repo.files)
		g.replace(name, signAny(t, signed, g.keys[metadataFiles[name]]))
		if err := g.visitor().read(&g); err != nil && len(err.Error()) > 4000 {
			t.Errorf("the refusal has %d bytes", len(err.Error()))
		}
	})
}
