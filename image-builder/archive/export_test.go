package archive

// ParseRelease reads the text inside a signature.
var ParseRelease = parseRelease
