package provision

import (
	"fmt"
	"maps"
	"path"
	"slices"

	"github.com/infractl/infractl/provision/desired"
)

// What stands in a place when infractl takes it is kept on the host, in
// /var/lib/infractl/originals, for as long as the place is infractl's. The file
// index there says what is kept, a line each:
//
//	file KEY PATH                  the file KEY is a copy of what stood at PATH
//	dir PATH                       the directory is made by infractl
//	unit LOAD ACTIVE FILE NAME     how a unit was before infractl touched it
//
// The words about a unit are systemd's, with a "-" where it had none. A line
// about a path that is not in the manifest is void, and all are if that is empty.

// foreign are the files of h that exist and are not infractl's yet.
func foreign(h desired.Host, a *Actual) []string {
	return slices.DeleteFunc(sortedKeys(h.Files), func(name string) bool {
		_, exists := a.Files[name]
		return !exists || slices.Contains(a.Manifest, name)
	})
}

// free are the files of h in whose places nothing stood, and that are not
// infractl's yet. A package that is installed first may bring some of them.
func free(h desired.Host, a *Actual) []string {
	return slices.DeleteFunc(sortedKeys(h.Files), func(name string) bool {
		_, exists := a.Files[name]
		return exists || slices.Contains(a.Manifest, name)
	})
}

// found are the states in which the units of h and those noted before were found.
// On a host that an infractl has taken over which did not note them, how units
// are now is infractl's own doing, and no more is known of them.
func found(h desired.Host, a *Actual) map[string]Found {
	all := maps.Clone(a.Found)
	if all == nil {
		all = map[string]Found{}
	}
	first := len(a.Manifest) == 0
	if !first && len(all) == 0 {
		return all
	}
	for _, u := range h.Units {
		if _, noted := all[u.Name]; first || !noted {
			is := a.Units[u.Name]
			all[u.Name] = Found{Load: is.Load, Active: is.Active, File: is.File}
		}
	}
	return all
}

// parents are the directories of files, each once.
func parents(files []string) []string {
	var out []string
	for _, name := range files {
		if dir := path.Dir(name); !slices.Contains(out, dir) {
			out = append(out, dir)
		}
	}
	return out
}

// index are the lines of the index of originals about what is noted already, and
// about units.
func index(a *Actual, units map[string]Found) []string {
	var lines []string
	for _, name := range sortedKeys(a.Originals) {
		lines = append(lines, "file "+a.Originals[name]+" "+name)
	}
	for _, name := range a.Made {
		lines = append(lines, "dir "+name)
	}
	word := func(s string) string {
		if s == "" {
			return "-"
		}
		return s
	}
	for _, name := range sortedKeys(units) {
		u := units[name]
		lines = append(lines, fmt.Sprintf("unit %s %s %s %s", word(u.Load), word(u.Active), word(u.File), name))
	}
	return lines
}
