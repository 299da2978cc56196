package api

import (
	"net/http"

	"github.com/hetznercloud/hcloud-go/v2/hcloud/schema"
)

// placementGroup keeps servers on different hosts in the cloud. Here, where
// there is one computer, it only counts them.
type placementGroup struct {
	base
}

func (g *placementGroup) ref() resource { return resource{"placement_group", g.ID} }

func (s *state) members(group int64) []int64 {
	out := []int64{}
	for _, srv := range byID(s.Servers) {
		if srv.PlacementGroup == group {
			out = append(out, srv.ID)
		}
	}
	return out
}

func (c *call) viewPlacementGroup(g *placementGroup) schema.PlacementGroup {
	return schema.PlacementGroup{
		ID: g.ID, Name: g.Name, Labels: g.Labels, Created: g.Created,
		Servers: c.s.members(g.ID), Type: "spread",
	}
}

// room refuses a server for which a group has no host left.
func (c *call) room(g *placementGroup) error {
	if len(c.s.members(g.ID)) >= maxGroup {
		return failure("placement_error", "placement group %s has %d servers, which is the most that a spread group can have", g.Name, maxGroup)
	}
	return nil
}

func (c *call) pathPlacementGroup() (*placementGroup, error) {
	id, err := c.pathID("id")
	if err != nil {
		return nil, err
	}
	return find(c.s.PlacementGroups, "placement group", id)
}

func listPlacementGroups(c *call) (reply, error) {
	return listRecords(c, "placement_groups", c.s.PlacementGroups,
		func(*placementGroup) bool { return c.oneOf("type", "spread") },
		func(g *placementGroup) any { return c.viewPlacementGroup(g) })
}

func getPlacementGroup(c *call) (reply, error) {
	g, err := c.pathPlacementGroup()
	if err != nil {
		return reply{}, err
	}
	return reply{http.StatusOK, map[string]any{"placement_group": c.viewPlacementGroup(g)}}, nil
}

func createPlacementGroup(c *call) (reply, error) {
	var req schema.PlacementGroupCreateRequest
	if err := c.decode(&req); err != nil {
		return reply{}, err
	}
	if req.Type != "spread" {
		return reply{}, invalid("type", "must be spread")
	}
	if err := checkName(req.Name); err != nil {
		return reply{}, err
	}
	if err := checkLabels(req.Labels); err != nil {
		return reply{}, err
	}
	if err := unique(c.s.PlacementGroups, "placement group", req.Name, 0); err != nil {
		return reply{}, err
	}
	g := &placementGroup{c.newBase(req.Name, req.Labels)}
	c.s.PlacementGroups[g.ID] = g
	return reply{http.StatusCreated, map[string]any{"placement_group": c.viewPlacementGroup(g), "action": nil}}, nil
}

func updatePlacementGroup(c *call) (reply, error) {
	g, err := c.pathPlacementGroup()
	if err != nil {
		return reply{}, err
	}
	var req schema.PlacementGroupUpdateRequest
	if err := c.decode(&req); err != nil {
		return reply{}, err
	}
	if err := rename(c.s.PlacementGroups, "placement group", g, deref(req.Name), req.Labels); err != nil {
		return reply{}, err
	}
	return reply{http.StatusOK, map[string]any{"placement_group": c.viewPlacementGroup(g)}}, nil
}

func deletePlacementGroup(c *call) (reply, error) {
	g, err := c.pathPlacementGroup()
	if err != nil {
		return reply{}, err
	}
	if len(c.s.members(g.ID)) > 0 {
		return reply{}, failure("resource_in_use", "placement group %s still has servers", g.Name)
	}
	delete(c.s.PlacementGroups, g.ID)
	return reply{status: http.StatusNoContent}, nil
}

func addToPlacementGroup(c *call) (reply, error) {
	s, err := c.stoppedServer()
	if err != nil {
		return reply{}, err
	}
	var req schema.ServerActionAddToPlacementGroupRequest
	if err := c.decode(&req); err != nil {
		return reply{}, err
	}
	g, err := find(c.s.PlacementGroups, "placement group", req.PlacementGroup)
	if err != nil {
		return reply{}, err
	}
	if s.PlacementGroup != 0 {
		return reply{}, failure("service_error", "server %s is in a placement group already", s.Name)
	}
	if err := c.room(g); err != nil {
		return reply{}, err
	}
	s.PlacementGroup = g.ID
	return c.created(c.done("add_to_placement_group", s.ref(), g.ref()))
}

func removeFromPlacementGroup(c *call) (reply, error) {
	s, err := c.idleServer()
	if err != nil {
		return reply{}, err
	}
	if s.PlacementGroup == 0 {
		return reply{}, failure("service_error", "server %s is in no placement group", s.Name)
	}
	group := resource{"placement_group", s.PlacementGroup}
	s.PlacementGroup = 0
	return c.created(c.done("remove_from_placement_group", s.ref(), group))
}

func deref[T any](p *T) T {
	var none T
	if p == nil {
		return none
	}
	return *p
}
