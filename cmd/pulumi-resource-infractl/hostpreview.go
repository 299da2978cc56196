package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"

	"github.com/infractl/infractl/provision"
)

// foundProperty is in the outputs of a preview what stands already where a
// configuration puts something for the first time, in the shape of a
// configuration. A file there that is not infractl's yet is marked as foreign.
const foundProperty = "found"

// foresee looks, for a preview, at a host of the user's own, which is there
// before infractl knows anything of it. It changes nothing there, and outputs only
// by adding what it found. Of a host whose state is known, previous, it looks only
// at what that does not tell: files in places that are new.
func (c *configuration) foresee(ctx context.Context, urn resource.URN, inputs, previous, outputs resource.PropertyMap) error {
	known := withoutUnknowns(inputs)
	var in hostInputs
	if err := decode(known, &in); err != nil || !in.Own || in.Address == "" {
		return nil // what is wrong with inputs is told by check
	}
	var old hostInputs
	if previous != nil {
		_ = decode(withoutUnknowns(previous), &old) // what does not fit is not there
		places := len(in.Files)
		for name := range in.Files {
			if _, ok := old.Files[name]; ok {
				places--
			}
		}
		if places == 0 {
			return nil
		}
	}
	redact := provision.NewRedactor(in.Secrets)
	conn, err := c.reach(ctx, in.target(), old.target())
	if err == nil {
		defer conn.Close()
		var actual *provision.Actual
		if actual, err = conn.Inspect(ctx, in.Host); err == nil {
			found := foundOutputs(in, known, old, actual)
			outputs[foundProperty] = resource.NewObjectProperty(found)
			if names := foreignFiles(found); len(names) > 0 {
				// For plain pulumi, which does not show what is found.
				c.log(pulumirpc.LogSeverity_INFO, urn, "files that are there already are taken over, and copies are kept: "+strings.Join(names, ", "), false)
			}
			return nil
		}
	}
	if errors.Is(err, provision.ErrUnreachable) {
		if skipped(in.Name) {
			c.log(pulumirpc.LogSeverity_WARNING, urn, c.plain(err, redact).Error()+"; "+skipVariable+" is set, so the preview goes on without what is on it", false)
			return nil
		}
		err = fmt.Errorf("%w; to preview without looking at hosts that do not answer, set %s=1", err, skipVariable)
	}
	return c.plain(err, redact)
}

// foundOutputs are what a host has of a configuration that is new to it; of one
// that it has in part, only the files that old does not name.
func foundOutputs(in hostInputs, inputs resource.PropertyMap, old hostInputs, a *provision.Actual) resource.PropertyMap {
	out := actualOutputs(in, inputs, nil, a)
	files := resource.PropertyMap{}
	for name, f := range out["files"].ObjectValue() {
		if _, told := old.Files[string(name)]; told {
			continue
		}
		if !slices.Contains(a.Manifest, string(name)) {
			f.ObjectValue()["foreign"] = resource.NewBoolProperty(true)
		}
		files[name] = f
	}
	out["files"] = resource.NewObjectProperty(files)
	if old.Name != "" {
		return resource.PropertyMap{"files": out["files"]}
	}
	for _, key := range []resource.PropertyKey{"name", "values", "secrets"} {
		delete(out, key)
	}
	return out
}

// foreignFiles are the files among what was found that are not infractl's yet.
func foreignFiles(found resource.PropertyMap) []string {
	var names []string
	for _, name := range found["files"].ObjectValue().StableKeys() {
		if v := found["files"].ObjectValue()[name].ObjectValue()["foreign"]; v.IsBool() && v.BoolValue() {
			names = append(names, string(name))
		}
	}
	return names
}

// withoutUnknowns drops what only the run itself will know.
func withoutUnknowns(m resource.PropertyMap) resource.PropertyMap {
	out := resource.PropertyMap{}
	for key, v := range m {
		plain, known := reveal(v)
		switch {
		case !known:
		case plain.IsObject():
			out[key] = resource.NewObjectProperty(withoutUnknowns(plain.ObjectValue()))
		case !plain.ContainsUnknowns():
			out[key] = plain
		}
	}
	return out
}
