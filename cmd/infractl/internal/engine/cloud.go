package engine

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/hetznercloud/hcloud-go/v2/hcloud"

	"github.com/infractl/infractl/cmd/infractl/internal/price"
	"github.com/infractl/infractl/stacks"
)

// Kinds of objects in the cloud, by the type of the resource that makes them,
// in the order in which they can be deleted.
const (
	typeServer     = "hcloud:index/server:Server"
	typeFloatingIP = "hcloud:index/floatingIp:FloatingIp"
	typeFirewall   = "hcloud:index/firewall:Firewall"
	typeGroup      = "hcloud:index/placementGroup:PlacementGroup"
	typeSubnet     = "hcloud:index/networkSubnet:NetworkSubnet"
	typeNetwork    = "hcloud:index/network:Network"
	typeSSHKey     = "hcloud:index/sshKey:SshKey"
)

// typeConfiguration is what infractl keeps on a host.
const typeConfiguration = "infractl:host:Configuration"

// nouns are the kinds' names for people.
var nouns = map[string]string{
	typeServer:     "server",
	typeFloatingIP: "floating IP",
	typeFirewall:   "firewall",
	typeGroup:      "placement group",
	typeSubnet:     "subnet",
	typeNetwork:    "network",
	typeSSHKey:     "SSH key",
}

// deletionOrder is the order in which objects can be deleted.
var deletionOrder = []string{typeServer, typeFloatingIP, typeFirewall, typeGroup, typeSubnet, typeNetwork, typeSSHKey}

// object is one thing in the cloud that carries this environment's labels.
type object struct {
	kind      string
	id        string // as in the state: a number, or network-range for a subnet
	name      string
	created   time.Time
	protected bool
}

func (o object) String() string { return fmt.Sprintf("%s %s (%s)", nouns[o.kind], o.name, o.id) }

// inventory is what the cloud holds of an environment.
type inventory struct {
	objects []object
	// now is the cloud's own time.
	now time.Time
	// vipHolder is the name of the server that the virtual IP is assigned to.
	vipHolder string
	// foreign are other environments' servers in the network.
	foreign int
	// attached are the ranges' servers: how many servers have an address in a subnet, by the subnet's ID.
	attached map[string]int
}

// find returns the object of a kind with an ID.
func (i inventory) find(kind, id string) (object, bool) {
	for _, o := range i.objects {
		if o.kind == kind && o.id == id {
			return o, true
		}
	}
	return object{}, false
}

// Cloud is what infractl itself needs of the cloud's API. Everything that a
// plan consists of goes through Pulumi instead.
type Cloud interface {
	// inventory lists what carries an environment's labels.
	inventory(ctx context.Context, environment string) (inventory, error)
	// exists looks for one object by its ID, whatever its labels.
	exists(ctx context.Context, kind, id string) (bool, error)
	// remove deletes an object, lifting its protection first.
	remove(ctx context.Context, o object) error
	// unprotect lifts an object's protection.
	unprotect(ctx context.Context, kind, id string) error
	// catalog lists what may be ordered.
	catalog(ctx context.Context) (catalog, error)
	// prices reads the price list.
	prices(ctx context.Context) (price.List, error)
}

// catalog is what may be ordered.
type catalog struct {
	types     map[string]*hcloud.ServerType
	images    map[string]bool
	locations map[string]string // network zone by name
}

type hetzner struct {
	client   *hcloud.Client
	endpoint string
}

// apiTimeout bounds every exchange with the cloud that is not a wait for an action.
const apiTimeout = 30 * time.Second

// newCloud makes a client from the same environment variables as the provider's.
func newCloud(version string, spec stacks.Environment) (*hetzner, error) {
	token := os.Getenv("HCLOUD_TOKEN")
	switch {
	case token == "" && spec.Uses(stacks.TargetHosts) && !spec.Uses(stacks.TargetCloud):
		return &hetzner{}, nil
	case token == "":
		return nil, fail(Invalid, "Set it, or put it into .env.<environment>.", "HCLOUD_TOKEN, the cloud's API token, is not set")
	case len(token) != 64:
		return nil, fail(Invalid, "Copy it again from the cloud console.", "HCLOUD_TOKEN must have 64 characters, but has %d", len(token))
	}
	endpoint := os.Getenv(stacks.EndpointVariable)
	if endpoint == "" {
		endpoint = stacks.DefaultEndpoint
	}
	return &hetzner{endpoint: endpoint, client: hcloud.NewClient(
		hcloud.WithToken(token),
		hcloud.WithEndpoint(endpoint),
		hcloud.WithApplication("infractl", version),
		hcloud.WithHTTPClient(&http.Client{Timeout: apiTimeout}),
		hcloud.WithRetryOpts(hcloud.RetryOpts{MaxRetries: 3, BackoffFunc: hcloud.ConstantBackoff(time.Second)}),
		hcloud.WithPollOpts(hcloud.PollOpts{BackoffFunc: hcloud.ConstantBackoff(500 * time.Millisecond)}),
	)}, nil
}

// none says that the environment has nothing in the cloud, and that there is no
// token to ask it with.
func (h *hetzner) none() bool { return h.client == nil }

// explain turns an API error into one that says what to do.
func (h *hetzner) explain(what string, err error) error {
	var api hcloud.Error
	switch {
	case err == nil:
		return nil
	case hcloud.IsError(err, hcloud.ErrorCodeUnauthorized):
		return fail(Invalid, "Make a new one in the cloud console and put it into HCLOUD_TOKEN.", "%s: the cloud does not accept the token in HCLOUD_TOKEN", what)
	case hcloud.IsError(err, hcloud.ErrorCodeForbidden):
		return fail(Invalid, "Make one that may read and write.", "%s: the token in HCLOUD_TOKEN may not do this", what)
	case hcloud.IsError(err, hcloud.ErrorCodeRateLimitExceeded):
		return fail(Failed, "Wait a few minutes and try again.", "%s: the cloud's limit of calls per hour is used up", what)
	case errors.As(err, &api):
		return fmt.Errorf("%s: the cloud answers %q (%s)", what, api.Message, api.Code)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s: %w", what, err)
	}
	return fail(Failed, "Check the network, and HCLOUD_ENDPOINT if it is set.", "%s: cannot reach the cloud at %s: %w", what, h.endpoint, err)
}

func selector(environment string) hcloud.ListOpts {
	return hcloud.ListOpts{
		LabelSelector: stacks.LabelManagedBy + "=" + stacks.ManagedBy + "," + stacks.LabelEnvironment + "=" + environment,
		PerPage:       50,
	}
}

func id(n int64) string { return strconv.FormatInt(n, 10) }

func (h *hetzner) inventory(ctx context.Context, environment string) (inventory, error) {
	if h.none() {
		return inventory{now: time.Now()}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*apiTimeout)
	defer cancel()
	opts := selector(environment)
	inv := inventory{attached: map[string]int{}}
	var servers []*hcloud.Server
	var networks []*hcloud.Network
	var ips []*hcloud.FloatingIP
	var firewalls []*hcloud.Firewall
	var groups []*hcloud.PlacementGroup
	var keys []*hcloud.SSHKey
	err := parallel(
		func() (err error) {
			servers, err = h.client.Server.AllWithOpts(ctx, hcloud.ServerListOpts{ListOpts: opts})
			return err
		},
		func() (err error) {
			networks, err = h.client.Network.AllWithOpts(ctx, hcloud.NetworkListOpts{ListOpts: opts})
			return err
		},
		func() (err error) {
			ips, err = h.client.FloatingIP.AllWithOpts(ctx, hcloud.FloatingIPListOpts{ListOpts: opts})
			return err
		},
		func() (err error) {
			firewalls, err = h.client.Firewall.AllWithOpts(ctx, hcloud.FirewallListOpts{ListOpts: opts})
			return err
		},
		func() (err error) {
			groups, err = h.client.PlacementGroup.AllWithOpts(ctx, hcloud.PlacementGroupListOpts{ListOpts: opts})
			return err
		},
		func() (err error) {
			keys, err = h.client.SSHKey.AllWithOpts(ctx, hcloud.SSHKeyListOpts{ListOpts: opts})
			return err
		},
		func() error {
			_, res, err := h.client.Location.List(ctx, hcloud.LocationListOpts{ListOpts: hcloud.ListOpts{PerPage: 1}})
			if err == nil {
				if t, err := http.ParseTime(res.Header.Get("Date")); err == nil {
					inv.now = t
				}
			}
			return err
		},
	)
	if err != nil {
		return inv, h.explain("cannot list what the environment has in the cloud", err)
	}
	if inv.now.IsZero() {
		inv.now = time.Now()
	}
	names := map[int64]string{}
	for _, s := range servers {
		names[s.ID] = s.Name
		inv.objects = append(inv.objects, object{typeServer, id(s.ID), s.Name, s.Created, s.Protection.Delete})
	}
	for _, f := range ips {
		inv.objects = append(inv.objects, object{typeFloatingIP, id(f.ID), f.Name, f.Created, f.Protection.Delete})
		if f.Server != nil && (inv.vipHolder == "" || f.Type == hcloud.FloatingIPTypeIPv4) {
			inv.vipHolder = names[f.Server.ID]
		}
	}
	for _, f := range firewalls {
		inv.objects = append(inv.objects, object{typeFirewall, id(f.ID), f.Name, f.Created, false})
	}
	for _, g := range groups {
		inv.objects = append(inv.objects, object{typeGroup, id(g.ID), g.Name, g.Created, false})
	}
	for _, n := range networks {
		for _, s := range n.Servers {
			if _, own := names[s.ID]; !own {
				inv.foreign++
			}
		}
		for _, s := range n.Subnets {
			subnet := id(n.ID) + "-" + s.IPRange.String()
			inv.objects = append(inv.objects, object{typeSubnet, subnet, s.IPRange.String(), time.Time{}, false})
			for _, server := range servers {
				for _, p := range server.PrivateNet {
					if p.Network != nil && p.Network.ID == n.ID && s.IPRange.Contains(p.IP) {
						inv.attached[subnet]++
					}
				}
			}
		}
		inv.objects = append(inv.objects, object{typeNetwork, id(n.ID), n.Name, n.Created, n.Protection.Delete})
	}
	for _, k := range keys {
		inv.objects = append(inv.objects, object{typeSSHKey, id(k.ID), k.Name, k.Created, false})
	}
	return inv, nil
}

// parallel runs functions at the same time and returns the first error of all.
func parallel(fs ...func() error) error {
	errs := make(chan error, len(fs))
	for _, f := range fs {
		go func() { errs <- f() }()
	}
	var first error
	for range fs {
		if err := <-errs; err != nil && first == nil {
			first = err
		}
	}
	return first
}

func number(text string) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is not an ID of this cloud", text)
	}
	return n, nil
}

func (h *hetzner) exists(ctx context.Context, kind, ref string) (bool, error) {
	if h.none() {
		return false, fail(Invalid, "Set HCLOUD_TOKEN until infractl up has deleted it.", "the state still has a %s in the cloud", nouns[kind])
	}
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	network, cidr, _ := strings.Cut(ref, "-")
	n, err := number(network)
	if err != nil {
		return false, err
	}
	found := false
	switch kind {
	case typeServer:
		s, _, e := h.client.Server.GetByID(ctx, n)
		found, err = s != nil, e
	case typeFloatingIP:
		f, _, e := h.client.FloatingIP.GetByID(ctx, n)
		found, err = f != nil, e
	case typeFirewall:
		f, _, e := h.client.Firewall.GetByID(ctx, n)
		found, err = f != nil, e
	case typeGroup:
		g, _, e := h.client.PlacementGroup.GetByID(ctx, n)
		found, err = g != nil, e
	case typeNetwork:
		w, _, e := h.client.Network.GetByID(ctx, n)
		found, err = w != nil, e
	case typeSubnet:
		w, _, e := h.client.Network.GetByID(ctx, n)
		err = e
		if w != nil {
			for _, subnet := range w.Subnets {
				found = found || subnet.IPRange.String() == cidr
			}
		}
	case typeSSHKey:
		k, _, e := h.client.SSHKey.GetByID(ctx, n)
		found, err = k != nil, e
	default:
		return false, fmt.Errorf("%s is not known in this cloud", kind)
	}
	return found, h.explain("cannot look for "+nouns[kind]+" "+ref, err)
}

func (h *hetzner) unprotect(ctx context.Context, kind, ref string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*apiTimeout)
	defer cancel()
	n, err := number(ref)
	if err != nil {
		return err
	}
	var action *hcloud.Action
	off := hcloud.Ptr(false)
	switch kind {
	case typeServer:
		action, _, err = h.client.Server.ChangeProtection(ctx, &hcloud.Server{ID: n}, hcloud.ServerChangeProtectionOpts{Delete: off, Rebuild: off})
	case typeFloatingIP:
		action, _, err = h.client.FloatingIP.ChangeProtection(ctx, &hcloud.FloatingIP{ID: n}, hcloud.FloatingIPChangeProtectionOpts{Delete: off})
	case typeNetwork:
		action, _, err = h.client.Network.ChangeProtection(ctx, &hcloud.Network{ID: n}, hcloud.NetworkChangeProtectionOpts{Delete: off})
	default:
		return nil
	}
	if err == nil && action != nil {
		err = h.client.Action.WaitFor(ctx, action)
	}
	if hcloud.IsError(err, hcloud.ErrorCodeNotFound) {
		return nil
	}
	return h.explain("cannot lift the protection of "+nouns[kind]+" "+ref, err)
}

func (h *hetzner) remove(ctx context.Context, o object) error {
	ctx, cancel := context.WithTimeout(ctx, 4*apiTimeout)
	defer cancel()
	if o.protected {
		if err := h.unprotect(ctx, o.kind, o.id); err != nil {
			return err
		}
	}
	what := "cannot delete " + o.String()
	if o.kind == typeSubnet {
		return h.explain(what, h.removeSubnet(ctx, o.id))
	}
	n, err := number(o.id)
	if err != nil {
		return err
	}
	// What a server leaves behind takes the cloud a moment to notice.
	for attempt := 0; ; attempt++ {
		err = h.removeByID(ctx, o.kind, n)
		busy := hcloud.IsError(err, hcloud.ErrorCodeResourceInUse, hcloud.ErrorCodeConflict, hcloud.ErrorCodeLocked)
		if !busy || attempt == 10 {
			break
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(time.Second):
		}
	}
	if hcloud.IsError(err, hcloud.ErrorCodeNotFound) {
		return nil
	}
	return h.explain(what, err)
}

func (h *hetzner) removeByID(ctx context.Context, kind string, n int64) error {
	switch kind {
	case typeServer:
		res, _, err := h.client.Server.DeleteWithResult(ctx, &hcloud.Server{ID: n})
		if err != nil {
			return err
		}
		if res.Action == nil {
			return nil
		}
		return h.client.Action.WaitFor(ctx, res.Action)
	case typeFloatingIP:
		return h.removeFloatingIP(ctx, n)
	case typeFirewall:
		_, err := h.client.Firewall.Delete(ctx, &hcloud.Firewall{ID: n})
		return err
	case typeGroup:
		_, err := h.client.PlacementGroup.Delete(ctx, &hcloud.PlacementGroup{ID: n})
		return err
	case typeNetwork:
		_, err := h.client.Network.Delete(ctx, &hcloud.Network{ID: n})
		return err
	case typeSSHKey:
		_, err := h.client.SSHKey.Delete(ctx, &hcloud.SSHKey{ID: n})
		return err
	}
	return fmt.Errorf("%s cannot be deleted here", kind)
}

// removeFloatingIP takes the address from its server first: the cloud deletes
// only one that is assigned to none.
func (h *hetzner) removeFloatingIP(ctx context.Context, n int64) error {
	ip, _, err := h.client.FloatingIP.GetByID(ctx, n)
	if err != nil || ip == nil {
		return err
	}
	if ip.Server != nil {
		action, _, err := h.client.FloatingIP.Unassign(ctx, ip)
		if err != nil {
			return err
		}
		if err := h.client.Action.WaitFor(ctx, action); err != nil {
			return err
		}
	}
	_, err = h.client.FloatingIP.Delete(ctx, ip)
	return err
}

func (h *hetzner) removeSubnet(ctx context.Context, ref string) error {
	network, cidr, ok := strings.Cut(ref, "-")
	if !ok {
		return fmt.Errorf("%q is not a subnet's ID", ref)
	}
	n, err := number(network)
	if err != nil {
		return err
	}
	found, _, err := h.client.Network.GetByID(ctx, n)
	if err != nil || found == nil {
		return err
	}
	for _, s := range found.Subnets {
		if s.IPRange.String() == cidr {
			action, _, err := h.client.Network.DeleteSubnet(ctx, found, hcloud.NetworkDeleteSubnetOpts{Subnet: s})
			if err != nil {
				return err
			}
			return h.client.Action.WaitFor(ctx, action)
		}
	}
	return nil
}

func (h *hetzner) catalog(ctx context.Context) (catalog, error) {
	if h.none() {
		return catalog{}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	c := catalog{types: map[string]*hcloud.ServerType{}, images: map[string]bool{}, locations: map[string]string{}}
	var types []*hcloud.ServerType
	var images []*hcloud.Image
	var locations []*hcloud.Location
	err := parallel(
		func() (err error) { types, err = h.client.ServerType.All(ctx); return err },
		func() (err error) { locations, err = h.client.Location.All(ctx); return err },
		func() (err error) {
			images, err = h.client.Image.AllWithOpts(ctx, hcloud.ImageListOpts{
				ListOpts: hcloud.ListOpts{PerPage: 50}, Type: []hcloud.ImageType{hcloud.ImageTypeSystem},
			})
			return err
		},
	)
	if err != nil {
		return c, h.explain("cannot ask the cloud what it offers", err)
	}
	for _, t := range types {
		c.types[t.Name] = t
	}
	for _, i := range images {
		if i.Status == hcloud.ImageStatusAvailable {
			c.images[i.Name] = true
		}
	}
	for _, l := range locations {
		c.locations[l.Name] = string(l.NetworkZone)
	}
	return c, nil
}

func (h *hetzner) prices(ctx context.Context) (price.List, error) {
	if h.none() {
		return price.List{}, errors.New("servers of your own have no price list")
	}
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	p, _, err := h.client.Pricing.Get(ctx)
	if err != nil {
		return price.List{}, h.explain("cannot ask the cloud for its prices", err)
	}
	return price.FromCloud(p), nil
}
