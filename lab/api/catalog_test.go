package api

import (
	"testing"

	"github.com/hetznercloud/hcloud-go/v2/hcloud"
)

func TestTheCatalogueIsFoundByNameAndID(t *testing.T) {
	l := newLab(t)
	ctx := t.Context()
	st := must(l.client.ServerType.GetByName(ctx, "cx23"))(t)
	if st == nil || st.Cores != 2 || st.Memory != 4 || st.Disk != 40 || st.Architecture != hcloud.ArchitectureX86 || len(st.Pricings) != 3 {
		t.Fatalf("server type is %+v", st)
	}
	if again := must(l.client.ServerType.GetByID(ctx, st.ID))(t); again.Name != "cx23" {
		t.Errorf("by ID: %s", again.Name)
	}
	if p := st.Pricings[0]; p.Monthly.Net != "3.4900" || p.Monthly.Gross != "4.1531" || p.Hourly.Net != "0.0056" {
		t.Errorf("prices are %+v", p)
	}
	if got := must(l.client.ServerType.GetByName(ctx, "cx999"))(t); got != nil {
		t.Errorf("found %v", got)
	}
	image := must(l.client.Image.GetByNameAndArchitecture(ctx, "debian-13", hcloud.ArchitectureX86))(t)
	if image == nil || image.OSFlavor != "debian" || image.OSVersion != "13" || image.Type != hcloud.ImageTypeSystem {
		t.Fatalf("image is %+v", image)
	}
	must(l.client.Image.GetByID(ctx, image.ID))(t)
	if got := must(l.client.Image.GetByNameAndArchitecture(ctx, "debian-13", hcloud.ArchitectureARM))(t); got != nil {
		t.Errorf("found %v for ARM", got)
	}
	zones := map[string]hcloud.NetworkZone{}
	for _, loc := range must(l.client.Location.List(ctx, hcloud.LocationListOpts{}))(t) {
		zones[loc.Name] = loc.NetworkZone
	}
	if len(zones) != 6 || zones["fsn1"] != "eu-central" || zones["ash"] != "us-east" || zones["hil"] != "us-west" || zones["sin"] != "ap-southeast" {
		t.Errorf("locations are %v", zones)
	}
	must(l.client.Location.GetByID(ctx, 1))(t)
	for _, path := range []string{"/v1/datacenters", "/v1/datacenters/4"} {
		if status, _, _ := l.raw("GET", path, testToken, ""); status != 200 {
			t.Errorf("%s is answered %d", path, status)
		}
	}
	p := must(l.client.Pricing.Get(ctx))(t)
	if p.Image.PerGBMonth.Currency != "EUR" || len(p.ServerTypes) != len(rentables) || len(p.FloatingIPs) != 2 || len(p.PrimaryIPs) != 2 {
		t.Errorf("pricing is %+v", p)
	}
	for _, path := range []string{"/v1/images/7", "/v1/locations/7", "/v1/server_types/7", "/v1/datacenters/1"} {
		if status, _, body := l.raw("GET", path, testToken, ""); status != 404 || errorCode(body) != "not_found" {
			t.Errorf("%s is answered %d %v", path, status, body)
		}
	}
}

func TestThePriceListSaysWhatEverythingThatIsRentedCosts(t *testing.T) {
	p := must(newLab(t).client.Pricing.Get(t.Context()))(t)
	if p.Currency != "EUR" || p.Volume.PerGBMonthly.Net != "0.0440" {
		t.Errorf("currency %s, volume %+v", p.Currency, p.Volume)
	}
	prices := map[string]string{}
	for _, s := range p.ServerTypes {
		for _, at := range s.Pricings {
			prices[s.ServerType.Name+" "+at.Location.Name] = at.Monthly.Net
		}
	}
	for _, f := range p.FloatingIPs {
		for _, at := range f.Pricings {
			prices["floating "+string(f.Type)+" "+at.Location.Name] = at.Monthly.Net
		}
	}
	for _, f := range p.PrimaryIPs {
		for _, at := range f.Pricings {
			prices["primary "+f.Type+" "+at.Location] = at.Monthly.Net
		}
	}
	for what, want := range map[string]string{
		"cx23 fsn1": "3.4900", "ccx13 sin": "14.9900", "cx23 ash": "",
		"floating ipv4 fsn1": "3.0000", "floating ipv6 sin": "1.0000",
		"primary ipv4 hel1": "0.5000", "primary ipv6 hel1": "0.0000",
	} {
		if prices[what] != want {
			t.Errorf("%s costs %q, not %q", what, prices[what], want)
		}
	}
}
