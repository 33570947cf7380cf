package reboot_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/proa-os/proa/update-engine/reboot"
)

func window(zone, start, duration string, days ...string) reboot.Config {
	d, err := time.ParseDuration(duration)
	if err != nil {
		panic(err)
	}
	c := reboot.Default()
	c.Strategy, c.TimeZone = reboot.InWindow, zone
	c.Windows = []reboot.Window{{Days: days, Start: start, Duration: reboot.Duration(d)}}
	return c
}

// instant reads a time with its offset, so that both passes of an hour that is there twice can be meant.
func instant(t *testing.T, s string) time.Time {
	t.Helper()
	v, err := time.Parse("2006-01-02 15:04:05 -0700", s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestOpen(t *testing.T) {
	for _, c := range []struct {
		name   string
		config reboot.Config
		now    string
		until  string // empty: closed
		next   string
	}{
		{"before", window("Europe/Berlin", "03:00", "2h"), "2026-01-14 02:59:59 +0100", "", "2026-01-14 03:00:00 +0100"},
		{"at its start", window("Europe/Berlin", "03:00", "2h"), "2026-01-14 03:00:00 +0100", "2026-01-14 05:00:00 +0100", "2026-01-15 03:00:00 +0100"},
		{"in its last second", window("Europe/Berlin", "03:00", "2h"), "2026-01-14 04:59:59 +0100", "2026-01-14 05:00:00 +0100", "2026-01-15 03:00:00 +0100"},
		{"at its end", window("Europe/Berlin", "03:00", "2h"), "2026-01-14 05:00:00 +0100", "", "2026-01-15 03:00:00 +0100"},
		{"no zone is UTC", window("", "03:00", "1h"), "2026-01-14 03:30:00 +0000", "2026-01-14 04:00:00 +0000", "2026-01-15 03:00:00 +0000"},
		{"on another day", window("Europe/Berlin", "03:00", "2h", "sat", "sun"), "2026-01-14 03:30:00 +0100", "", "2026-01-17 03:00:00 +0100"},
		{"the day is the zone's", window("Asia/Tokyo", "03:00", "2h", "sat"), "2026-01-16 18:30:00 +0000", "2026-01-16 20:00:00 +0000", "2026-01-24 03:00:00 +0900"},
		{"a week ahead", window("UTC", "03:00", "1h", "wed"), "2026-01-14 04:00:00 +0000", "", "2026-01-21 03:00:00 +0000"},
		{"over midnight", window("UTC", "23:00", "3h", "fri"), "2026-01-17 01:59:59 +0000", "2026-01-17 02:00:00 +0000", "2026-01-23 23:00:00 +0000"},
		{"over midnight, the day after the wrong day", window("UTC", "23:00", "3h", "fri"), "2026-01-16 01:00:00 +0000", "", "2026-01-16 23:00:00 +0000"},
		{"all day", window("UTC", "00:00", "24h"), "2026-01-14 23:59:59 +0000", "2026-01-15 00:00:00 +0000", "2026-01-15 00:00:00 +0000"},

		// Berlin, 29 March 2026: 02:00 CET is 03:00 CEST.
		{"its start is jumped over, before", window("Europe/Berlin", "02:30", "1h"), "2026-03-29 01:59:59 +0100", "", "2026-03-29 03:00:00 +0200"},
		{"its start is jumped over, then", window("Europe/Berlin", "02:30", "1h"), "2026-03-29 03:00:00 +0200", "2026-03-29 04:00:00 +0200", "2026-03-30 02:30:00 +0200"},
		{"the jump is inside: time passes", window("Europe/Berlin", "01:30", "1h"), "2026-03-29 03:29:59 +0200", "2026-03-29 03:30:00 +0200", "2026-03-30 01:30:00 +0200"},
		// 25 October 2026: 03:00 CEST is 02:00 CET.
		{"its start is there twice, before", window("Europe/Berlin", "02:30", "30m"), "2026-10-25 02:29:59 +0200", "", "2026-10-25 02:30:00 +0200"},
		{"its start is there twice, first", window("Europe/Berlin", "02:30", "30m"), "2026-10-25 02:30:00 +0200", "2026-10-25 03:00:00 +0200", "2026-10-26 02:30:00 +0100"},
		{"its start is there twice, second", window("Europe/Berlin", "02:30", "30m"), "2026-10-25 02:30:00 +0100", "", "2026-10-26 02:30:00 +0100"},
		{"the hour is inside", window("Europe/Berlin", "01:30", "2h"), "2026-10-25 02:29:59 +0100", "2026-10-25 02:30:00 +0100", "2026-10-26 01:30:00 +0100"},
		// Santiago jumps at midnight, 6 September 2026; Lord Howe by half an hour, 4 October 2026.
		{"midnight is jumped over", window("America/Santiago", "00:00", "1h", "sun"), "2026-09-06 01:00:00 -0300", "2026-09-06 02:00:00 -0300", "2026-09-13 00:00:00 -0300"},
		{"half an hour is jumped over", window("Australia/Lord_Howe", "02:15", "1h"), "2026-10-04 02:30:00 +1100", "2026-10-04 03:30:00 +1100", "2026-10-05 02:15:00 +1100"},
	} {
		now := instant(t, c.now)
		until, open, err := c.config.Open(now)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if open != (c.until != "") || open && !until.Equal(instant(t, c.until)) {
			t.Errorf("%s: at %s open %v until %s, want until %q", c.name, c.now, open, until, c.until)
		}
		next, err := c.config.Next(now)
		if err != nil || !next.Equal(instant(t, c.next)) {
			t.Errorf("%s: at %s next %s, %v, want %s", c.name, c.now, next, err, c.next)
		}
	}
}

// Every opening of a whole year is where a clock that is watched all the time first shows its start or a later time.
func TestOpeningsAgainstClock(t *testing.T) {
	for _, c := range []struct {
		zone string
		year int
	}{
		{"UTC", 2026}, {"Europe/Berlin", 2026}, {"America/New_York", 2026}, {"America/Santiago", 2026}, {"Australia/Lord_Howe", 2026},
		{"Asia/Kathmandu", 2026}, {"Africa/Casablanca", 2026}, {"Asia/Beirut", 2026}, {"Pacific/Apia", 2011}, // which had no 30 December
	} {
		t.Run(c.zone, func(t *testing.T) {
			t.Parallel()
			zone, err := time.LoadLocation(c.zone)
			if err != nil {
				t.Fatal(err)
			}
			watched := watch(zone, c.year)
			for _, start := range []string{"00:00", "00:30", "01:45", "02:00", "02:15", "02:30", "03:00", "12:00", "23:00", "23:30", "23:45"} {
				compare(t, window(c.zone, start, "10m"), watched, start, c.year)
			}
		})
	}
}

// watch lists, for each quarter of an hour of a year that a clock can show (as a time in UTC), when it first shows that or more.
func watch(zone *time.Location, year int) map[time.Time]time.Time {
	const quarter = 15 * time.Minute // offsets and jumps are multiples of it
	first := map[time.Time]time.Time{}
	from := time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC)
	shown := from.AddDate(0, 0, -1)
	for now := from.AddDate(0, 0, -3); now.Before(from.AddDate(1, 0, 3)); now = now.Add(quarter) {
		y, m, d := now.In(zone).Date()
		h, min, _ := now.In(zone).Clock()
		for wall := time.Date(y, m, d, h, min, 0, 0, time.UTC); shown.Before(wall); {
			shown = shown.Add(quarter)
			first[shown] = now
		}
	}
	return first
}

func compare(t *testing.T, c reboot.Config, watched map[time.Time]time.Time, start string, year int) {
	var want []time.Time
	at, err := time.Parse("15:04", start)
	if err != nil {
		t.Fatal(err)
	}
	for day := 1; day <= 366; day++ {
		wall := time.Date(year, 1, day, at.Hour(), at.Minute(), 0, 0, time.UTC)
		if wall.Year() == year {
			want = append(want, watched[wall])
		}
	}
	want = slices.CompactFunc(want, time.Time.Equal) // a day that is jumped over ends where it begins
	var got []time.Time
	for now := want[0].Add(-time.Second); len(got) < len(want); now = got[len(got)-1] {
		next, err := c.Next(now)
		if err != nil {
			t.Fatal(err)
		}
		if _, open, _ := c.Open(next); !open {
			t.Fatalf("%s: closed at %s, when it opens", start, next)
		}
		if _, open, _ := c.Open(next.Add(-time.Second)); open {
			t.Fatalf("%s: open before %s, when it opens", start, next)
		}
		got = append(got, next)
	}
	for i := range want {
		if !got[i].Equal(want[i]) {
			t.Errorf("opening %d at %s: got %s, want %s", i, start, got[i], want[i].In(got[i].Location()))
		}
	}
}

// Two windows that overlap are one; the later end counts.
func TestOverlap(t *testing.T) {
	c := window("UTC", "03:00", "2h")
	c.Windows = append(c.Windows, reboot.Window{Start: "04:00", Duration: reboot.Duration(3 * time.Hour)})
	if until, open, err := c.Open(instant(t, "2026-01-14 04:30:00 +0000")); err != nil || !open || !until.Equal(instant(t, "2026-01-14 07:00:00 +0000")) {
		t.Errorf("got %s, %v, %v", until, open, err)
	}
	if next, err := c.Next(instant(t, "2026-01-14 03:30:00 +0000")); err != nil || !next.Equal(instant(t, "2026-01-14 04:00:00 +0000")) {
		t.Errorf("next %s, %v", next, err)
	}
}

func TestCheck(t *testing.T) {
	change := func(f func(*reboot.Config)) reboot.Config {
		c := window("Europe/Berlin", "03:00", "2h", "sat")
		f(&c)
		return c
	}
	if err := reboot.Default().Check(); err != nil {
		t.Error(err)
	}
	if err := change(func(*reboot.Config) {}).Check(); err != nil {
		t.Error(err)
	}
	for want, c := range map[string]reboot.Config{
		`strategy "sometimes"`:    change(func(c *reboot.Config) { c.Strategy = "sometimes" }),
		`mode "kexec"`:            change(func(c *reboot.Config) { c.Mode = "kexec" }),
		"max_delay -1s":           change(func(c *reboot.Config) { c.MaxDelay = reboot.Duration(-time.Second) }),
		"max_delay 2400h":         change(func(c *reboot.Config) { c.MaxDelay = reboot.Duration(2400 * time.Hour) }),
		`time_zone "Europe/Bonn"`: change(func(c *reboot.Config) { c.TimeZone = "Europe/Bonn" }),
		`time_zone "Local"`:       change(func(c *reboot.Config) { c.TimeZone = "Local" }),
		`time_zone "../passwd"`:   change(func(c *reboot.Config) { c.TimeZone = "../passwd" }),
		"needs at least one":      change(func(c *reboot.Config) { c.Windows = nil }),
		"belong to the strategy":  change(func(c *reboot.Config) { c.Strategy = reboot.Off }),
		`day "Saturday"`:          change(func(c *reboot.Config) { c.Windows[0].Days = []string{"Saturday"} }),
		`start "3:00"`:            change(func(c *reboot.Config) { c.Windows[0].Start = "3:00" }),
		`start "24:00"`:           change(func(c *reboot.Config) { c.Windows[0].Start = "24:00" }),
		"duration 0s":             change(func(c *reboot.Config) { c.Windows[0].Duration = 0 }),
		"duration 29m":            change(func(c *reboot.Config) { c.Windows[0].Duration = reboot.Duration(29 * time.Minute) }),
		"duration 25h":            change(func(c *reboot.Config) { c.Windows[0].Duration = reboot.Duration(25 * time.Hour) }),
	} {
		if err := c.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
}
