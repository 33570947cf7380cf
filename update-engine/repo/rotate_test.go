package repo_test

import (
	"bytes"
	"crypto"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/update-engine/repo"
)

// rotate stages new keys for some roles and takes the old private keys away: they were stolen, or lost.
func rotate(t *testing.T, d *repo.Desk, roles ...string) (stolen map[string][]crypto.Signer) {
	t.Helper()
	stolen = map[string][]crypto.Signer{}
	s, err := d.Status()
	if err != nil {
		t.Fatal(err)
	}
	keys := d.Keys.(repo.KeyDir)
	for _, role := range s.Roles {
		if !strings.Contains(strings.Join(roles, " "), role.Role) {
			continue
		}
		if stolen[role.Role], err = keys.Signers(role.Role); err != nil {
			t.Fatal(err)
		}
		old, err := filepath.Glob(filepath.Join(string(keys), role.Role+"-*"))
		if err != nil {
			t.Fatal(err)
		}
		made, err := keys.NewKeys(role.Role, len(role.Keys))
		if err != nil {
			t.Fatal(err)
		}
		var add []*metadata.Key
		for _, k := range made {
			key, err := repo.PublicKey(k.Public)
			if err != nil {
				t.Fatal(err)
			}
			add = append(add, key)
		}
		if _, err := d.Rotate(repo.Rotation{Role: role.Role, Add: add, Remove: role.Keys}); err != nil {
			t.Fatal(err)
		}
		for _, f := range old {
			if err := os.Remove(f); err != nil {
				t.Fatal(err)
			}
		}
	}
	return stolen
}

// forge writes a file that a thief has signed over a copy of the repository.
func forge[T metadata.Roles](t *testing.T, file string, m *metadata.Metadata[T], keys []crypto.Signer) []byte {
	t.Helper()
	for _, k := range keys {
		s, err := repo.Signer(k)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.Sign(s); err != nil {
			t.Fatal(err)
		}
	}
	b, err := m.ToBytes(true)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return b
}

// A thief of the online keys leads a machine to versions that the repository will not reach in a lifetime. When the keys are changed the
// machine forgets those with them, and reads the honest repository again; machines that were not led astray walk on. The keys of before are
// not at hand, so a machine between two writes would be refused: the desk says so.
func TestFastForwardRecovery(t *testing.T) {
	t.Parallel()
	d := honest(t)
	url := serve(t, d.Dir)
	untouched, led := standard(t, d, url), standard(t, d, url)
	for _, c := range []standardClient{untouched, led} {
		if v, err := c.read("stable"); err != nil || v != "1.0.0" {
			t.Fatalf("%s, %v", v, err)
		}
	}

	stolen := rotate(t, d, "snapshot", "timestamp", "plan")
	evil := twin(t, d)
	led.url = serve(t, evil.Dir)
	const far = 1 << 40
	at := func(name string) string { return filepath.Join(evil.Dir, "metadata", name) }
	snapshot, err := metadata.Snapshot().FromFile(at("2.snapshot.json"))
	if err != nil {
		t.Fatal(err)
	}
	snapshot.Signed.Version = far
	snapshot.ClearSignatures()
	b := forge(t, at("1099511627776.snapshot.json"), snapshot, stolen["snapshot"])
	timestamp, err := metadata.Timestamp().FromFile(at("timestamp.json"))
	if err != nil {
		t.Fatal(err)
	}
	sum := digest.Of(b)
	timestamp.Signed.Version = far
	timestamp.Signed.Meta["snapshot.json"] = &metadata.MetaFiles{Version: far, Length: int64(len(b)), Hashes: metadata.Hashes{"sha256": sum[:]}}
	timestamp.ClearSignatures()
	_ = os.Remove(at("timestamp.json")) // it is a link to the honest one
	forge(t, at("timestamp.json"), timestamp, stolen["timestamp"])
	if v, err := led.read("stable"); err != nil || v != "1.0.0" {
		t.Fatalf("the thief's repository: %s, %v", v, err)
	}
	led.url = url
	if _, err := led.read("stable"); err == nil {
		t.Fatal("the machine was not led astray: it reads the honest repository as before")
	}

	done, err := d.PublishStaged(nil)
	if err != nil || !done.Gap || done.Root != 2 || done.Plan == 0 {
		t.Fatalf("%+v, %v", done, err)
	}
	for name, c := range map[string]standardClient{"led astray": led, "untouched": untouched, "new": standard(t, d, url)} {
		if v, err := c.read("stable"); err != nil || v != "1.0.0" {
			t.Errorf("%s: %s, %v", name, v, err)
		}
	}
	led.url = serve(t, evil.Dir)
	if v, err := led.read("stable"); err == nil {
		t.Errorf("with the new root, the thief's repository still gives %s", v)
	}
}

// New keys for targets with the old ones lost: what was signed by those is signed anew, or nothing is published.
func TestLostReleaseKeys(t *testing.T) {
	t.Parallel()
	d := honest(t)
	url := serve(t, d.Dir)
	old := standard(t, d, url)
	rotate(t, d, "targets")
	r, err := d.Staged()
	if err != nil || r.Targets == nil {
		t.Fatalf("%v: the releases are not staged to be signed anew: %+v", err, r)
	}
	if v, err := old.read("stable"); err != nil || v != "1.0.0" {
		t.Errorf("while that is staged: %s, %v", v, err)
	}
	if done, err := d.PublishStaged(nil); err != nil || done.Root != 2 || done.Targets != 3 {
		t.Fatalf("%+v, %v", done, err)
	}
	if v, err := old.read("stable"); err != nil || v != "1.0.0" {
		t.Errorf("%s, %v", v, err)
	}
}

func TestRotateRefuses(t *testing.T) {
	t.Parallel()
	d := honest(t)
	s, err := d.Status()
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string][]string{}
	for _, r := range s.Roles {
		ids[r.Role] = r.Keys
	}
	files, _ := filepath.Glob(filepath.Join(string(d.Keys.(repo.KeyDir)), "snapshot-*.pub"))
	snapshotKey, err := repo.PublicKey(files[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		x    repo.Rotation
		want string
	}{
		{"a threshold that nobody reaches", repo.Rotation{Role: "root", Threshold: 4}, "4 of 3 signatures"},
		{"the last key", repo.Rotation{Role: "timestamp", Remove: ids["timestamp"]}, "1 of 0 signatures"},
		{"the last key of plan", repo.Rotation{Role: "plan", Remove: ids["plan"]}, "1 of 0 signatures"},
		{"a key of another role", repo.Rotation{Role: "root", Add: []*metadata.Key{snapshotKey}}, "a key of its own"},
		{"a key of another role for plan", repo.Rotation{Role: "plan", Add: []*metadata.Key{snapshotKey}}, "a key of its own"},
		{"a key that it does not have", repo.Rotation{Role: "root", Remove: []string{"00000000"}}, "fits 0 of the role's keys"},
		{"too few digits", repo.Rotation{Role: "root", Remove: []string{ids["root"][0][:3]}}, "at least its first 6 digits"},
		{"the threshold that it has", repo.Rotation{Role: "root", Threshold: 2}, "nothing changes: it has these keys, and needs 2 signatures"},
		{"a key that it has", repo.Rotation{Role: "snapshot", Add: []*metadata.Key{snapshotKey}}, "nothing changes"},
		{"the threshold that plan has", repo.Rotation{Role: "plan", Threshold: 1}, "nothing changes"},
		{"no such role", repo.Rotation{Role: "admin", Threshold: 1}, "unknown role"},
	} {
		if _, err := d.Rotate(c.x); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
	if _, err := d.Staged(); err == nil {
		t.Error("a refused change was staged")
	}
}

// A request that travels is believed only as far as it proves what it says.
func TestParseRequestRefuses(t *testing.T) {
	t.Parallel()
	d := honest(t)
	stage(t, d, "1.0.1")
	rotateAll(t, d)
	b, err := os.ReadFile(filepath.Join(d.Dir, "staged/request.json"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := repo.ParseRequest(b); err != nil {
		t.Fatal(err)
	}
	foreign := honest(t)
	stage(t, foreign, "1.0.1")
	other, err := os.ReadFile(filepath.Join(foreign.Dir, "staged/request.json"))
	if err != nil {
		t.Fatal(err)
	}
	part := func(b []byte) (m map[string]json.RawMessage) {
		if err := json.Unmarshal(b, &m); err != nil {
			t.Fatal(err)
		}
		return m
	}
	for _, c := range []struct {
		name   string
		change func(m map[string]json.RawMessage)
		want   string
	}{
		{"other roots", func(m map[string]json.RawMessage) { m["roots"] = part(other)["roots"] }, "not what its keys have signed"},
		{"another published state", func(m map[string]json.RawMessage) { m["published"] = part(other)["published"] }, "not what its keys have signed"},
		{"a text of another release", func(m map[string]json.RawMessage) {
			m["releases"] = bytes.Replace(m["releases"], []byte(`\"arch\": \"amd64\"`), []byte(`\"arch\": \"arm64\"`), 1)
		}, "not the one that the metadata means"},
		{"nothing to sign", func(m map[string]json.RawMessage) { delete(m, "root"); delete(m, "targets") }, "nothing in it to sign"},
		{"an unknown key", func(m map[string]json.RawMessage) { m["note"] = json.RawMessage(`"trust me"`) }, "note"},
		{"another format", func(m map[string]json.RawMessage) { m["format"] = json.RawMessage("2") }, "format 2"},
	} {
		m := part(b)
		c.change(m)
		changed, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := repo.ParseRequest(changed); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
	for name, b := range map[string][]byte{"nothing": nil, "half": b[:len(b)/2], "garbage": []byte("<html>")} {
		if _, err := repo.ParseRequest(b); err == nil {
			t.Errorf("%s was read", name)
		}
	}
	// Signatures of a copy count only if it is a copy.
	r, err := repo.ParseRequest(other)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := d.MergeSignatures(r); err == nil || !strings.Contains(err.Error(), "not a copy") {
		t.Errorf("merge of a foreign request: got %v", err)
	}
	anchor, err := os.ReadFile(filepath.Join(d.Dir, "metadata/1.root.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.SameAnchor(anchor); err == nil || !strings.Contains(err.Error(), "sign nothing") {
		t.Errorf("a request of another repository: got %v", err)
	}
}

// A medium that damages a signature costs nothing but the way: the genuine one counts, whichever comes first.
func TestMergeOfADamagedSignature(t *testing.T) {
	t.Parallel()
	d := honest(t)
	stage(t, d, "1.0.1")
	if _, err := d.Renew(metadata.ROOT); err != nil {
		t.Fatal(err)
	}
	signed := func() *repo.Request {
		r, err := d.Staged()
		if err == nil {
			_, err = r.Sign(d.Keys)
		}
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	genuine, damaged := signed(), signed()
	for _, list := range [][]metadata.Signature{damaged.Root.Signatures, damaged.Targets.Signatures} {
		for i := range list {
			list[i].Signature[10] ^= 1
		}
	}
	if _, n, err := d.MergeSignatures(damaged); err != nil || n != 0 {
		t.Errorf("%d damaged signatures were taken over, %v", n, err)
	}
	b, err := damaged.Marshal() // as an earlier desk has kept them
	if err == nil {
		err = os.WriteFile(filepath.Join(d.Dir, "staged/request.json"), b, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	r, n, err := d.MergeSignatures(genuine)
	if want := len(genuine.Root.Signatures) + len(genuine.Targets.Signatures); err != nil || n != want || n < 4 {
		t.Fatalf("took over %d of %d genuine signatures, %v", n, want, err)
	}
	if _, n, err := d.MergeSignatures(damaged); err != nil || n != 0 {
		t.Errorf("%d damaged signatures were taken over again, %v", n, err)
	}
	needed, err := r.Needed()
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range needed {
		if k.Missing() > 0 {
			t.Errorf("%s of %s: %d signatures are missing", k.Keys, k.File, k.Missing())
		}
	}
}

// FuzzParseRequest: whatever is in a request, reading and describing it ends, and what is accepted can be written again.
func FuzzParseRequest(f *testing.F) {
	d := honest(f)
	stage(f, d, "1.0.1")
	rotateAll(f, d)
	b, err := os.ReadFile(filepath.Join(d.Dir, "staged/request.json"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"format":1,"root":{"signed":{"_type":"root"},"signatures":[]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := repo.ParseRequest(b)
		if err != nil {
			return
		}
		_ = r.Summary()
		if _, err := r.Needed(); err != nil {
			return
		}
		again, err := r.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := repo.ParseRequest(again); err != nil {
			t.Error(err)
		}
	})
}
