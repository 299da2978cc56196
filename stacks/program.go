package stacks

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"
	"go.yaml.in/yaml/v3"
)

// Environment variables that the program reads.
const (
	// VIPTokenVariable holds the cloud token that the load balancers use to
	// claim the virtual IP. It must not be the operator's.
	VIPTokenVariable = "INFRACTL_VIP_TOKEN"
	// IdentityVariable names the operator's private key file; the public key
	// beside it is authorized where the configuration names no key.
	IdentityVariable = "INFRACTL_SSH_IDENTITY"
	// EndpointVariable is the address of the cloud's API, the provider's own variable.
	EndpointVariable = "HCLOUD_ENDPOINT"
	// DefaultEndpoint is used where EndpointVariable is not set.
	DefaultEndpoint = "https://api.hetzner.cloud/v1"
)

// Options is what the caller of the program knows and the configuration does
// not say. The zero value is right for a program that Pulumi runs by itself.
type Options struct {
	// Dir is the project's directory; empty means what Pulumi says.
	Dir string
	// ConfigKeys are the keys of the stack's configuration, so that unknown
	// ones can be found. Empty means those that Pulumi put into the environment.
	ConfigKeys []string
	// NewHosts are short names of hosts that are not configured yet. Nobody uses
	// them, so that they need not wait for the others of their tier, nor the
	// others for them. Empty is always right, and slower.
	NewHosts map[string]bool
	// VIPHolder tells the short name of the load balancer that holds the virtual
	// IP, which is changed last; nothing if nobody does. It may be nil, and is not
	// asked in previews.
	VIPHolder func() string
}

// Program is the Pulumi program, as plain `pulumi up` runs it.
func Program(ctx *pulumi.Context) error {
	return New(Options{})(ctx)
}

// New returns the Pulumi program for a caller that knows more than Pulumi.
func New(o Options) pulumi.RunFunc {
	return func(ctx *pulumi.Context) error {
		if o.Dir == "" {
			o.Dir = ctx.RootDirectory()
		}
		if o.Dir == "" {
			dir, err := os.Getwd()
			if err != nil {
				return err
			}
			o.Dir = dir
		}
		if err := checkPlugin(o.Dir); err != nil {
			return err
		}
		keys := o.ConfigKeys
		if len(keys) == 0 {
			keys = environmentKeys(os.Getenv(pulumi.EnvConfig))
		}
		raw := readConfig(ctx, keys)
		decode, err := OperatorOptions(ctx.Stack(), o.Dir)
		if err != nil {
			return err
		}
		env, err := Decode(raw, decode)
		if err != nil {
			return err
		}
		return deploy(ctx, env, o)
	}
}

// OperatorOptions are the options of Decode that come from the operator's computer.
func OperatorOptions(stack, dir string) (DecodeOptions, error) {
	o := DecodeOptions{Name: stack, Dir: dir}
	identity := os.Getenv(IdentityVariable)
	if identity == "" {
		return o, nil
	}
	if _, err := os.Stat(identity); err != nil {
		return o, fmt.Errorf("%s must name a private key file: %w", IdentityVariable, err)
	}
	public, err := os.ReadFile(identity + ".pub")
	if errors.Is(err, os.ErrNotExist) {
		return o, nil
	}
	if err != nil {
		return o, fmt.Errorf("%s: cannot read the public key: %w", IdentityVariable, err)
	}
	for _, line := range strings.Split(string(public), "\n") {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			o.AuthorizedKeys = append(o.AuthorizedKeys, line)
		}
	}
	return o, nil
}

// environmentKeys are the keys in the JSON object that Pulumi puts into the
// environment of a program that it runs by itself.
func environmentKeys(text string) []string {
	var m map[string]string
	if json.Unmarshal([]byte(text), &m) != nil {
		return nil
	}
	return sortedKeys(m)
}

// readConfig reads all keys of the namespace: those that exist as far as is
// known, and those that the program knows.
func readConfig(ctx *pulumi.Context, existing []string) map[string]string {
	raw := map[string]string{}
	for _, k := range append(ConfigKeys(), existing...) {
		if !strings.HasPrefix(k, namespace) {
			continue
		}
		if v, ok := ctx.GetConfig(k); ok {
			raw[k] = v
		}
	}
	return raw
}

// checkPlugin says which command to run when the plugin was not built. Pulumi
// itself would only say that it cannot download it.
func checkPlugin(dir string) error {
	for _, p := range strings.Split(os.Getenv("PULUMI_DEBUG_PROVIDERS"), ",") {
		if strings.HasPrefix(p, "infractl:") {
			return nil
		}
	}
	plugin := pluginDir(dir)
	if plugin == "" {
		return nil // the plugin is found in another way
	}
	if _, err := os.Stat(filepath.Join(plugin, "pulumi-resource-infractl")); err != nil {
		return fmt.Errorf("the plugin pulumi-resource-infractl was not built yet (looked in %s); run ./scripts/build first", plugin)
	}
	return nil
}

// pluginDir is where the project says that the plugin is; empty if it does not.
func pluginDir(dir string) string {
	text, err := os.ReadFile(filepath.Join(dir, "Pulumi.yaml"))
	if err != nil {
		return ""
	}
	var project struct {
		Plugins struct {
			Providers []struct {
				Name string `yaml:"name"`
				Path string `yaml:"path"`
			} `yaml:"providers"`
		} `yaml:"plugins"`
	}
	if yaml.Unmarshal(text, &project) != nil {
		return "" // Pulumi itself has read it and would have complained
	}
	for _, p := range project.Plugins.Providers {
		if p.Name == "infractl" && p.Path != "" {
			if filepath.IsAbs(p.Path) {
				return p.Path
			}
			return filepath.Join(dir, p.Path)
		}
	}
	return ""
}
