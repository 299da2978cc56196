package api

import (
	"strings"

	"github.com/hetznercloud/hcloud-go/v2/hcloud/schema"
)

// datacenterNames are the names of before July 2026, by location.
var datacenterNames = map[string]struct {
	id   int64
	name string
}{
	"nbg1": {2, "nbg1-dc3"}, "hel1": {3, "hel1-dc2"}, "fsn1": {4, "fsn1-dc14"},
	"ash": {5, "ash-dc1"}, "hil": {6, "hil-dc1"}, "sin": {7, "sin-dc1"},
}

// datacenter is what was above a location until Hetzner did away with it. GET
// /datacenters still answers; servers and primary IPs have one only where
// Settings.Datacenter says so. (The schema package's types are deprecated.)
type datacenter struct {
	ID          int64           `json:"id"`
	Name        string          `json:"name"`
	Description string          `json:"description"`
	Location    schema.Location `json:"location"`
	ServerTypes datacenterTypes `json:"server_types"`
}

type datacenterTypes struct {
	Supported             []int64 `json:"supported"`
	AvailableForMigration []int64 `json:"available_for_migration"`
	Available             []int64 `json:"available"`
}

func datacenterKey(d datacenter) (int64, string) { return d.ID, d.Name }

func (c *catalog) datacenter(location string) *datacenter {
	d := datacenterNames[location]
	l := c.locationNamed(location)
	types := []int64{}
	for _, t := range c.serverTypes {
		if soldIn(t, location) {
			types = append(types, t.ID)
		}
	}
	return &datacenter{
		ID: d.id, Name: d.name, Description: l.City + " DC " + strings.TrimPrefix(d.name, location+"-dc"),
		Location: l, ServerTypes: datacenterTypes{types, types, types},
	}
}

func (c *call) datacenterList() []datacenter {
	var out []datacenter
	for _, l := range c.e.catalog.locations {
		out = append(out, *c.e.catalog.datacenter(l.Name))
	}
	return out
}

func listDatacenters(c *call) (reply, error) {
	r, err := listCatalog(c, "datacenters", c.datacenterList(), datacenterKey, nil)
	if err == nil {
		r.body.(map[string]any)["recommendation"] = datacenterNames["fsn1"].id
	}
	return r, err
}

func getDatacenter(c *call) (reply, error) {
	return getCatalog(c, "datacenter", "datacenter", c.datacenterList(), datacenterKey)
}

// legacyDatacenter reads a datacenter given as ID or name, where it is still let in.
func legacyDatacenter(want idOrName) (location string, ok bool) {
	for l, d := range datacenterNames {
		if want.is(d.id, d.name) {
			return l, true
		}
	}
	return "", false
}
