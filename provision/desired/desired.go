// Package desired is the language in which one host is described: what should
// be installed, written and running on it. Templates speak it, the SSH step
// makes it true, and it travels between them as the properties of the
// infractl:host:Configuration resource.
//
// File contents may hold placeholders, which are filled in only at the moment
// of applying, so that the text of every file can be shown, compared and
// logged before any of their values is known:
//
//	@@value.NAME@@      Host.Values[NAME], something only the cloud knows, such as a server's ID
//	@@secret.NAME@@     Host.Secrets[NAME]
//	@@interface.ADDR@@  the name of the host's network interface that holds the address ADDR
package desired

// Host is everything that infractl keeps on one host.
type Host struct {
	// Packages are names of Debian packages that must be installed.
	Packages []string `json:"packages,omitempty"`
	// Users are system users that must exist before files are written.
	Users []User `json:"users,omitempty"`
	// Files are regular files and symbolic links, by absolute path.
	Files map[string]File `json:"files,omitempty"`
	// Trees are directories that are uploaded as a whole, by absolute path.
	// A tree is immutable: new content means a new path.
	Trees map[string]Tree `json:"trees,omitempty"`
	// Units are systemd units in the order in which they are changed.
	Units []Unit `json:"units,omitempty"`
	// Values fill @@value.NAME@@.
	Values map[string]string `json:"values,omitempty"`
	// Secrets fill @@secret.NAME@@. They are never shown, logged or put in an argument.
	Secrets map[string]string `json:"secrets,omitempty"`
}

// User is a system user without a password, with a group of the same name.
type User struct {
	Name string `json:"name"`
	// Home is its home directory; it is not created. Empty means /nonexistent.
	Home string `json:"home,omitempty"`
	// Groups are further groups that it is a member of.
	Groups []string `json:"groups,omitempty"`
}

// File is a regular file, or a symbolic link if Link is set.
type File struct {
	Content string `json:"content,omitempty"`
	// Link is the target of a symbolic link; Content, Mode, Owner and Group are empty then.
	Link string `json:"link,omitempty"`
	// Mode is four octal digits; empty means 0644.
	Mode string `json:"mode,omitempty"`
	// Owner and Group are names; empty means root.
	Owner string `json:"owner,omitempty"`
	Group string `json:"group,omitempty"`
}

// Tree is a directory uploaded from the operator's computer, owned by root and
// readable by all. Modes of files in it are 0755 if executable, else 0644.
type Tree struct {
	// Source is the directory on the operator's computer. It says where to
	// find the content, not what it is, and is no part of any comparison.
	Source string `json:"source"`
	// Digest identifies the content: see the function Digest.
	Digest string `json:"digest"`
}

// Unit is a systemd unit and what has to happen to it when files change.
type Unit struct {
	// Name is the full name, such as haproxy.service.
	Name string `json:"name"`
	// Enabled says that it starts at boot; Active that it runs now.
	// A unit with neither is stopped and disabled.
	Enabled bool `json:"enabled"`
	Active  bool `json:"active"`
	// ReloadOn and RestartOn are paths of Files; a path that ends in "/"
	// means all files below it. A restart makes a reload unnecessary. The
	// unit's own unit file and drop-ins count as RestartOn by themselves.
	ReloadOn  []string `json:"reloadOn,omitempty"`
	RestartOn []string `json:"restartOn,omitempty"`
	// Validate is a shell command that checks the new configuration on the
	// host. It runs as root in a mount namespace in which the new files already
	// stand at their final paths, before anything on the host is changed; a
	// non-zero exit refuses the change and its output says why.
	Validate string `json:"validate,omitempty"`
	// Health is a shell command that must exit 0 within HealthTimeout seconds
	// (0 means 15) after the unit was started, reloaded or restarted; it is
	// tried every 200 ms. If it does not, the previous files are put back.
	Health        string `json:"health,omitempty"`
	HealthTimeout int    `json:"healthTimeout,omitempty"`
	// AtOnce says that nothing has to be waited for between a reload and the first
	// try of Health: the reload is over when its command is, or Health knows the new
	// configuration from the one before.
	AtOnce bool `json:"atOnce,omitempty"`
	// Before is a shell command that runs right before a unit that is active is
	// stopped, restarted or reloaded, such as to let others take its work. After
	// runs once it is up and healthy again, also after the previous files were
	// put back. Both find stop, start, restart or reload in the variable ACTION,
	// and have two minutes. What Before does is a courtesy: the change goes on
	// if it fails. A failure of After is one of the unit's health.
	Before string `json:"before,omitempty"`
	After  string `json:"after,omitempty"`
	// Guarded says that a mistake in this unit's files can lock the operator
	// out: the change is undone on the host by a timer, unless a new
	// connection confirms it.
	Guarded bool `json:"guarded,omitempty"`
}
