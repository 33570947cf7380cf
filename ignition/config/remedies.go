package config

import "github.com/coreos/ignition/v2/config/shared/errors"

// A remedy is what upstream's words for an error do not say: what would have been right, and what to do. An empty next is correct.
type remedy struct {
	err            error
	expected, next string
}

const (
	anyURL   = "a URL of scheme data, http, https, tftp, s3, arn or gs"
	httpURL  = "a URL of scheme http or https"
	versions = "3.0.0 to 3.6.0"
	formats  = "ext4, xfs, btrfs, vfat, swap, or none (from spec 3.3.0 on)"
	levels   = "linear, raid0, raid1, raid4, raid5, raid6 or raid10"
	pins     = "tpm2, tang or sss"

	throughLink = "a path that no link of this config leads through"
	writePath   = "write the path the link leads to"
	unitName    = "a unit name ending in .service, .socket, .mount, .timer, .target ..."
)

// remedies are for all errors of upstream's validation, which TestRemedies enumerates. Lengths are bytes, as upstream counts.
var remedies = []remedy{
	{errors.ErrInvalidVersion, versions, ""},
	{errors.ErrUnknownVersion, versions, ""},
	{errors.ErrDuplicate, "each name or path once in a config", "remove one of the two entries"},

	{errors.ErrSourceRequired, "a source", `add "source"`},
	{errors.ErrInvalidScheme, anyURL, ""},
	{errors.ErrInvalidUrl, anyURL, ""},
	{errors.ErrInvalidS3ARN, "arn:PARTITION:s3:::BUCKET/KEY or arn:PARTITION:s3:REGION:ACCOUNT:accesspoint/NAME/object/KEY", ""},
	{errors.ErrInvalidS3ObjectVersionId, "the id of a version of the object behind versionId=", "remove versionId for the newest version"},
	{errors.ErrHashMalformed, "sha512-<hex> or sha256-<hex>", ""},
	{errors.ErrHashUnrecognized, "sha512-<hex> or sha256-<hex>", ""},
	{errors.ErrHashWrongSize, "128 hexadecimal digits behind sha512-, 64 behind sha256-", ""},
	{errors.ErrVerificationAndNilSource, "a source to verify", "add the source or remove the hash"},
	{errors.ErrCompressionInvalid, `"gzip" or nothing`, ""},
	{errors.ErrUnsupportedSchemeForHTTPHeaders, "headers with http and https only", "remove httpHeaders"},
	{errors.ErrEmptyHTTPHeaderName, "the name of a header", `write "name", or remove the header`},
	{errors.ErrInvalidHTTPHeader, "the value of the header", `write "value", or remove the header`},
	{errors.ErrInvalidProxy, httpURL, ""},
	{errors.ErrInsecureProxy, "a proxy of scheme https for sources of scheme https", "give an https:// proxy where there is one: others see which servers are asked"},

	{errors.ErrNoPath, "an absolute path", `add "path"`},
	{errors.ErrPathRelative, "a path that begins with /", ""},
	{errors.ErrDirtyPath, "a path without //, /./, /../ and without a / at its end", ""},
	{errors.ErrFileIllegalMode, "0 to 4095 (07777 in octal)", "JSON numbers are decimal: 0644 is 420"},
	{errors.ErrModeSpecialBits, "0 to 511 (0777 in octal) before spec 3.6.0", "use spec 3.6.0 for setuid, setgid and sticky bits"},
	{errors.ErrBothIDAndNameSet, "id or name", "remove one of them"},
	{errors.ErrOverwriteAndNilSource, `contents.source beside "overwrite": true`, `add a source; "data:," is an empty file`},
	{errors.ErrLinkTargetRequired, "a target", `add "target"`},
	{errors.ErrHardLinkToDirectory, "a file as the target of a hard link", `remove "hard" to make it a symbolic link`},
	{errors.ErrHardLinkSpecifiesOwner, "no user and no group: a hard link has those of its target", "set them where the target is described"},
	{errors.ErrFileUsedSymlink, throughLink, writePath},
	{errors.ErrDirectoryUsedSymlink, throughLink, writePath},
	{errors.ErrLinkUsedSymlink, throughLink, writePath},
	{errors.ErrPathConflictsSystemd, "each unit file once", "describe it under systemd.units only"},

	{errors.ErrDiskDeviceRequired, "the path of a block device", `add "device"`},
	{errors.ErrPartitionNumbersCollide, "each partition number once on a disk", "give one of the two another number"},
	{errors.ErrDuplicateLabels, "each label once on a disk", "give one of the two another label"},
	{errors.ErrPartitionsOverlap, "partitions beside each other: each ends at startMiB + sizeMiB", "move or shrink one of the two; without startMiB it gets free space"},
	{errors.ErrNeedLabelOrNumber, "a number from 1 on, or a label", "add one of them"},
	{errors.ErrShouldNotExistWithOthers, `nothing that describes a partition beside "shouldExist": false`, "remove label, guid, typeGuid, startMiB and sizeMiB: its number says which is deleted"},
	{errors.ErrZeroesWithShouldNotExist, "a number for every partition of a disk where one is deleted", `add "number" to the partitions without one`},
	{errors.ErrLabelTooLong, "at most 36 bytes", "shorten the label"},
	{errors.ErrLabelContainsColon, "a label without a colon", ""},
	{errors.ErrDoesntMatchGUIDRegex, "a GUID of 8, 4, 4, 4 and 12 hexadecimal digits", "uuidgen makes one"},

	{errors.ErrRaidLevelRequired, levels, `add "level"`},
	{errors.ErrUnrecognizedRaidLevel, levels, ""},
	{errors.ErrRaidDevicesRequired, "the devices that the array is made of", `add "devices"`},
	{errors.ErrSparesUnsupportedForLevel, "a level with redundancy for an array with spares", `remove "spares", or choose another level`},

	{errors.ErrLuksNameContainsSlash, "a name without /", "the name is no path: the device will be /dev/mapper/NAME"},
	{errors.ErrLuksLabelTooLong, "at most 47 bytes", "shorten the label"},
	{errors.ErrInvalidLuksKeyFile, "a key file with a source of scheme data, http, https, tftp, s3, arn or gs", "correct keyFile.source"},
	{errors.ErrClevisPinRequired, pins, `add "pin"`},
	{errors.ErrUnknownClevisPin, pins, ""},
	{errors.ErrClevisConfigRequired, "the pin's configuration, a JSON object in a string", `add "config"; "{}" does for tpm2`},
	{errors.ErrClevisCustomWithOthers, "custom alone, or tpm2, tang and threshold without it", "remove one of the two"},
	{errors.ErrTangThumbprintRequired, "the thumbprint of the server's signing key", `add "thumbprint"; tang-show-keys on the server prints it`},
	{errors.ErrInvalidTangAdvertisement, "what the server answers at /adv, a JSON object in a string", `remove "advertisement" if the server can be asked`},
	{errors.ErrCexWithClevis, "cex or clevis", `remove "cex": it is for s390x`},
	{errors.ErrCexWithKeyFile, "cex or a key file", `remove "cex": it is for s390x`},

	{errors.ErrFilesystemInvalidFormat, formats, ""},
	{errors.ErrFormatNilWithOthers, formats, `add "format"`},
	{errors.ErrLabelNeedsFormat, "a format beside the label", `add "format"`},
	{errors.ErrExt4LabelTooLong, "at most 16 bytes for ext4", "shorten the label"},
	{errors.ErrBtrfsLabelTooLong, "at most 256 bytes for btrfs", "shorten the label"},
	{errors.ErrXfsLabelTooLong, "at most 12 bytes for xfs", "shorten the label"},
	{errors.ErrSwapLabelTooLong, "at most 15 bytes for swap", "shorten the label"},
	{errors.ErrVfatLabelTooLong, "at most 11 bytes for vfat", "shorten the label"},
	{errors.ErrPartitionsOverwritten, "a file system in a partition, or a disk without partitions", "name a partition as the device"},
	{errors.ErrFilesystemImplicitWipe, `"wipeFilesystem": true where the disk has "wipeTable": true`, "add it, if what the device holds is to be lost"},

	{errors.ErrInvalidSystemdExt, unitName, ""},
	{errors.ErrNoSystemdExt, unitName, ""},
	{errors.ErrInvalidSystemdDropinExt, "a drop-in name ending in .conf", ""},
}
