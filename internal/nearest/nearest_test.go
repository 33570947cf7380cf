package nearest

import "testing"

func TestWord(t *testing.T) {
	words := []string{"start", "restart", "stop", "ps", "pause", "images", "inspect", "PublishPort"}
	for word, want := range map[string]string{
		"strat": "start", "image": "images", "inspetc": "inspect", "sp": "ps", "stopp": "stop", "publishport": "PublishPort", "PublishPorts": "PublishPort",
		"zzz": "", "x": "", "containers": "", "": "",
	} {
		if got := Word(word, words); got != want {
			t.Errorf("%s: got %q, want %q", word, got, want)
		}
	}
}
