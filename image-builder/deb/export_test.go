package deb

// NewReaderLimit is NewReader for small packages.
var NewReaderLimit = newReader
