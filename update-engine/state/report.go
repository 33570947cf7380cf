package state

import "time"

// Result is what a check or an application of an update comes to.
type Result struct {
	Running Release  `json:"running"`
	Offered *Release `json:"offered,omitempty"` // what an update would install; absent if there is nothing to do
	Armed   bool     `json:"armed"`             // the next boot tries Offered
	Size    int64    `json:"download_size,omitempty"`
	Payload string   `json:"payload,omitempty"`           // of Size bytes: "delta" or "full payload"
	Full    int64    `json:"full_payload_size,omitempty"` // what is taken if the delta cannot be
	Text    string   `json:"text"`                        // one line for people

	// How the machine reboots, or would, into Offered: full or soft, and why; and how long it was away when it last did that, in seconds
	// from the order to a healthy boot, 0 if it never has.
	Mode       string  `json:"reboot_mode,omitempty"`
	ModeReason string  `json:"reboot_mode_reason,omitempty"`
	LastGap    float64 `json:"last_gap_seconds,omitempty"`
	// AskAgain is when a reboot that has to wait may go ahead.
	AskAgain *time.Time `json:"ask_again,omitempty"`
}

// Progress is how far a job is.
type Progress struct {
	Stage string    `json:"stage"`
	Since time.Time `json:"since"` // begin of the stage
	Done  int64     `json:"done"`  // bytes
	Total int64     `json:"total"` // 0: unknown
	Rate  int64     `json:"bytes_per_second,omitempty"`
	Left  int64     `json:"seconds_left,omitempty"`
}

// Report is the machine as people and programs see it.
type Report struct {
	Running    Release    `json:"running"`
	State      Machine    `json:"state"`
	Boot       Boot       `json:"boot"`
	Quarantine Quarantine `json:"quarantine"`
	Orders     Orders     `json:"orders"`
	Channel    string     `json:"channel"`
	Server     string     `json:"server"`
	Progress   *Progress  `json:"progress,omitempty"` // while a job works
	Why        string     `json:"why"`
	// Gaps are how long the machine was away in its last reboots for an update, in seconds from the order to a healthy boot, by mode.
	Gaps map[string]float64 `json:"gaps,omitempty"`
}

// Busy is the error of a job while another one works.
type Busy struct{}

func (Busy) Error() string { return "the update agent is busy with another job: see updatectl status" }
