// Package duty gives hosts the scripts by which they step aside for a while
// and come back without a request being lost: drain, undrain, ready and
// restart. What that takes differs from tier to tier, so each tier's package has
// a file duty.sh.tmpl with the functions that duty.sh here calls.
package duty

import (
	_ "embed"

	"github.com/infractl/infractl/provision/desired"
	"github.com/infractl/infractl/templates"
)

//go:embed duty.sh
var script string

// Folder is where the scripts are on a host.
const Folder = "/usr/local/lib/infractl/"

// Drained is the file that exists while a host is drained; its text says why.
const Drained = "/run/infractl/drained"

// Add adds the scripts to a host's files. The tier's functions are the template
// duty.sh.tmpl of f. A tier with one host that nothing can stand in for has no drain.
func Add(f *templates.Files, tier string, replaceable bool) {
	f.Add(Folder+"tiers/"+tier, "duty.sh.tmpl", desired.File{})
	if f.Err != nil {
		return
	}
	f.Made[Folder+"duty"] = desired.File{Content: script, Mode: "0755"}
	names := []string{"ready", "restart"}
	if replaceable {
		names = append(names, "drain", "undrain")
	}
	for _, name := range names {
		f.Made[Folder+name] = desired.File{Link: "duty"}
	}
}

// Around makes a unit step aside before it is changed and come back afterwards.
func Around(u desired.Unit) desired.Unit {
	u.Before = Folder + "duty before " + u.Name
	u.After = Folder + "duty after " + u.Name
	return u
}
