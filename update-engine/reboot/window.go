package reboot

import (
	"fmt"
	"time"
)

// A Window is when reboots are welcome.
type Window struct {
	Days     []string `json:"days,omitempty"` // sun ... sat, on which it starts; none means every day
	Start    string   `json:"start"`          // "03:00", in the time zone
	Duration Duration `json:"duration"`       // half an hour to a day
}

func weekdays() [7]string { return [7]string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"} }

func (w Window) check() error {
	for _, d := range w.Days {
		known := false
		for _, name := range weekdays() {
			known = known || d == name
		}
		if !known {
			return fmt.Errorf("day %q: want mon, tue, wed, thu, fri, sat or sun", d)
		}
	}
	if _, _, err := w.start(); err != nil {
		return err
	}
	if d := time.Duration(w.Duration); d < minDuration || d > maxDuration {
		return fmt.Errorf("duration %s: want %s to %s", d, minDuration, maxDuration)
	}
	return nil
}

func (w Window) start() (hour, minute int, err error) {
	t, err := time.Parse("15:04", w.Start)
	if err != nil || len(w.Start) != len("15:04") {
		return 0, 0, fmt.Errorf("start %q: want a time of day from 00:00 to 23:59", w.Start)
	}
	return t.Hour(), t.Minute(), nil
}

// on reports whether the window starts on a day of the week.
func (w Window) on(day time.Weekday) bool {
	for _, d := range w.Days {
		if d == weekdays()[day] {
			return true
		}
	}
	return len(w.Days) == 0
}

// An opening is one time at which a window is open: from start, until end, which is no longer part of it.
type opening struct{ start, end time.Time }

// openings lists those that start on the days around now, in no order.
func (c Config) openings(now time.Time, before, after int) ([]opening, error) {
	zone, err := c.zone()
	if err != nil {
		return nil, err
	}
	year, month, day := now.In(zone).Date()
	var list []opening
	for _, w := range c.Windows {
		hour, minute, err := w.start()
		if err != nil {
			return nil, err
		}
		for d := -before; d <= after; d++ {
			// In UTC, which has all days and no jumps.
			wall := time.Date(year, month, day+d, hour, minute, 0, 0, time.UTC)
			if !w.on(wall.Weekday()) {
				continue
			}
			start := moment(wall, zone)
			list = append(list, opening{start, start.Add(time.Duration(w.Duration))})
		}
	}
	return list, nil
}

// moment is when clocks of a zone first show what wall shows in UTC. A time that they jump over is the moment of the jump.
func moment(wall time.Time, zone *time.Location) time.Time {
	const day = 24 * time.Hour // more than any zone is away from UTC, and than between two changes of one
	_, before := wall.Add(-day).In(zone).Zone()
	_, after := wall.Add(day).In(zone).Zone()
	early, late := wall.Add(-time.Duration(before)*time.Second), wall.Add(-time.Duration(after)*time.Second)
	if late.Before(early) {
		early, late = late, early
	}
	for _, t := range []time.Time{early, late} {
		if _, offset := t.In(zone).Zone(); wall.Add(-time.Duration(offset) * time.Second).Equal(t) {
			return t.In(zone)
		}
	}
	// The clocks jump between the two: the zone of the later moment begins there.
	jump, _ := late.In(zone).ZoneBounds()
	return jump.In(zone)
}

// Open reports whether a window is open, and until when.
func (c Config) Open(now time.Time) (until time.Time, open bool, err error) {
	// A window of a day that starts late on a day with 25 hours is still open two days later.
	list, err := c.openings(now, 2, 1)
	for _, o := range list {
		if !now.Before(o.start) && now.Before(o.end) && o.end.After(until) {
			until, open = o.end, true
		}
	}
	return until, open, err
}

// Next returns when a window next opens, after now.
func (c Config) Next(now time.Time) (time.Time, error) {
	list, err := c.openings(now, 1, 8) // a week, and what a jump costs
	var next time.Time
	for _, o := range list {
		if o.start.After(now) && (next.IsZero() || o.start.Before(next)) {
			next = o.start
		}
	}
	return next, err
}
