package repo

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/release"
)

const (
	requestFile   = "staged/request.json"
	requestFormat = 1
)

// A Request is what waits for signatures of offline keys, with all that a desk without the repository needs to see what it would
// sign: one file, which travels. Its bytes (JSON, unknown keys are errors):
//
//	format     1
//	roots      every published N.root.json, in order
//	published  the published targets metadata, to compare with
//	root       the next root metadata, if roles or keys change, with the signatures so far
//	targets    the next targets metadata, if releases or the plan's keys change, with the signatures so far
//	releases   by target name: the text of each release.json that is new, and of the newest published one
type Request struct {
	Root    *metadata.Metadata[metadata.RootType]    // next, or nil
	Targets *metadata.Metadata[metadata.TargetsType] // next, or nil

	roots     []*rootMeta
	published *targetsMeta
	releases  map[string]string
}

type requestJSON struct {
	Format    int               `json:"format"`
	Roots     []json.RawMessage `json:"roots,omitempty"`
	Published json.RawMessage   `json:"published,omitempty"`
	Root      json.RawMessage   `json:"root,omitempty"`
	Targets   json.RawMessage   `json:"targets,omitempty"`
	Releases  map[string]string `json:"releases,omitempty"`
}

// ParseRequest reads a request. It checks that each root leads to the next, that the roots vouch for what is said to be published, and
// that the releases' texts are those that the metadata means; so what Summary says about it holds, as far as the first root is the right one.
func ParseRequest(b []byte) (*Request, error) {
	r, err := parseUnchecked(b)
	if err != nil {
		return nil, err
	}
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("read request for signatures: %w", err)
	}
	return r, nil
}

func parseUnchecked(b []byte) (*Request, error) {
	var j requestJSON
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&j); err != nil {
		return nil, fmt.Errorf("read request for signatures: %w", err)
	}
	if j.Format != requestFormat {
		return nil, fmt.Errorf("read request for signatures: format %d, this program reads %d", j.Format, requestFormat)
	}
	r := &Request{releases: j.Releases}
	for _, text := range j.Roots {
		root, err := parse[metadata.RootType](text)
		if err != nil {
			return nil, fmt.Errorf("read request for signatures: roots: %w", err)
		}
		r.roots = append(r.roots, root)
	}
	var err error
	if r.Root, err = parseMeta[metadata.RootType](j.Root); err != nil {
		return nil, fmt.Errorf("read request for signatures: root: %w", err)
	}
	for text, to := range map[*json.RawMessage]**targetsMeta{&j.Published: &r.published, &j.Targets: &r.Targets} {
		if *to, err = parseMeta[metadata.TargetsType](*text); err != nil {
			return nil, fmt.Errorf("read request for signatures: targets: %w", err)
		}
	}
	return r, nil
}

func parseMeta[T metadata.Roles](b json.RawMessage) (*metadata.Metadata[T], error) {
	if len(b) == 0 {
		return nil, nil
	}
	return parse[T](b)
}

func (r *Request) check() error {
	if r.Root == nil && r.Targets == nil || len(r.roots) == 0 && r.Root == nil {
		return errors.New("there is nothing in it to sign")
	}
	for i, root := range r.roots {
		if root.Signed.Version != r.roots[0].Signed.Version+int64(i) {
			return fmt.Errorf("root %d follows root %d", root.Signed.Version, r.roots[i-1].Signed.Version)
		}
		for _, signer := range []*rootMeta{r.roots[max(i-1, 0)], root} {
			if err := signer.VerifyDelegate(metadata.ROOT, root); err != nil {
				return fmt.Errorf("root %d is not what the keys of root %d have signed: %w", root.Signed.Version, signer.Signed.Version, err)
			}
		}
	}
	if r.published != nil && len(r.roots) > 0 {
		if err := r.roots[len(r.roots)-1].VerifyDelegate(metadata.TARGETS, r.published); err != nil {
			return fmt.Errorf("the published targets metadata is not what its keys have signed: %w", err)
		}
	}
	for name, text := range r.releases {
		info := r.target(name)
		if info == nil || !bytes.Equal(info.Hashes["sha256"], sumOf(text)) {
			return fmt.Errorf("the text of %s is not the one that the metadata means", name)
		}
		if _, err := release.Parse([]byte(text)); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func sumOf(text string) []byte { d := digest.Of([]byte(text)); return d[:] }

// target is what the staged, else the published, metadata says about a name.
func (r *Request) target(name string) *metadata.TargetFiles {
	for _, m := range []*targetsMeta{r.Targets, r.published} {
		if m == nil {
			continue
		}
		if info := m.Signed.Targets[name]; info != nil {
			return info
		}
	}
	return nil
}

// Marshal returns the request's bytes.
func (r *Request) Marshal() ([]byte, error) {
	j := requestJSON{Format: requestFormat, Releases: r.releases}
	for _, root := range r.roots {
		b, err := root.ToBytes(true)
		if err != nil {
			return nil, fmt.Errorf("write request for signatures: %w", err)
		}
		j.Roots = append(j.Roots, b)
	}
	var err error
	if r.Root != nil {
		if j.Root, err = r.Root.ToBytes(true); err != nil {
			return nil, fmt.Errorf("write request for signatures: %w", err)
		}
	}
	for m, to := range map[*targetsMeta]*json.RawMessage{r.published: &j.Published, r.Targets: &j.Targets} {
		if m == nil {
			continue
		}
		if *to, err = m.ToBytes(true); err != nil {
			return nil, fmt.Errorf("write request for signatures: %w", err)
		}
	}
	b, err := json.MarshalIndent(j, "", " ")
	if err != nil {
		return nil, fmt.Errorf("write request for signatures: %w", err)
	}
	return append(b, '\n'), nil
}

// request loads what is staged, without what is published meanwhile; it may be empty.
func (d *Desk) request(pub *published) (*Request, error) {
	fresh := &Request{roots: pub.roots, published: pub.targets, releases: map[string]string{}}
	b, err := os.ReadFile(d.path(requestFile))
	if errors.Is(err, fs.ErrNotExist) {
		return fresh, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read what is staged: %w", err)
	}
	parse := ParseRequest
	if d.Careless {
		parse = parseUnchecked
	}
	r, err := parse(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.path(requestFile), err)
	}
	if err := r.drop(pub); err != nil {
		return nil, fmt.Errorf("%s: %w", d.path(requestFile), err)
	}
	fresh.Root, fresh.Targets = r.Root, r.Targets
	for name, text := range r.releases {
		if fresh.target(name) != nil {
			fresh.releases[name] = text
		}
	}
	return fresh, nil
}

// drop leaves out what is published already, as after a power cut in the middle.
func (r *Request) drop(pub *published) error {
	if r.Root != nil && version(r.Root) <= version(pub.root()) {
		if !sameSigned(r.Root, pub.roots[version(r.Root)-version(pub.roots[0])]) {
			return fmt.Errorf("it holds a root %d, and another root %[1]d is published: remove the file and rotate again", version(r.Root))
		}
		r.Root = nil
	}
	if r.Targets != nil && version(r.Targets) <= version(pub.targets) {
		if !sameSigned(r.Targets, pub.targets) {
			return fmt.Errorf("it holds targets metadata %d, and another %d is published: remove the file and stage again", version(r.Targets), version(pub.targets))
		}
		r.Targets = nil
	}
	return nil
}

// sameSigned compares metadata without its signatures.
func sameSigned[T metadata.Roles](a, b *metadata.Metadata[T]) bool {
	x, y := *a, *b
	x.Signatures, y.Signatures = nil, nil
	xb, err := x.ToBytes(false)
	if err != nil {
		return false
	}
	yb, err := y.ToBytes(false)
	return err == nil && bytes.Equal(xb, yb)
}

func (r *Request) empty() bool { return r.Root == nil && r.Targets == nil }

// nextTargets is the staged targets metadata, made from the published one if there is none. Whoever changes it clears its signatures.
func (r *Request) nextTargets(d *Desk) (*targetsMeta, error) {
	if r.Targets != nil {
		return r.Targets, nil
	}
	if r.published == nil {
		return nil, fmt.Errorf("%s has no published releases metadata: finish release init first", d.Dir)
	}
	next, err := clone(r.published)
	if err != nil {
		return nil, err
	}
	next.Signed.Version++
	next.Signed.Expires = d.expires(targetsExpires)
	next.ClearSignatures()
	r.Targets = next
	return next, nil
}

// nextRoot is the staged root, made from the published one if there is none.
func (r *Request) nextRoot(d *Desk) (*rootMeta, error) {
	if r.Root != nil {
		return r.Root, nil
	}
	if len(r.roots) == 0 {
		return nil, fmt.Errorf("%s has no published root", d.Dir)
	}
	next, err := clone(r.roots[len(r.roots)-1])
	if err != nil {
		return nil, err
	}
	next.Signed.Version++
	next.Signed.Expires = d.expires(rootExpires)
	next.ClearSignatures()
	r.Root = next
	return next, nil
}

func clone[T metadata.Roles](m *metadata.Metadata[T]) (*metadata.Metadata[T], error) {
	b, err := m.ToBytes(false)
	if err != nil {
		return nil, fmt.Errorf("copy metadata: %w", err)
	}
	return parse[T](b)
}

// stage adds the request to a change.
func (c *change) stage(r *Request) error {
	b, err := r.Marshal()
	if err != nil {
		return err
	}
	c.put(requestFile, b)
	return nil
}
