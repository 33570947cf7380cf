package deb

// NewReaderLimit is NewReader for small packages.
var NewReaderLimit = newReader

// Fields returns the fields by their lower-case names.
func (p Paragraph) Fields() map[string]string { return p.fields }
