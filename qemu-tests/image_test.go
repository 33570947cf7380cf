package qemutests

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	spdxjson "github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdxlib"

	"github.com/proa-os/proa/image-builder/inspect"
	"github.com/proa-os/proa/image-builder/reproduce"
	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/gpt"
	"github.com/proa-os/proa/internal/testenv"
	"github.com/proa-os/proa/internal/tooltree"
	"github.com/proa-os/proa/internal/uki"
	"github.com/proa-os/proa/qemu-tests/world"
)

// judges are programs of other people, who look at a built release.
type judges struct {
	t     *testing.T
	tools *tooltree.Tree
	image world.Image
	disk  *os.File
	table *gpt.Table
}

// TestImageJudges lets programs of other people read every format of a built release.
func TestImageJudges(t *testing.T) {
	s := begin(t)
	j := &judges{t: t, tools: testenv.Tools(t), image: s.wholeImage("1.0.0")}
	j.open()
	for _, part := range []struct {
		name  string
		judge func(*judges)
	}{
		{"root image", (*judges).rootImage}, {"partitions", (*judges).partitions}, {"ESP", (*judges).esp}, {"boot program", (*judges).bootProgram},
		{"release", (*judges).release}, {"qcow2", (*judges).qcow2}, {"bill of materials", (*judges).bill}, {"tree report", (*judges).treeReport},
		{"inspect", (*judges).inspect},
	} {
		t.Run(part.name, func(t *testing.T) {
			k := *j
			k.t = t
			part.judge(&k)
		})
	}
}

// wholeImage builds a release with all its files, as `make image` does.
func (s *story) wholeImage(version string) world.Image {
	s.t.Helper()
	dir := filepath.Join(s.dir, version)
	if _, err := s.programs.Run(s.t.Context(), os.Stderr, "image-builder/cmd/image-builder", "build", "--version", version, "--out", dir); err != nil {
		s.t.Fatal(err)
	}
	image, err := world.OpenImage(dir)
	if err != nil {
		s.t.Fatal(err)
	}
	return image
}

func (j *judges) open() {
	disk, err := os.Open(j.image.Disk())
	if err != nil {
		j.t.Fatal(err)
	}
	j.t.Cleanup(func() { disk.Close() })
	fi, err := disk.Stat()
	if err != nil {
		j.t.Fatal(err)
	}
	j.disk = disk
	if j.table, err = gpt.Read(disk, fi.Size(), 512); err != nil {
		j.t.Fatal(err)
	}
}

func (j *judges) file(name string) string { return filepath.Join(j.image.Dir, name) }

// ask runs a program of the tools tree, which must succeed and print want.
func (j *judges) ask(stdin io.Reader, want, program string, args ...string) {
	j.t.Helper()
	cmd := j.tools.Command(j.t.Context(), program, args...)
	cmd.Stdin = stdin
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), want) {
		j.t.Errorf("%s %s: %v, want %q in\n%s", program, strings.Join(args, " "), err, want, out)
	}
}

func (j *judges) partition(name string) *io.SectionReader {
	j.t.Helper()
	p, err := j.table.Find(name)
	if err != nil {
		j.t.Fatal(err)
	}
	return io.NewSectionReader(j.disk, j.table.Offset(p), j.table.Size(p))
}

func (j *judges) rootImage() {
	root, r := j.file("root.img"), j.image.Release.Root
	j.ask(nil, "", "fsck.erofs", root)
	j.ask(nil, "Command successful", "veritysetup", "verify", "-v", fmt.Sprintf("--hash-offset=%d", r.HashOffset), root, root, r.RootHash.String())
}

func (j *judges) partitions() {
	for _, sectorSize := range []string{"--sector-size=512", "--sector-size=4096"} {
		j.ask(nil, "No errors detected", "sfdisk", sectorSize, "--verify", j.image.Disk())
		j.ask(nil, `name="root-a"`, "sfdisk", sectorSize, "--dump", j.image.Disk())
	}
}

func (j *judges) esp() {
	esp := filepath.Join(j.t.TempDir(), "esp.img")
	copyTo(j.t, esp, j.partition("esp"))
	j.ask(nil, "esp.img", "fsck.fat", "-n", esp)
	j.ask(nil, "proa_1.0.0.efi", "mdir", "-b", "-i", esp, "::/EFI/Linux")
}

func (j *judges) bootProgram() {
	boot := j.file("boot.efi")
	j.ask(nil, ".initrd", "objdump", "-h", boot)
	f, err := os.Open(boot)
	if err != nil {
		j.t.Fatal(err)
	}
	defer f.Close()
	program, err := uki.Open(f)
	if err != nil {
		j.t.Fatal(err)
	}
	initrd, err := program.Section(".initrd")
	if err != nil {
		j.t.Fatal(err)
	}
	j.ask(initrd, "etc/proa/modules", "cpio", "-it")
}

// release compares what the release says with what the files hold.
func (j *judges) release() {
	r := j.image.Release
	got, _, err := digest.OfReader(io.LimitReader(j.partition("root-a"), r.Root.Size))
	if err != nil || got != r.Root.SHA256 {
		j.t.Errorf("slot A holds %s, %v, want root image %s", got, err, r.Root.SHA256)
	}
	b, err := os.ReadFile(j.file("boot.efi"))
	if err != nil || digest.Of(b) != r.Boot.SHA256 {
		j.t.Errorf("boot.efi is %s, %v, want %s", digest.Of(b), err, r.Boot.SHA256)
	}
}

func (j *judges) qcow2() {
	img := j.file("disk.qcow2")
	j.ask(nil, "No errors were found", "qemu-img", "check", "-f", "qcow2", img)
	j.ask(nil, "Images are identical", "qemu-img", "compare", "-f", "raw", "-F", "qcow2", j.image.Disk(), img)
	i, err := inspect.File(img, inspect.Options{})
	if err != nil || i.Slot(j.image.Release.Root.RootHash) == nil {
		j.t.Errorf("inspect: %v, slots %+v", err, i)
	}
}

// bill asks the SPDX project's own reader.
func (j *judges) bill() {
	b, err := os.ReadFile(j.file("sbom.spdx.json"))
	if err != nil {
		j.t.Fatal(err)
	}
	if got, want := j.image.Release.Build.SBOM, digest.Of(b); got != want {
		j.t.Errorf("the release names a bill with sha256 %s, found %s", got, want)
	}
	if j.image.Release.Build.Tools.IsZero() || j.image.Release.Build.Lock.IsZero() {
		j.t.Error("the release does not name its locks")
	}
	d, err := spdxjson.Read(bytes.NewReader(b))
	if err != nil {
		j.t.Fatal(err)
	}
	if err := spdxlib.ValidateDocument(d); err != nil {
		j.t.Error(err)
	}
	versions := map[string]string{}
	for _, p := range d.Packages {
		versions[p.PackageName] = p.PackageVersion
	}
	for _, p := range j.image.Release.Packages {
		if versions[p.Name] != p.Version {
			j.t.Errorf("%s is %q in the bill, %q in the release", p.Name, versions[p.Name], p.Version)
		}
	}
	for _, name := range []string{"init", "updatectl", "github.com/godbus/dbus/v5", "stdlib", "systemd-boot-efi", "grub-pc-bin"} {
		if versions[name] == "" {
			j.t.Errorf("no version of %s in the bill", name)
		}
	}
}

// treeReport compares the report with what fsck.erofs unpacks, line by line.
func (j *judges) treeReport() {
	dir := filepath.Join(j.t.TempDir(), "root")
	j.ask(nil, "", "fsck.erofs", "--extract="+dir, "--no-preserve-owner", "--preserve-perms", j.file("root.img"))
	f, err := os.Open(j.file("tree.txt"))
	if err != nil {
		j.t.Fatal(err)
	}
	defer f.Close()
	var paths []string
	for lines := bufio.NewScanner(f); lines.Scan(); {
		path, rest, ok := strings.Cut(lines.Text(), ": ")
		if strings.HasPrefix(path, `"`) {
			path, err = strconv.Unquote(path)
		}
		if !ok || err != nil {
			j.t.Fatalf("line %q: %v", lines.Text(), err)
		}
		paths = append(paths, path)
		if want := describe(j.t, filepath.Join(dir, path)); !slices.Equal(withoutOwner(rest), want) {
			j.t.Errorf("%s: the report says %q, fsck.erofs unpacked %q", path, rest, want)
		}
	}
	var unpacked []string
	err = filepath.WalkDir(dir, func(name string, _ fs.DirEntry, err error) error {
		if name != dir {
			unpacked = append(unpacked, strings.TrimPrefix(name, dir+"/"))
		}
		return err
	})
	slices.Sort(unpacked)
	if err != nil || !slices.Equal(paths, unpacked) {
		j.t.Errorf("%v: %d lines, %d files were unpacked", err, len(paths), len(unpacked))
	}
}

// withoutOwner leaves owner and package out of a line of the report: nothing of the kind is unpacked.
func withoutOwner(line string) []string {
	f := strings.Fields(line)
	if len(f) < 4 {
		return f
	}
	return slices.Concat(f[:2], f[3:len(f)-1])
}

// describe says of an unpacked file what its line in the report must say: type, mode, and size and sum or target.
func describe(t *testing.T, name string) []string {
	t.Helper()
	fi, err := os.Lstat(name)
	if err != nil {
		t.Error(err)
		return nil
	}
	mode := uint32(fi.Mode().Perm())
	if fi.Mode()&fs.ModeSticky != 0 {
		mode |= 0o1000
	}
	octal := fmt.Sprintf("%04o", mode)
	switch fi.Mode().Type() {
	case fs.ModeDir:
		return []string{"dir", octal}
	case fs.ModeSymlink:
		target, err := os.Readlink(name)
		if err != nil {
			t.Error(err)
		}
		return []string{"symlink", "0777", target}
	case 0:
		b, err := os.ReadFile(name)
		if err != nil {
			t.Error(err)
		}
		return []string{"file", octal, strconv.Itoa(len(b)), digest.Of(b).String()}
	}
	t.Errorf("%s: %s", name, fi.Mode())
	return nil
}

// inspect must say what release.json says, from the disk image alone.
func (j *judges) inspect() {
	i, err := inspect.File(j.image.Disk(), inspect.Options{Verify: true})
	if err != nil {
		j.t.Fatal(err)
	}
	r, a := j.image.Release, i.Slots[0]
	if len(i.Warnings) > 0 || len(i.Partitions) != 4 || !a.Filled || i.Slots[1].Filled || len(i.Programs) != 1 || !i.Programs[0].Good {
		j.t.Errorf("got warnings %q, partitions %v, slots filled %v and %v, programs %+v", i.Warnings, i.Partitions, a.Filled, i.Slots[1].Filled, i.Programs)
	}
	if !*a.Verified || *a.RootHash != r.Root.RootHash || a.HashOffset != r.Root.HashOffset || a.Version != r.Version || !slices.Equal(a.Packages, r.Packages) {
		j.t.Errorf("slot A: %s %s, verified %v, %d packages", a.Version, a.RootHash, *a.Verified, len(a.Packages))
	}
}

func copyTo(t *testing.T, name string, r io.Reader) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.Copy(f, r); err != nil {
		t.Fatal(err)
	}
}

// TestSameBytes builds a release once more, as differently as one machine can (package reproduce) and without the cache of which the first
// build was made: every file must be the same.
func TestSameBytes(t *testing.T) {
	s := begin(t, 4)
	first := s.wholeImage("1.0.0")
	cache, err := tooltree.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	r, err := reproduce.Run(t.Context(), reproduce.Options{Version: "1.0.0", Module: s.repo, CacheDir: cache, First: first.Dir, Dir: s.dir, Elsewhere: "/var/tmp", Progress: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	if r.Difference != nil {
		t.Errorf("%v\nkept: %s, %s", r.Difference, r.First, r.Second)
	}
	if len(r.Files) < 7 {
		t.Errorf("only %v were compared", r.Files)
	}
}

// TestBuildAgain builds into a folder again and again: nothing is made anew without need, and nothing that was damaged stays.
func TestBuildAgain(t *testing.T) {
	s := begin(t)
	dir := filepath.Join(s.dir, "out")
	build := func(variant string) os.FileInfo {
		t.Helper()
		if _, err := s.programs.Build(t.Context(), os.Stderr, dir, "1.0.0", variant); err != nil {
			t.Fatal(err)
		}
		fi, err := os.Stat(filepath.Join(dir, "root.img"))
		if err != nil {
			t.Fatal(err)
		}
		return fi
	}
	sum := func() digest.SHA256 {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(dir, "root.img"))
		if err != nil {
			t.Fatal(err)
		}
		return digest.Of(b)
	}
	first := build("")
	want := sum()
	if again := build(""); !os.SameFile(first, again) {
		t.Error("nothing has changed, and the release was built anew")
	}
	f, err := os.OpenFile(filepath.Join(dir, "root.img"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("damaged"), 1<<20); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if build(""); sum() != want {
		t.Error("a damaged root image stayed")
	}
	if build("panic"); sum() == want {
		t.Error("an overlay was laid over the image, and it is the same")
	}
	if build(""); sum() != want {
		t.Error("without the overlay it is not the image it was")
	}
}
