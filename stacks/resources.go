package stacks

import (
	"encoding/json"
	"fmt"

	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"

	"github.com/infractl/infractl/provision/desired"
)

// Types of the resources that the plugin pulumi-resource-infractl serves.
const (
	typeConfiguration = "infractl:host:Configuration"
	typeHostKey       = "infractl:secret:HostKey"
	typePassword      = "infractl:secret:Password"
	typeAuthority     = "infractl:secret:Authority"
	typeCertificate   = "infractl:secret:Certificate"
	typeTier          = "infractl:tier:"
)

// configuration is what infractl keeps on one host.
type configuration struct {
	pulumi.CustomResourceState
}

// hostKey is the SSH host key of a server, made before the server.
type hostKey struct {
	pulumi.CustomResourceState
	PublicKey  pulumi.StringOutput `pulumi:"publicKey"`
	PrivateKey pulumi.StringOutput `pulumi:"privateKey"`
}

// password is a random password of letters and digits.
type password struct {
	pulumi.CustomResourceState
	Value pulumi.StringOutput `pulumi:"value"`
}

// authority signs certificates inside the environment.
type authority struct {
	pulumi.CustomResourceState
	Certificate pulumi.StringOutput `pulumi:"certificate"`
	PrivateKey  pulumi.StringOutput `pulumi:"privateKey"`
}

// certificate is a TLS server certificate with its key.
type certificate struct {
	pulumi.CustomResourceState
	Certificate pulumi.StringOutput `pulumi:"certificate"`
	PrivateKey  pulumi.StringOutput `pulumi:"privateKey"`
}

// tier groups the resources of a tier's hosts.
type tier struct {
	pulumi.ResourceState
}

// secretOutput keeps a value out of plaintext even if a plugin forgot to mark it.
func secretOutput(o pulumi.StringOutput) pulumi.StringOutput {
	return pulumi.ToSecret(o).(pulumi.StringOutput)
}

// properties turns a host's description into the properties of its
// Configuration resource, by way of JSON, so that both have the same names.
func properties(h desired.Host) (pulumi.Map, error) {
	text, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	var generic map[string]any
	if err := json.Unmarshal(text, &generic); err != nil {
		return nil, err
	}
	props := pulumi.Map{}
	for k, v := range generic {
		if props[k], err = input(v); err != nil {
			return nil, fmt.Errorf("%s: %w", k, err)
		}
	}
	return props, nil
}

func input(v any) (pulumi.Input, error) {
	switch v := v.(type) {
	case string:
		return pulumi.String(v), nil
	case bool:
		return pulumi.Bool(v), nil
	case float64:
		return pulumi.Float64(v), nil
	case []any:
		list := make(pulumi.Array, len(v))
		for i, e := range v {
			in, err := input(e)
			if err != nil {
				return nil, err
			}
			list[i] = in
		}
		return list, nil
	case map[string]any:
		m := make(pulumi.Map, len(v))
		for k, e := range v {
			in, err := input(e)
			if err != nil {
				return nil, err
			}
			m[k] = in
		}
		return m, nil
	}
	return nil, fmt.Errorf("a property cannot be %T", v)
}
