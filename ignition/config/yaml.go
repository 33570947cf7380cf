package config

import (
	"errors"
	"io/fs"
	"strings"

	"github.com/proa-os/proa/ignition/butane"
)

// parseButane translates Butane YAML and checks the result. Every place is one of the YAML.
func parseButane(name string, raw []byte, files fs.FS) (*Document, error) {
	out, err := butane.Translate(raw, files)
	var wrong *butane.Error
	if errors.As(err, &wrong) {
		if wrong.NextStep == "" {
			wrong.NextStep = correct
		}
		return nil, Issues{{
			Place:   Place{Config: name, Path: wrong.Path, Line: wrong.Line, Column: wrong.Column},
			Problem: wrong.Problem, Expected: wrong.Expected, Found: wrong.Found, Next: wrong.NextStep,
		}}
	}
	if err != nil {
		return nil, Issues{{Place: Place{Config: name}, Problem: err.Error(), Next: correct}}
	}
	places := make(map[string]Place, len(out.Places))
	for path, at := range out.Places {
		places[path] = Place{Config: name, Path: at.Path, Line: at.Line, Column: at.Column}
	}
	d, err := parseJSON(name, out.JSON)
	var issues Issues
	if errors.As(err, &issues) {
		for n := range issues {
			inYAML(&issues[n], name, places)
		}
		return nil, issues
	}
	for n := range d.Warnings {
		inYAML(&d.Warnings[n], name, places)
	}
	for path := range d.places {
		d.places[path] = placeNear(places, name, path)
	}
	return d, nil
}

// placeNear is the place of path, or of what is around it, without what the YAML does not say.
func placeNear(places map[string]Place, name, path string) Place {
	for p := path; ; p = p[:max(0, strings.LastIndexAny(p, ".["))] {
		if at, ok := places[p]; ok || p == "" {
			at.Config = name
			return at
		}
	}
}

// inYAML gives an issue of the JSON its place in the YAML, and the names that keys have there.
func inYAML(i *Issue, name string, places map[string]Place) {
	i.Place = placeNear(places, name, i.Path)
	if i.Problem != "unknown key" {
		return
	}
	if all, ok := strings.CutPrefix(i.Expected, "one of "); ok {
		keys := strings.Split(all, ", ")
		for n := range keys {
			keys[n] = butane.Snake(keys[n])
		}
		i.Expected = "one of " + strings.Join(keys, ", ")
	}
	i.Found = quote(i.Path[strings.LastIndexByte(i.Path, '.')+1:])
	if head, key, ok := strings.Cut(i.Next, `"`); ok {
		key, tail, _ := strings.Cut(key, `"`)
		i.Next = head + `"` + butane.Snake(key) + `"` + tail
	}
}
