package journal

// A Message is a fact that the update agent tells the journal, by the text it logs.
type Message struct {
	Text string
	ID   string // MESSAGE_ID, 128 bits as systemd prints them; it stays when the text changes
	// Grave messages are errors of the machine, which somebody must look at; the agent's other failures leave it as it was.
	Grave bool
}

// Messages are all that the agent logs. A new one gets a new random ID (journalctl --new-id128) and a section in
// manifests/files/usr/lib/systemd/catalog/proa.catalog.
func Messages() []Message {
	return []Message{
		{"boot is healthy", "7dc068c10fbc4c5a377238d96b34462d", false},
		{"boot is not healthy", "1e834d0a700419663e82ba39db7732e9", false},
		{"not healthy yet", "b4eafc05a3d384c8f84c5aa0db6d3451", false},
		{"trying release", "94d2f804a7378b370ad781c11f81595a", false},
		{"release good", "09087cbc76157cf51231f207eed43677", false},
		{"release bad, going back", "f63a22c01c162a80f36ab70b1404af88", false},
		{"release bad, but there is no other to go back to", "88787d134b750083199dcaa9b31cbbb8", true},
		{"release quarantined", "c83869c8db93a37cdd46b56e0e8dcdb6", false},
		{"release offered", "cd58f0e5f32e359ecd04779f733775e0", false},
		{"release armed", "be592d8a2f39b543346dceda2bb3bd8e", false},
		{"writing", "f308631ade5e2962c2ef24ec15c1ef36", false},
		{"written", "75b89d73914441d17c07da9f435bdbcc", false},
		{"download resumed", "f3299cdab1264ecd11a2495afc7b7448", false},
		{"download interrupted, resuming", "9f916f5293abf4a922f8a95edd57b33c", false},
		{"delta left out", "a4095735a798756dfad0bf8a9a835fb3", false},
		{"delta failed, taking the full payload", "ba036a43d3cf8948223ba8c885a8b904", false},
		{"server sent wrong bytes", "d1d710be9a4b4d019bc5763e601ceee1", false},
		{"server passed over", "295e2389f5e34e95a3ff7ce6a10b1db0", false},
		{"update failed", "6e843a0f9a676a11d1abb550420ab4c5", false},
		{"update ended by an order", "67363afe3200493b8f2d5ca554bc15c2", false},
		{"check failed", "b02d99bf9ebfae860a9e34620cdcbf89", false},
		{"update postponed", "918fab40b8ad4d573d1c6e64715d17c2", false},
		{"update state settled", "a761581ebff8230b363c2fe89652bb6e", false},
		{"cannot keep the update state", "d8f1ce6ed81b795c3178a63fadaa12a0", false},
		{"cannot keep the verdict", "36acc1eb95ad8f2580886ed15c2b76b8", true},
		{"cannot keep or read the update state, judging without it", "325744c03aa7c41c668fb88f2573a117", false},
		{"cannot take the tries from the boot program, they run out by reboots", "8d13ccd09d3f8d5ba770d895e360250e", false},
		{"next look for a newer release", "e67607446654b554c5a49ecebab4f09a", false},
		{"order taken", "5f7276b06c1b1cea8500f027cd0e199a", false},
		{"rolling back", "729518da32feeb48fd5c3e23100faf76", false},
		{"rolled back", "7b171c65729cf805d26e49477e455c18", false},
		{"rollback was interrupted and has not happened", "ff755ab0bc81f5ffdedaa06cecc721ed", false},
		{"rebooting", "e4ec156b335a2374c02008e4a81cc136", false},
		{"rebooting to prove the boot program", "915b0193a4890355103a97f2d63ee38f", false},
		{"reboot waits", "34d8aa9e31aa3f69f9a7c69ff1c71c1d", false},
		{"gap measured", "1322216fd89f9d36cffa0bb9bb398f96", false},
		{"cannot reboot softly, rebooting in full", "fb54a164c13347bf29aebcb44ab1485b", false},
		{"soft reboot has not led into the other slot: the next one is full", "3a04b0d27f9577eed012e70c94d75cf2", false},
		{"soft try had no verdict", "0965a56f9230ace2278ec8026e1008f4", false},
		{"soft try has not happened, the release is armed again", "660fdd01e7e3474104491a45f7692d91", false},
		{"cannot ask again whether the release is wanted", "0559a29cf6078b8b9071f7a399ab8e97", false},
		{"cannot look at the network", "0f616ef05a95d3448bdb0cf2483d26f4", false},
		{"configuration cannot be used", "7cee7aa7a31323d74dad2d589d3e9eaa", false},
		{"cannot write metrics", "8baa12c445fd48c0098d9c16d413625b", false},
	}
}
