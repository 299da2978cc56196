package main

import (
	"context"
	"slices"
	"strings"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"

	"github.com/infractl/infractl/provision"
)

// diff compares what is really on the host with what is desired. Another name
// is another host, and so is an address that leads to another of the user's own
// servers; everything else can be changed in place.
func (c *configuration) diff(ctx context.Context, req plugin.DiffRequest) (plugin.DiffResult, error) {
	changes := map[string]plugin.PropertyDiff{}
	for _, key := range keys(req.OldOutputs, req.NewInputs) {
		old, new := req.OldOutputs[key], req.NewInputs[key]
		path := resource.PropertyPath{string(key)}
		switch key {
		case "name":
			found := map[string]plugin.PropertyDiff{}
			compare(path, old, new, found)
			for name, change := range found {
				changes[name] = change.ToReplace()
			}
		case "packages":
			compareSets(path, old, new, changes)
		case "trees":
			compare(path, withoutSources(old), withoutSources(new), changes)
		default:
			compare(path, empty(old, new), empty(new, old), changes)
		}
	}
	if address, changed := changes["address"]; changed && c.another(ctx, req.OldOutputs, req.NewInputs) {
		changes["address"] = address.ToReplace()
	}
	return result(changes), nil
}

// another says whether a configuration goes from one server to another, so that it
// has to be removed from the first one. Only the servers themselves can tell: the
// same one may have got another address, or another host key. One that does not
// answer has nothing to be removed.
func (c *configuration) another(ctx context.Context, old, new resource.PropertyMap) bool {
	var was, will hostInputs
	if decode(old, &was) != nil || decode(new, &will) != nil || !was.Own || !will.Own || will.Data {
		return false
	}
	first, second := c.machine(ctx, was), c.machine(ctx, will)
	return first != "" && second != "" && first != second
}

// machine is what tells a machine from others (machine-id(5)), or empty if it does not
// answer.
func (c *configuration) machine(ctx context.Context, h hostInputs) string {
	conn, err := provision.Connect(ctx, h.target())
	if err != nil {
		return ""
	}
	defer conn.Close()
	id, err := conn.Run(ctx, "look which machine it is", "cat /etc/machine-id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}

// empty makes a property that is not there equal to one that is there without
// elements.
func empty(v, other resource.PropertyValue) resource.PropertyValue {
	if !v.IsNull() {
		return v
	}
	other, known := reveal(other)
	switch {
	case known && other.IsObject() && len(other.ObjectValue()) == 0:
		return resource.NewObjectProperty(resource.PropertyMap{})
	case known && other.IsArray() && len(other.ArrayValue()) == 0:
		return resource.NewArrayProperty(nil)
	}
	return v
}

// withoutSources drops where trees come from, which is no part of what they are.
func withoutSources(v resource.PropertyValue) resource.PropertyValue {
	v, known := reveal(v)
	if !known || !v.IsObject() {
		if known && v.IsNull() {
			return resource.NewObjectProperty(resource.PropertyMap{})
		}
		return v
	}
	trees := resource.PropertyMap{}
	for name, tree := range v.ObjectValue() {
		tree, known := reveal(tree)
		if known && tree.IsObject() {
			copied := tree.ObjectValue().Copy()
			delete(copied, "source")
			tree = resource.NewObjectProperty(copied)
		}
		trees[name] = tree
	}
	return resource.NewObjectProperty(trees)
}

// compareSets compares arrays whose order means nothing.
func compareSets(path resource.PropertyPath, old, new resource.PropertyValue, changes map[string]plugin.PropertyDiff) {
	old, oldKnown := reveal(old)
	new, newKnown := reveal(new)
	if !oldKnown || !newKnown || (!old.IsNull() && !old.IsArray()) || (!new.IsNull() && !new.IsArray()) {
		compare(path, old, new, changes)
		return
	}
	elements := func(v resource.PropertyValue) []resource.PropertyValue {
		if v.IsArray() {
			return v.ArrayValue()
		}
		return nil
	}
	missing := func(from, in []resource.PropertyValue, kind plugin.DiffKind) {
		for i, v := range from {
			v, known := reveal(v)
			if !known || !slices.ContainsFunc(in, func(w resource.PropertyValue) bool {
				plain, _ := reveal(w)
				return v.DeepEquals(plain)
			}) {
				changes[append(slices.Clip(path), i).String()] = plugin.PropertyDiff{Kind: kind}
			}
		}
	}
	missing(elements(new), elements(old), plugin.DiffAdd)
	missing(elements(old), elements(new), plugin.DiffDelete)
}
