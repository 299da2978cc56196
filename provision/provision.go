// Package provision is the SSH step: it connects to a host, sees how it differs
// from a desired.Host and makes it the same.
//
// A change is staged, checked by the daemons' own checkers against a view in
// which it has already happened, swapped in by renames, and taken back if a
// daemon is not healthy afterwards. The host needs Debian, systemd and sudo;
// nothing is left running on it. What infractl must remember about a host is on
// the host itself, in /var/lib/infractl:
//
//	generation    a word that changes with every change
//	manifest      paths of files that infractl has written
//	originals/    what stood there before, and how units were; see originals.go
//	loaded/UNIT   digests of the files that the unit last loaded
//	trees/KEY     path, digest and time of each uploaded tree
//	tx/ID         a change in progress
//	log/ID        what was reported while a change was carried out
package provision
