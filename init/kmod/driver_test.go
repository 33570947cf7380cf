package kmod

import (
	"errors"
	"reflect"
	"slices"
	"testing"
	"testing/fstest"
)

const driverText = `/m/virtio_blk.ko virtio:d00000002v*
/m/scsi_mod.ko /m/mpt3sas.ko.xz pci:v00001000d00000097sv*sd*bc*sc*i* pci:v00001000d000000C4sv*sd*bc*sc*i*
/m/scsi_mod.ko /m/sd_mod.ko scsi:t-0x00*
/m/nvme.ko pci:v*d*sv*sd*bc01sc08i02*
`

func drivers(t *testing.T) []Driver {
	t.Helper()
	list, err := ParseDrivers(driverText)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestParseDrivers(t *testing.T) {
	got := drivers(t)
	want := Driver{
		Files:   []string{"/m/scsi_mod.ko", "/m/mpt3sas.ko.xz"},
		Aliases: []string{"pci:v00001000d00000097sv*sd*bc*sc*i*", "pci:v00001000d000000C4sv*sd*bc*sc*i*"},
	}
	if len(got) != 4 || !reflect.DeepEqual(got[1], want) {
		t.Errorf("got %q", got)
	}
	if got, err := ParseDrivers(""); len(got) != 0 || err != nil {
		t.Errorf("empty list: %q, %v", got, err)
	}
	for _, text := range []string{
		"\n", "/m/a.ko\n", "virtio:*\n", "/m/a.ko  virtio:*\n", "/m/a.ko virtio:* \n", "/m/a.ko virtio:* /m/b.ko\n", "/m/a virtio:*\n",
		"/m/../a.ko virtio:*\n", "/m/a.ko virtio:[\n", "m/a.ko virtio:*\n", "/m/a.ko virtio:*\n\n",
	} {
		if got, err := ParseDrivers(text); err == nil {
			t.Errorf("%q: accepted as %q", text, got)
		}
	}
}

func FuzzParseDrivers(f *testing.F) {
	f.Add(driverText)
	f.Fuzz(func(t *testing.T, text string) {
		list, err := ParseDrivers(text)
		if err != nil {
			return
		}
		for _, d := range list {
			d.matches("pci:v00001000d00000097sv00001028sd00001F45bc01sc07i00")
			if len(d.Files) == 0 || len(d.Aliases) == 0 {
				t.Errorf("%q parsed as %q", text, list)
			}
		}
	})
}

// sysfs is a /sys whose devices have these modaliases.
func sysfs(devices map[string]string) fstest.MapFS {
	m := fstest.MapFS{"bus/platform/devices/silent/uevent": &fstest.MapFile{}}
	for d, modalias := range devices {
		m["bus/"+d+"/modalias"] = &fstest.MapFile{Data: []byte(modalias + "\n")}
	}
	return m
}

// Drivers are loaded for what is there, each module once and after what it needs; devices that a driver brings get theirs too.
func TestLoader(t *testing.T) {
	sys := sysfs(map[string]string{
		"pci/devices/0000:00:1f.0": "pci:v00008086d00002918sv00001AF4sd00001100bc06sc01i00",
		"pci/devices/0000:01:00.0": "pci:v00001000d00000097sv00001028sd00001F45bc01sc07i00",
	})
	var loaded []string
	l := NewLoader(drivers(t), sys, func(file string) error {
		loaded = append(loaded, file)
		if file == "/m/mpt3sas.ko.xz" { // its disk is there at once
			sys["bus/scsi/devices/0:0:0:0/modalias"] = &fstest.MapFile{Data: []byte("scsi:t-0x00\n")}
		}
		return nil
	})
	report := func(err error) { t.Error(err) }
	if !l.Load(report) {
		t.Error("says it has loaded nothing")
	}
	if want := []string{"/m/scsi_mod.ko", "/m/mpt3sas.ko.xz", "/m/sd_mod.ko"}; !slices.Equal(loaded, want) {
		t.Errorf("loaded %q, want %q", loaded, want)
	}
	// One that appears later.
	sys["bus/pci/devices/0000:02:00.0/modalias"] = &fstest.MapFile{Data: []byte("pci:v0000144Dd0000A80Asv0000144Dsd0000A801bc01sc08i02\n")}
	loaded = nil
	if first, second := l.Load(report), l.Load(report); !first || second {
		t.Errorf("says it has loaded something: %t, then %t; want the first time only", first, second)
	}
	if want := []string{"/m/nvme.ko"}; !slices.Equal(loaded, want) {
		t.Errorf("later loaded %q, want %q", loaded, want)
	}
}

// A driver that does not load is not the end of the boot, nor tried at every look.
func TestLoaderReports(t *testing.T) {
	sys := sysfs(map[string]string{"pci/devices/a": "pci:v00001000d00000097sv1sd1bc1sc1i1", "virtio/devices/virtio0": "virtio:d00000002v00001AF4"})
	var loaded, reported []string
	broken := errors.New("no")
	l := NewLoader(drivers(t), sys, func(file string) error {
		loaded = append(loaded, file)
		if file == "/m/scsi_mod.ko" {
			return broken
		}
		return nil
	})
	for range 2 {
		l.Load(func(err error) { reported = append(reported, err.Error()) })
	}
	if want := []string{"/m/scsi_mod.ko", "/m/virtio_blk.ko"}; !slices.Equal(loaded, want) || !slices.Equal(reported, []string{"no"}) {
		t.Errorf("loaded %q, reported %q", loaded, reported)
	}
}
