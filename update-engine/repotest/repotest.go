// Package repotest makes small builds and signed repositories for tests, and web servers that misbehave.
//
// A build has the parts and the proportions of a real one: a root image with its verity tree, a boot program that is a
// real UKI around a toy kernel, a release.json that ties them together. The desk that publishes it can be honest, buggy or coerced.
package repotest

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/release"
	"github.com/proa-os/proa/internal/uki"
	"github.com/proa-os/proa/internal/verity"
	"github.com/proa-os/proa/update-engine/plan"
	"github.com/proa-os/proa/update-engine/repo"
	"github.com/proa-os/proa/update-engine/server"
)

// RootSize is the size in bytes of a toy root image without its tree: more than one segment of a payload.
const RootSize = 4<<20 + 256<<10

// A Build is what image-builder would have written.
type Build struct {
	Dir     string
	Release *release.Release
	Root    []byte // root image with tree
	Boot    []byte // boot program
}

// NewBuild makes a consistent build; other versions have other content.
func NewBuild(t testing.TB, version string) *Build {
	t.Helper()
	seed := binary.LittleEndian.Uint64(sum([]byte(version)))
	data := make([]byte, RootSize)
	r := rand.New(rand.NewPCG(seed, 0))
	for off := 0; off < len(data); off += 64 << 10 { // text, noise and holes
		part := data[off : off+64<<10]
		switch r.IntN(3) {
		case 0:
			for i := 0; i < len(part); i += 8 {
				binary.LittleEndian.PutUint64(part[i:], r.Uint64())
			}
		case 1:
			copy(part, strings.Repeat(fmt.Sprintf("proa %s block %d\n", version, off), len(part)/16))
		}
	}
	return FromRoot(t, version, data)
}

func sum(b []byte) []byte { d := digest.Of(b); return d[:] }

// Similar makes a build whose root image has size bytes, of which a few differ from those of every other version.
func Similar(t testing.TB, version string, size int) *Build {
	t.Helper()
	data := noise(1, size)
	for at := 10_000; at < len(data); at += 200_000 {
		copy(data[at:], "this is release "+version)
	}
	return FromRoot(t, version, data)
}

// Alien makes a build whose root image, which has size bytes, has nothing in common with the similar ones.
func Alien(t testing.TB, version string, size int) *Build {
	t.Helper()
	return FromRoot(t, version, noise(2, size))
}

func noise(seed byte, size int) []byte {
	data := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(data)
	return data
}

// FromRoot makes a consistent build around the content of a root image, a multiple of 4096 bytes.
func FromRoot(t testing.TB, version string, data []byte) *Build {
	t.Helper()
	salt := [32]byte(sum(data))
	size, err := verity.TreeSize(int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	b := &Build{Dir: t.TempDir(), Root: append(data, make([]byte, size)...)}
	w := &memory{b.Root[len(data):]}
	hash, _, err := verity.Build(readerAt(data), int64(len(data)), salt, [16]byte(salt[:16]), w)
	if err != nil {
		t.Fatal(err)
	}
	b.Boot = BootProgram(t, version, hash, int64(len(data)))
	b.Release = &release.Release{
		Version: version, Arch: "amd64", Packages: []release.Package{},
		Root: release.RootImage{
			Size: int64(len(b.Root)), SHA256: digest.Of(b.Root), RootHash: hash, Salt: hex.EncodeToString(salt[:]), HashOffset: int64(len(data)),
		},
		Boot: release.BootProgram{Size: int64(len(b.Boot)), SHA256: digest.Of(b.Boot), Linux: digest.Of(peFile()), CommandLine: commandLine(hash, int64(len(data)))},
	}
	b.Write(t)
	return b
}

// Write stores the build in Dir again, after a test has changed a part.
func (b *Build) Write(t testing.TB) {
	t.Helper()
	text, err := b.Release.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"release.json": text, "root.img": b.Root, "boot.efi": b.Boot} {
		if err := os.WriteFile(filepath.Join(b.Dir, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// SetKernel gives the build another kernel than all builds have.
func (b *Build) SetKernel(t testing.TB, name string) {
	t.Helper()
	kernel := peFile()
	copy(kernel[len(kernel)-len(name):], name) // in its section
	r := b.Release
	b.Boot = bootProgram(t, r.Version, r.Root.RootHash, r.Root.HashOffset, kernel)
	r.Boot.Size, r.Boot.SHA256, r.Boot.Linux = int64(len(b.Boot)), digest.Of(b.Boot), digest.Of(kernel)
	b.Write(t)
}

// BootProgram is a UKI with a toy kernel whose command line boots the root hash.
func BootProgram(t testing.TB, version string, root digest.SHA256, hashOffset int64) []byte {
	t.Helper()
	return bootProgram(t, version, root, hashOffset, peFile())
}

func bootProgram(t testing.TB, version string, root digest.SHA256, hashOffset int64, kernel []byte) []byte {
	t.Helper()
	b, err := uki.Build(peFile(), uki.Contents{
		OSRelease: "ID=proa\nIMAGE_ID=proa\nIMAGE_VERSION=" + version + "\n",
		Cmdline:   commandLine(root, hashOffset),
		Uname:     "6.12.0-toy", Linux: kernel, Initrd: []byte(strings.Repeat("initrd of "+version+"\n", 5000)),
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func commandLine(root digest.SHA256, hashOffset int64) string {
	return fmt.Sprintf("proa.roothash=%s proa.hashoffset=%d console=ttyS0 panic=10", root, hashOffset)
}

// peFile is the least that passes for a UEFI program (PE32+, one section, room for more).
func peFile() []byte {
	const pe, headers = 0x40, 0x400
	b := make([]byte, headers+512)
	copy(b, "MZ")
	binary.LittleEndian.PutUint32(b[0x3c:], pe)
	copy(b[pe:], "PE\x00\x00")
	coff := b[pe+4:]
	binary.LittleEndian.PutUint16(coff, 0x8664)
	binary.LittleEndian.PutUint16(coff[2:], 1)
	binary.LittleEndian.PutUint16(coff[16:], 240)
	opt := coff[20:]
	binary.LittleEndian.PutUint16(opt, 0x20b)
	binary.LittleEndian.PutUint32(opt[32:], 4096)
	binary.LittleEndian.PutUint32(opt[36:], 512)
	binary.LittleEndian.PutUint32(opt[56:], 8192)
	binary.LittleEndian.PutUint32(opt[60:], headers)
	binary.LittleEndian.PutUint32(opt[108:], 16)
	s := opt[240:]
	copy(s, ".text")
	binary.LittleEndian.PutUint32(s[8:], 512)
	binary.LittleEndian.PutUint32(s[12:], 4096)
	binary.LittleEndian.PutUint32(s[16:], 512)
	binary.LittleEndian.PutUint32(s[20:], headers)
	return b
}

type memory struct{ b []byte }

func (m *memory) WriteAt(p []byte, off int64) (int, error) { return copy(m.b[off:], p), nil }

type readerAt []byte

func (r readerAt) ReadAt(p []byte, off int64) (int, error) {
	n := copy(p, r[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// A Repo is a signed repository with its keys.
type Repo struct {
	*repo.Desk
	Root []byte // root.json, the trust anchor
	Time time.Time
}

// New makes an empty repository in which the offline roles need 2 of 3 keys. Its desk is careless: it publishes what tests have forged.
func New(t testing.TB) *Repo {
	t.Helper()
	r := &Repo{Time: time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)}
	dir, keys := filepath.Join(t.TempDir(), "repo"), repo.KeyDir(filepath.Join(t.TempDir(), "keys"))
	root, err := repo.Init(dir, keys, repo.Thresholds{Keys: 3, Needed: 2}, r.Time)
	if err != nil {
		t.Fatal(err)
	}
	r.Root = root
	r.Desk = &repo.Desk{Dir: dir, Keys: keys, Now: func() time.Time { return r.Time }, Careless: true}
	return r
}

// Release stages and publishes a build on channel stable.
func (r *Repo) Release(t testing.TB, b *Build) { r.release(t, b, repo.Options{}) }

// ReleaseUnchecked is Release by a desk that does not compare the parts of a build.
func (r *Repo) ReleaseUnchecked(t testing.TB, b *Build) {
	r.release(t, b, repo.Options{AllowInconsistent: true})
}

func (r *Repo) release(t testing.TB, b *Build, o repo.Options) {
	t.Helper()
	if _, err := r.Stage(t.Context(), b.Dir, o); err != nil {
		t.Fatal(err)
	}
	if err := r.Publish("stable", plan.Plan{Release: b.Release.Version}); err != nil {
		t.Fatal(err)
	}
}

// ReleaseText is Release by a desk that writes another release.json for it than this one.
func (r *Repo) ReleaseText(t testing.TB, b *Build, change func(text string) string) {
	t.Helper()
	s, err := r.Stage(t.Context(), b.Dir, repo.Options{})
	if err != nil {
		t.Fatal(err)
	}
	text, err := s.Release.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	req, err := r.Staged()
	if err != nil {
		t.Fatal(err)
	}
	text = []byte(change(string(text)))
	folder := "releases/" + s.Release.Version + "/" + s.Release.Arch
	info := req.Targets.Signed.Targets[folder+"/release.json"]
	info.Length, info.Hashes["sha256"] = int64(len(text)), sum(text)
	request, err := req.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"targets/" + folder + "/" + digest.Of(text).String() + ".release.json": text, "staged/request.json": request} {
		if err := os.WriteFile(filepath.Join(r.Dir, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Publish("stable", plan.Plan{Release: s.Release.Version}); err != nil {
		t.Fatal(err)
	}
}

// A Server is a web server for a repository which tests can make misbehave.
type Server struct {
	URL string

	mu     sync.Mutex
	cuts   map[string]int64        // by suffix of the path: bytes after which the next answer ends
	tamper map[string]func([]byte) // by suffix of the path: changes the body
	refuse map[string]int          // by suffix of the path: status of all answers
	Log    []string                // "GET path range"
}

// Serve serves the repository on the loopback interface until the test ends.
func (r *Repo) Serve(t testing.TB) *Server {
	t.Helper()
	root, err := os.OpenRoot(r.Dir)
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{cuts: map[string]int64{}, tamper: map[string]func([]byte){}, refuse: map[string]int{}}
	inner := server.Handler(root)
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) { s.serve(w, req, inner) }))
	t.Cleanup(func() { web.Close(); root.Close() })
	s.URL = web.URL
	return s
}

// Cut lets the next answer for a path with this suffix end after n bytes, as a broken connection does.
func (s *Server) Cut(suffix string, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cuts[suffix] = n
}

// Tamper changes all answers for paths with this suffix; nil ends it.
func (s *Server) Tamper(suffix string, change func(body []byte)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tamper[suffix] = change
}

// Refuse gives all requests for paths with this suffix an error of the server as their answer.
func (s *Server) Refuse(suffix string, status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse[suffix] = status
}

// Requests returns what was asked so far.
func (s *Server) Requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.Log...)
}

func (s *Server) serve(w http.ResponseWriter, req *http.Request, inner http.Handler) {
	s.mu.Lock()
	s.Log = append(s.Log, strings.TrimSpace(req.Method+" "+req.URL.Path+" "+req.Header.Get("Range")))
	cut := int64(-1)
	var tamper func([]byte)
	for suffix, n := range s.cuts {
		if strings.HasSuffix(req.URL.Path, suffix) {
			cut = n
			delete(s.cuts, suffix)
		}
	}
	for suffix, change := range s.tamper {
		if strings.HasSuffix(req.URL.Path, suffix) {
			tamper = change
		}
	}
	status := 0
	for suffix, code := range s.refuse {
		if strings.HasSuffix(req.URL.Path, suffix) {
			status = code
		}
	}
	s.mu.Unlock()
	if status != 0 {
		http.Error(w, "no", status)
		return
	}
	if cut < 0 && tamper == nil {
		inner.ServeHTTP(w, req)
		return
	}
	if tamper != nil {
		req.Header.Del("If-None-Match") // "not modified" would leave nothing to change
		req.Header.Del("If-Modified-Since")
	}
	rec := httptest.NewRecorder()
	inner.ServeHTTP(rec, req)
	body := rec.Body.Bytes()
	if tamper != nil {
		tamper(body)
	}
	for k, v := range rec.Header() {
		w.Header()[k] = v
	}
	w.WriteHeader(rec.Code)
	if cut >= 0 && cut < int64(len(body)) {
		_, _ = w.Write(body[:cut])
		panic(http.ErrAbortHandler) // the connection ends in the middle
	}
	_, _ = w.Write(body)
}
