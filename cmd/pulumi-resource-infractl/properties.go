package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"
	"github.com/pulumi/pulumi/sdk/v3/go/common/util/rpcutil/rpcerror"
	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
	"google.golang.org/grpc/codes"
)

// reveal takes a value out of its wrappings as a secret or an output. It says
// false if the value is not known yet, as in a preview.
func reveal(v resource.PropertyValue) (resource.PropertyValue, bool) {
	for {
		switch {
		case v.IsSecret():
			v = v.SecretValue().Element
		case v.IsOutput():
			if !v.OutputValue().Known {
				return v, false
			}
			v = v.OutputValue().Element
		case v.IsComputed():
			return v, false
		default:
			return v, true
		}
	}
}

// unknown is a value that only the real run will know.
func unknown() resource.PropertyValue {
	return resource.MakeComputed(resource.NewStringProperty(""))
}

// secret marks a value as secret.
func secret(v resource.PropertyValue) resource.PropertyValue {
	if v.IsSecret() {
		return v
	}
	return resource.MakeSecret(v)
}

// decode fills the struct that into points to from properties, by JSON names.
// All properties must be known.
func decode(properties resource.PropertyMap, into any) error {
	if resource.NewObjectProperty(properties).ContainsUnknowns() {
		return fmt.Errorf("some properties are not known yet")
	}
	plain, err := plainValue(resource.NewObjectProperty(properties))
	if err != nil {
		return err
	}
	text, err := json.Marshal(plain)
	if err != nil {
		return err
	}
	return json.NewDecoder(bytes.NewReader(text)).Decode(into)
}

func plainValue(v resource.PropertyValue) (any, error) {
	v, known := reveal(v)
	switch {
	case !known:
		return nil, fmt.Errorf("a property is not known yet")
	case v.IsObject():
		object := map[string]any{}
		for key, element := range v.ObjectValue() {
			plain, err := plainValue(element)
			if err != nil {
				return nil, err
			}
			object[string(key)] = plain
		}
		return object, nil
	case v.IsArray():
		array := []any{}
		for _, element := range v.ArrayValue() {
			plain, err := plainValue(element)
			if err != nil {
				return nil, err
			}
			array = append(array, plain)
		}
		return array, nil
	case v.IsNull(), v.IsBool(), v.IsNumber(), v.IsString():
		return v.V, nil
	}
	return nil, fmt.Errorf("a property is of an unexpected type: %s", v.TypeString())
}

// compare adds to changes where two values differ, by property path. Values
// that are not known yet differ.
func compare(path resource.PropertyPath, old, new resource.PropertyValue, changes map[string]plugin.PropertyDiff) {
	old, oldKnown := reveal(old)
	new, newKnown := reveal(new)
	path = slices.Clip(path)
	switch {
	case !oldKnown || !newKnown:
		changes[path.String()] = plugin.PropertyDiff{Kind: plugin.DiffUpdate}
	case old.IsNull() && new.IsNull():
	case old.IsNull():
		changes[path.String()] = plugin.PropertyDiff{Kind: plugin.DiffAdd}
	case new.IsNull():
		changes[path.String()] = plugin.PropertyDiff{Kind: plugin.DiffDelete}
	case old.IsObject() && new.IsObject():
		x, y := old.ObjectValue(), new.ObjectValue()
		for _, key := range keys(x, y) {
			compare(append(path, string(key)), x[key], y[key], changes)
		}
	case old.IsArray() && new.IsArray():
		x, y := old.ArrayValue(), new.ArrayValue()
		for i := range max(len(x), len(y)) {
			var a, b resource.PropertyValue
			if i < len(x) {
				a = x[i]
			}
			if i < len(y) {
				b = y[i]
			}
			compare(append(path, i), a, b, changes)
		}
	case !old.DeepEquals(new):
		changes[path.String()] = plugin.PropertyDiff{Kind: plugin.DiffUpdate}
	}
}

// keys are the keys of both maps, sorted.
func keys(a, b resource.PropertyMap) []resource.PropertyKey {
	all := append(slices.Collect(maps.Keys(a)), slices.Collect(maps.Keys(b))...)
	slices.Sort(all)
	return slices.Compact(all)
}

// result makes of changes the answer to Diff.
func result(changes map[string]plugin.PropertyDiff) plugin.DiffResult {
	if len(changes) == 0 {
		return plugin.DiffResult{Changes: plugin.DiffNone}
	}
	// The engine's one-line summary names the properties, its long form the paths.
	var changed []resource.PropertyKey
	for text := range changes {
		if path, err := resource.ParsePropertyPath(text); err == nil && len(path) > 0 {
			if key, ok := path[0].(string); ok {
				changed = append(changed, resource.PropertyKey(key))
			}
		}
	}
	slices.Sort(changed)
	return plugin.DiffResult{Changes: plugin.DiffSome, ChangedKeys: slices.Compact(changed), DetailedDiff: changes}
}

// partial is the error for a resource that exists but is not as desired. The
// engine stores outputs, which say how it really is, and goes on with an update
// next time.
func partial(id string, inputs, outputs resource.PropertyMap, reason error) error {
	options := plugin.MarshalOptions{KeepUnknowns: true, KeepSecrets: true, KeepResources: true}
	state, err := plugin.MarshalProperties(outputs, options)
	if err != nil {
		return reason
	}
	wished, err := plugin.MarshalProperties(inputs, options)
	if err != nil {
		return reason
	}
	return rpcerror.WithDetails(rpcerror.New(codes.Unknown, reason.Error()), &pulumirpc.ErrorResourceInitFailed{
		Id: id, Properties: state, Inputs: wished, Reasons: []string{reason.Error()}, RefreshBeforeUpdate: true,
	})
}
