package api

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hetznercloud/hcloud-go/v2/hcloud/schema"
)

// catalog is what the project does not own: where and what can be rented.
type catalog struct {
	locations   []schema.Location
	serverTypes []schema.ServerType
	images      []schema.Image
}

// The locations as GET /locations gives them (coordinates rounded as there).
var locations = []schema.Location{
	{ID: 1, Name: "fsn1", Description: "Falkenstein DC Park 1", Country: "DE", City: "Falkenstein", Latitude: 50.47612, Longitude: 12.370071, NetworkZone: "eu-central"},
	{ID: 2, Name: "nbg1", Description: "Nuremberg DC Park 1", Country: "DE", City: "Nuremberg", Latitude: 49.452102, Longitude: 11.076665, NetworkZone: "eu-central"},
	{ID: 3, Name: "hel1", Description: "Helsinki DC Park 1", Country: "FI", City: "Helsinki", Latitude: 60.169855, Longitude: 24.938379, NetworkZone: "eu-central"},
	{ID: 4, Name: "ash", Description: "Ashburn, VA", Country: "US", City: "Ashburn, VA", Latitude: 39.045821, Longitude: -77.487073, NetworkZone: "us-east"},
	{ID: 5, Name: "hil", Description: "Hillsboro, OR", Country: "US", City: "Hillsboro, OR", Latitude: 45.54222, Longitude: -122.951924, NetworkZone: "us-west"},
	{ID: 6, Name: "sin", Description: "Singapore", Country: "SG", City: "Singapore", Latitude: 1.283333, Longitude: 103.833333, NetworkZone: "ap-southeast"},
}

// rentable is a line of the price list.
type rentable struct {
	id       int64
	name     string
	category string
	cpu      string
	cores    int
	memory   float32 // GB
	disk     int     // GB
	// monthly net prices in euro cents, in Europe, in the USA and in
	// Singapore; 0 where it is not to be had.
	eu, us, sin int
}

// The server types on sale to new customers in 2026, x86 only, since the lab's
// machines run on this computer's processor. Names, cores, memory and disks are
// Hetzner's. IDs and prices are only plausible: they change without notice, and
// nothing should depend on them.
var rentables = []rentable{
	{114, "cx23", "Cost-Optimized", "shared", 2, 4, 40, 349, 0, 0},
	{115, "cx33", "Cost-Optimized", "shared", 4, 8, 80, 549, 0, 0},
	{116, "cx43", "Cost-Optimized", "shared", 8, 16, 160, 949, 0, 0},
	{117, "cx53", "Cost-Optimized", "shared", 16, 32, 320, 1749, 0, 0},
	{22, "cpx11", "Regular Performance", "shared", 2, 2, 40, 0, 449, 649},
	{23, "cpx21", "Regular Performance", "shared", 3, 4, 80, 0, 849, 1099},
	{24, "cpx31", "Regular Performance", "shared", 4, 8, 160, 0, 1549, 1999},
	{109, "cpx22", "Regular Performance", "shared", 2, 4, 80, 649, 0, 0},
	{110, "cpx32", "Regular Performance", "shared", 4, 8, 160, 1099, 0, 0},
	{111, "cpx42", "Regular Performance", "shared", 8, 16, 320, 1999, 0, 0},
	{112, "cpx52", "Regular Performance", "shared", 12, 24, 480, 2849, 0, 0},
	{113, "cpx62", "Regular Performance", "shared", 16, 32, 640, 3899, 0, 0},
	{96, "ccx13", "General Purpose", "dedicated", 2, 8, 80, 1249, 1249, 1499},
	{97, "ccx23", "General Purpose", "dedicated", 4, 16, 160, 2449, 2449, 2899},
	{98, "ccx33", "General Purpose", "dedicated", 8, 32, 240, 4849, 4849, 5699},
	{99, "ccx43", "General Purpose", "dedicated", 16, 64, 360, 9649, 9649, 11299},
}

const terabyte = 1 << 40

func newCatalog(images []string) (catalog, error) {
	c := catalog{locations: locations}
	for _, r := range rentables {
		t := schema.ServerType{
			ID: r.id, Name: r.name, Description: strings.ToUpper(r.name), Category: r.category,
			Cores: r.cores, Memory: r.memory, Disk: r.disk, StorageType: "local",
			CPUType: r.cpu, Architecture: "x86",
			Prices: []schema.PricingServerTypePrice{}, Locations: []schema.ServerTypeLocation{},
		}
		for _, l := range locations {
			cents, traffic := r.eu, uint64(20*terabyte)
			switch l.NetworkZone {
			case "us-east", "us-west":
				cents, traffic = r.us, 1*terabyte
			case "ap-southeast":
				cents, traffic = r.sin, terabyte/2
			}
			if cents == 0 {
				continue
			}
			t.Prices = append(t.Prices, schema.PricingServerTypePrice{
				Location: l.Name, PriceHourly: hourly(cents), PriceMonthly: monthly(cents),
				IncludedTraffic: traffic, PricePerTBTraffic: monthly(100),
			})
			t.Locations = append(t.Locations, schema.ServerTypeLocation{
				ID: l.ID, Name: l.Name, Recommended: true, Available: true,
			})
		}
		c.serverTypes = append(c.serverTypes, t)
	}
	for i, name := range images {
		flavor, version, ok := strings.Cut(name, "-")
		if !ok || !slices.Contains([]string{"alma", "centos", "debian", "fedora", "opensuse", "rocky", "ubuntu"}, flavor) {
			return catalog{}, fmt.Errorf("api: image name %q is not a distribution and a version such as debian-13", name)
		}
		created := time.Date(2025, 8, 10, 0, 0, 0, 0, time.UTC)
		c.images = append(c.images, schema.Image{
			ID: int64(300001 + i), Status: "available", Type: "system", Name: &name,
			Description: strings.ToUpper(flavor[:1]) + flavor[1:] + " " + version,
			DiskSize:    5, Created: &created, OSFlavor: flavor, OSVersion: &version,
			Architecture: "x86", RapidDeploy: true, Labels: map[string]string{},
		})
	}
	return c, nil
}

func (c *catalog) location(want idOrName) (schema.Location, bool) {
	for _, l := range c.locations {
		if want.is(l.ID, l.Name) {
			return l, true
		}
	}
	return schema.Location{}, false
}

// locationNamed is for names that were checked before.
func (c *catalog) locationNamed(name string) schema.Location {
	l, _ := c.location(idOrName{schema.IDOrName{Name: name}})
	return l
}

func (c *catalog) serverType(want idOrName) (schema.ServerType, bool) {
	for _, t := range c.serverTypes {
		if want.is(t.ID, t.Name) {
			return t, true
		}
	}
	return schema.ServerType{}, false
}

func (c *catalog) image(want idOrName) (schema.Image, bool) {
	for _, i := range c.images {
		if want.is(i.ID, *i.Name) {
			return i, true
		}
	}
	return schema.Image{}, false
}

func soldIn(t schema.ServerType, location string) bool {
	return slices.ContainsFunc(t.Locations, func(l schema.ServerTypeLocation) bool { return l.Name == location })
}

// named is a line of the catalogue.
type named interface {
	schema.Location | schema.ServerType | schema.Image | datacenter
}

// listCatalog answers a list of the catalogue, get one line of it.
func listCatalog[T named](c *call, plural string, all []T, key func(T) (int64, string), keep func(T) bool) (reply, error) {
	var found []T
	for _, t := range all {
		if _, name := key(t); c.oneOf("name", name) && (keep == nil || keep(t)) {
			found = append(found, t)
		}
	}
	orders := map[string]func(a, b T) int{
		"id":   func(a, b T) int { x, _ := key(a); y, _ := key(b); return int(x - y) },
		"name": func(a, b T) int { _, x := key(a); _, y := key(b); return strings.Compare(x, y) },
		// The catalogue's dates all are the same.
		"created": func(a, b T) int { return 0 },
	}
	return answerPage(c, plural, found, orders, func(t T) any { return t })
}

func getCatalog[T named](c *call, kind, envelope string, all []T, key func(T) (int64, string)) (reply, error) {
	id, err := c.pathID("id")
	if err != nil {
		return reply{}, err
	}
	for _, t := range all {
		if known, _ := key(t); known == id {
			return reply{http.StatusOK, map[string]any{envelope: t}}, nil
		}
	}
	return reply{}, notFound(kind, id)
}

func locationKey(l schema.Location) (int64, string)     { return l.ID, l.Name }
func serverTypeKey(t schema.ServerType) (int64, string) { return t.ID, t.Name }
func imageKey(i schema.Image) (int64, string)           { return i.ID, *i.Name }

func listLocations(c *call) (reply, error) {
	return listCatalog(c, "locations", c.e.catalog.locations, locationKey, nil)
}

func getLocation(c *call) (reply, error) {
	return getCatalog(c, "location", "location", c.e.catalog.locations, locationKey)
}

func listServerTypes(c *call) (reply, error) {
	return listCatalog(c, "server_types", c.e.catalog.serverTypes, serverTypeKey, nil)
}

func getServerType(c *call) (reply, error) {
	return getCatalog(c, "server type", "server_type", c.e.catalog.serverTypes, serverTypeKey)
}

func listImages(c *call) (reply, error) {
	return listCatalog(c, "images", c.e.catalog.images, imageKey, func(i schema.Image) bool {
		selector, err := parseSelector(c.query.Get("label_selector"))
		return err == nil && selector.matches(i.Labels) && c.oneOf("type", i.Type) &&
			c.oneOf("status", i.Status) && c.oneOf("architecture", i.Architecture) && !c.query.Has("bound_to")
	})
}

func getImage(c *call) (reply, error) {
	return getCatalog(c, "image", "image", c.e.catalog.images, imageKey)
}

func euros(cents float64) string { return strconv.FormatFloat(cents/100, 'f', 4, 64) }
