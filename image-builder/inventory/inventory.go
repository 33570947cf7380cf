// Package inventory is usr/share/proa/packages.json: which Debian packages a root image is made of, in the image itself, where verity
// covers it. `image-builder inspect` reads it out of an image file, a person on the machine with any pager.
//
// It is JSON, one package a line, in the order of names, and depends on the packages alone, so a release with the same packages has the
// same file:
//
//	{"format":1,"packages":[
//	{"name":"base-files","version":"13.8+deb13u7"},
//	{"name":"busybox","version":"1:1.37.0-6+b9"}
//	]}
package inventory

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/proa-os/proa/internal/release"
)

// Path is where the file is in a root image.
const Path = "usr/share/proa/packages.json"

const format = 1

type file struct {
	Format   int               `json:"format"`
	Packages []release.Package `json:"packages"`
}

// Marshal returns the file for packages in the order of names.
func Marshal(packages []release.Package) ([]byte, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "{\"format\":%d,\"packages\":[", format)
	for i, p := range packages {
		line, err := json.Marshal(p)
		if err != nil {
			return nil, fmt.Errorf("write package list: %w", err)
		}
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteByte('\n')
		b.Write(line)
	}
	b.WriteString("\n]}\n")
	return b.Bytes(), nil
}

// Parse reads the file.
func Parse(b []byte) ([]release.Package, error) {
	var f file
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, fmt.Errorf("read package list: %w", err)
	}
	if f.Format != format {
		return nil, fmt.Errorf("read package list: expected format %d, found %d", format, f.Format)
	}
	return f.Packages, nil
}
