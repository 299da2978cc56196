package api

import "net/http"

// routes is everything that the emulator answers.
func (e *Emulator) routes() http.Handler {
	mux := http.NewServeMux()
	for pattern, h := range apiRoutes() {
		mux.Handle(pattern, e.serve(h))
	}
	mux.HandleFunc("/v1/", noSuchRoute)

	root := http.NewServeMux()
	root.Handle("/v1/", e.correlated(e.authenticated(e.limited(e.faulty(mux)))))
	root.Handle("/_lab/", e.authenticated(e.controlRoutes()))
	root.HandleFunc("/", noSuchRoute)
	return root
}

func noSuchRoute(w http.ResponseWriter, r *http.Request) {
	writeError(w, failure("not_found", "there is no %s %s", r.Method, r.URL.Path))
}

// apiRoutes are the operations of the API by method and path.
func apiRoutes() map[string]handler {
	routes := map[string]handler{
		"GET /v1/actions":           actionsByID,
		"GET /v1/actions/{action}":  actionOf(""),
		"GET /v1/locations":         listLocations,
		"GET /v1/locations/{id}":    getLocation,
		"GET /v1/datacenters":       listDatacenters,
		"GET /v1/datacenters/{id}":  getDatacenter,
		"GET /v1/server_types":      listServerTypes,
		"GET /v1/server_types/{id}": getServerType,
		"GET /v1/images":            listImages,
		"GET /v1/images/{id}":       getImage,
		"GET /v1/pricing":           getPricing,
	}
	add := func(plural string, list, create, get, update, remove handler) {
		routes["GET /v1/"+plural] = list
		routes["POST /v1/"+plural] = create
		routes["GET /v1/"+plural+"/{id}"] = get
		routes["PUT /v1/"+plural+"/{id}"] = update
		routes["DELETE /v1/"+plural+"/{id}"] = remove
	}
	add("servers", listServers, createServer, getServer, updateServer, deleteServer)
	add("networks", listNetworks, createNetwork, getNetwork, updateNetwork, deleteNetwork)
	add("firewalls", listFirewalls, createFirewall, getFirewall, updateFirewall, deleteFirewall)
	add("floating_ips", listFloatingIPs, createFloatingIP, getFloatingIP, updateFloatingIP, deleteFloatingIP)
	add("primary_ips", listPrimaryIPs, createPrimaryIP, getPrimaryIP, updatePrimaryIP, deletePrimaryIP)
	add("volumes", listVolumes, createVolume, getVolume, updateVolume, deleteVolume)
	add("placement_groups", listPlacementGroups, createPlacementGroup, getPlacementGroup, updatePlacementGroup, deletePlacementGroup)
	add("ssh_keys", listSSHKeys, createSSHKey, getSSHKey, updateSSHKey, deleteSSHKey)

	act := func(plural, kind string, exists func(c *call, id int64) error, verbs map[string]handler) {
		routes["GET /v1/"+plural+"/actions"] = actionsOf(kind, exists)
		// Two operations that a ServeMux cannot tell apart:
		// /servers/actions/{action} and /servers/{id}/actions.
		list, get := actionsOf(kind, exists), actionOf(kind)
		routes["GET /v1/"+plural+"/{id}/{action}"] = func(c *call) (reply, error) {
			switch {
			case c.r.PathValue("id") == "actions":
				c.r.SetPathValue("id", "")
				return get(c)
			case c.r.PathValue("action") == "actions":
				return list(c)
			default:
				return reply{}, failure("not_found", "there is no GET %s", c.r.URL.Path)
			}
		}
		routes["GET /v1/"+plural+"/{id}/actions/{action}"] = actionOf(kind)
		for verb, h := range verbs {
			routes["POST /v1/"+plural+"/{id}/actions/"+verb] = h
		}
	}
	act("servers", "server", func(c *call, id int64) error { _, err := find(c.s.Servers, "server", id); return err }, map[string]handler{
		"poweron":                     powerOn,
		"poweroff":                    powerOff,
		"shutdown":                    shutdown,
		"reboot":                      reboot,
		"reset":                       reset,
		"rebuild":                     rebuild,
		"change_type":                 changeType,
		"change_protection":           changeServerProtection,
		"change_dns_ptr":              changeServerPointer,
		"attach_to_network":           attachToNetwork,
		"detach_from_network":         detachFromNetwork,
		"change_alias_ips":            changeAliasIPs,
		"add_to_placement_group":      addToPlacementGroup,
		"remove_from_placement_group": removeFromPlacementGroup,
		"enable_backup":               enableBackup,
		"disable_backup":              disableBackup,
	})
	act("networks", "network", func(c *call, id int64) error { _, err := c.network(id); return err }, map[string]handler{
		"add_subnet":        addSubnet,
		"delete_subnet":     deleteSubnet,
		"add_route":         addRoute,
		"delete_route":      deleteRoute,
		"change_ip_range":   changeRange,
		"change_protection": changeNetworkProtection,
	})
	act("firewalls", "firewall", func(c *call, id int64) error { _, err := find(c.s.Firewalls, "firewall", id); return err }, map[string]handler{
		"set_rules":             setRules,
		"apply_to_resources":    applyFirewall,
		"remove_from_resources": removeFirewall,
	})
	act("floating_ips", "floating_ip", func(c *call, id int64) error { _, err := find(c.s.FloatingIPs, "floating IP", id); return err }, map[string]handler{
		"assign":            assignFloatingIP,
		"unassign":          unassignFloatingIP,
		"change_dns_ptr":    changeFloatingPointer,
		"change_protection": changeFloatingProtection,
	})
	act("primary_ips", "primary_ip", func(c *call, id int64) error { _, err := find(c.s.PrimaryIPs, "primary IP", id); return err }, map[string]handler{
		"assign":            assignPrimaryIP,
		"unassign":          unassignPrimaryIP,
		"change_dns_ptr":    changePrimaryPointer,
		"change_protection": changePrimaryProtection,
	})
	act("volumes", "volume", func(c *call, id int64) error { _, err := find(c.s.Volumes, "volume", id); return err }, map[string]handler{
		"attach":            attachVolume,
		"detach":            detachVolume,
		"resize":            resizeVolume,
		"change_protection": changeVolumeProtection,
	})
	act("images", "image", func(*call, int64) error { return nil }, nil)
	return routes
}
