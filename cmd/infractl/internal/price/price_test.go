package price

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/hetznercloud/hcloud-go/v2/hcloud"
	"github.com/hetznercloud/hcloud-go/v2/hcloud/schema"

	"github.com/infractl/infractl/stacks"
)

// recorded is a price list as the API of the lab answers GET /pricing, less
// most of its server types and locations.
func recorded(t *testing.T) List {
	t.Helper()
	text, err := os.ReadFile("testdata/pricing.json")
	if err != nil {
		t.Fatal(err)
	}
	var answer schema.PricingGetResponse
	if err := json.Unmarshal(text, &answer); err != nil {
		t.Fatal(err)
	}
	return FromCloud(hcloud.PricingFromSchema(answer.Pricing))
}

// environment has tiers of cx23 in fsn1, but a database of cx33.
func environment(lb, web, app int, change func(*stacks.Environment)) stacks.Environment {
	tier := func(count int, typ string) stacks.Tier {
		return stacks.Tier{Count: count, Type: typ, Location: "fsn1"}
	}
	e := stacks.Environment{
		Tiers: map[string]stacks.Tier{"lb": tier(lb, "cx23"), "web": tier(web, "cx23"), "app": tier(app, "cx23"), "db": tier(1, "cx33")},
		VIP:   stacks.VIP{IPv4: true},
	}
	if change != nil {
		change(&e)
	}
	return e
}

func TestAnEnvironmentCostsWhatItsPartsCost(t *testing.T) {
	cases := []struct {
		name  string
		e     stacks.Environment
		total string
		lines []string
	}{
		{"one location", environment(2, 2, 2, nil),
			"32.93", // 6 × 3.49 + 5.49 + 7 × 0.50 + 3.00
			[]string{"6 server cx23 in fsn1 3.49 20.94", "1 server cx33 in fsn1 5.49 5.49", "7 IPv4 address of a server in fsn1 0.50 3.50", "1 floating IPv4 address in fsn1 3.00 3.00"}},
		{"two more web servers", environment(2, 4, 2, nil), "40.91", nil}, // + 2 × 3.99
		{"both families of virtual IPs", environment(1, 1, 1, func(e *stacks.Environment) { e.VIP.IPv6 = true }), "21.96", nil},
		{"no IPv4 among them", environment(1, 1, 1, func(e *stacks.Environment) { e.VIP = stacks.VIP{IPv6: true} }), "18.96", nil},
		{"a tier elsewhere", environment(1, 1, 2, func(e *stacks.Environment) {
			app := e.Tiers["app"]
			app.Location = "hel1"
			e.Tiers["app"] = app
		}), "24.95", []string{"2 server cx23 in fsn1 3.49 6.98", "2 server cx23 in hel1 3.49 6.98", "1 server cx33 in fsn1 5.49 5.49",
			"3 IPv4 address of a server in fsn1 0.50 1.50", "2 IPv4 address of a server in hel1 0.50 1.00", "1 floating IPv4 address in fsn1 3.00 3.00"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			b, err := recorded(t).Of(c.e)
			if err != nil {
				t.Fatal(err)
			}
			if b.Total.String() != c.total || b.Currency != "EUR" {
				t.Errorf("it costs %s %s, not %s", b.Total, b.Currency, c.total)
			}
			var lines []string
			for _, l := range b.Lines {
				count, _ := json.Marshal(l.Count)
				lines = append(lines, strings.Join([]string{string(count), l.Item, l.Each.String(), l.Sum.String()}, " "))
			}
			if c.lines != nil && !slices.Equal(lines, c.lines) {
				t.Errorf("the lines are\n%s", strings.Join(lines, "\n"))
			}
		})
	}
}

func TestVolumesCostByTheGigabyte(t *testing.T) {
	b, err := recorded(t).Price(Need{gigabytes: 250})
	if err != nil || b.Total.String() != "11.00" { // 250 × 0.0440
		t.Errorf("%s, %v", b.Total, err)
	}
}

func TestAPriceThatIsNotInTheListIsNamed(t *testing.T) {
	_, err := recorded(t).Of(environment(1, 1, 1, func(e *stacks.Environment) {
		web := e.Tiers["web"]
		web.Location = "ash"
		e.Tiers["web"] = web
	}))
	if err == nil || !strings.Contains(err.Error(), "server cx23 in ash") {
		t.Errorf("%v", err)
	}
	_, err = List{servers: map[offer]string{{"cx23", "fsn1"}: "3,49"}}.Price(Need{servers: map[offer]int{{"cx23", "fsn1"}: 1}})
	if err == nil || !strings.Contains(err.Error(), `"3,49" is not an amount`) {
		t.Errorf("%v", err)
	}
}

func TestAmountsAreExact(t *testing.T) {
	amount := func(s string) Amount {
		a, err := ParseAmount(s)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	for _, c := range []struct{ got, want string }{
		{amount("3.4900").String(), "3.49"},
		{amount("3").String(), "3.00"},
		{amount("0.0440").String(), "0.044"},
		{amount("0.1").Plus(amount("0.2")).String(), "0.30"}, // not 0.30000000000000004
		{amount("0.0001").Times(3).String(), "0.0003"},
		{amount("1.10").Times(1000000).String(), "1100000.00"},
		{amount("1.5").Minus(amount("3.49")).Signed(), "-1.99"},
		{amount("3.49").Minus(amount("1.5")).Signed(), "+1.99"},
		{amount("1").Minus(amount("1")).Signed(), "+0.00"},
		{Amount{}.Plus(Amount{}).String(), "0.00"},
	} {
		if c.got != c.want {
			t.Errorf("%s, not %s", c.got, c.want)
		}
	}
	for _, bad := range []string{"", "-1", "+1", "1e5", "1/3", "0x10", ".5", "5.", "1,5", " 1", "1_0", "NaN"} {
		if a, err := ParseAmount(bad); err == nil {
			t.Errorf("%q is read as %s", bad, a)
		}
	}
	if text, err := json.Marshal(Bill{Currency: "EUR", Total: amount("3.4900")}); err != nil || !strings.Contains(string(text), `"total":"3.49"`) {
		t.Errorf("%s, %v", text, err)
	}
}
