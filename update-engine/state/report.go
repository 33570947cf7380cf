package state

// Result is what a check or an application of an update comes to.
type Result struct {
	Running Release  `json:"running"`
	Offered *Release `json:"offered,omitempty"` // what an update would install; absent if there is nothing to do
	Armed   bool     `json:"armed"`             // the next boot tries Offered
	Size    int64    `json:"download_size,omitempty"`
	Text    string   `json:"text"` // one line for people
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
	Why        string     `json:"why"`
}
