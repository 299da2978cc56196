package provision

import (
	"net/netip"
	"time"
)

// Actual is what is on a host, as far as a desired.Host asked for it.
type Actual struct {
	// Files are the files and links that exist, by path: those asked for and
	// those in the manifest.
	Files map[string]File
	// Trees are the uploaded trees that exist, by path, asked for or not.
	Trees map[string]Tree
	// Packages are the installed packages among those asked for, by name,
	// with their versions.
	Packages map[string]string
	// Units are the units asked for, by name.
	Units map[string]Unit
	// Users are all users of the host, by name.
	Users map[string]User
	// Interfaces are the names of network interfaces by the addresses they hold.
	Interfaces map[netip.Addr]string
	// Manifest are the paths of files that infractl has written, whether they still exist or not.
	Manifest []string
	// Loaded are the digests that units have loaded, by unit, asked for or not.
	Loaded map[string]Loaded
	// Originals are the keys of the copies of what stood in the places of
	// infractl's files before it took them, by path. A path of the manifest that
	// is not among them was free.
	Originals map[string]string
	// Made are directories that infractl has made, those inside others first.
	Made []string
	// Found are the states in which infractl found units, by name, asked for or not.
	Found map[string]Found
	Facts Facts
	// generation names the last change; a plan is good for this one only.
	generation string
}

// File is a file on a host.
type File struct {
	// Kind is find's letter: f for a regular file, l for a link, d for a directory.
	Kind byte
	// Mode is four octal digits.
	Mode         string
	Owner, Group string
	// Size is in bytes.
	Size int64
	// Link is a link's target.
	Link string
	// SHA256 is the hex digest of a regular file smaller than 16 MiB.
	SHA256 string
	// Content is the text with secrets taken out, if Known: only the text
	// of files that differ from what is desired is fetched at all.
	Content string
	Known   bool
}

// Tree is an uploaded tree on a host.
type Tree struct {
	Digest string
	// Uploaded is when it was put in place, by the host's clock.
	Uploaded time.Time
}

// Unit is the state of a systemd unit, in systemd's words.
type Unit struct {
	Load, Active, Sub, File string
	// Stale says that systemd has not read the unit's current files.
	Stale bool
	// CanReload says that the unit knows how to reload.
	CanReload bool
}

// Running says whether the unit is up.
func (u Unit) Running() bool {
	return u.Active == "active" || u.Active == "reloading"
}

// Enabled says whether the unit starts at boot.
func (u Unit) Enabled() bool {
	return u.File == "enabled" || u.File == "enabled-runtime" || u.File == "alias"
}

// Fixed says that the unit cannot be enabled or disabled: it has no [Install]
// section, or something else generates it.
func (u Unit) Fixed() bool {
	return u.File == "static" || u.File == "generated" || u.File == "indirect" || u.File == "transient"
}

// Found is the state in which infractl found a unit, in systemd's words.
type Found struct{ Load, Active, File string }

// Loaded are digests of the files whose change asks for a restart or a reload.
type Loaded struct{ Restart, Reload string }

// User is a user of a host.
type User struct {
	Home string
	// Groups are the groups that the user is a member of beside its own.
	Groups []string
}

// Facts describe the machine.
type Facts struct {
	// Debian is the release, such as 13; Version the point release, such as 13.1.
	Debian, Version string
	// Memory and DiskFree (on /) are in bytes.
	Memory, DiskFree int64
	Cores            int
}
