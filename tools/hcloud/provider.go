package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"

	"github.com/hetznercloud/terraform-provider-hcloud/hcloud"
	pfbridge "github.com/pulumi/pulumi-terraform-bridge/v3/pkg/pf/tfbridge"
	"github.com/pulumi/pulumi-terraform-bridge/v3/pkg/tfbridge"
	"github.com/pulumi/pulumi-terraform-bridge/v3/pkg/tfbridge/info"
	"github.com/pulumi/pulumi-terraform-bridge/v3/pkg/tfbridge/tokens"
	"github.com/pulumi/pulumi-terraform-bridge/v3/pkg/tfgen"
	shimv2 "github.com/pulumi/pulumi-terraform-bridge/v3/pkg/tfshim/sdk-v2"
	"github.com/pulumi/pulumi-terraform-bridge/v3/pkg/x/muxer"
	"github.com/pulumi/pulumi-terraform-bridge/v3/unstable/metadata"
	"github.com/pulumi/pulumi/sdk/v3/go/common/diag"
	"github.com/pulumi/pulumi/sdk/v3/go/common/diag/colors"
)

// terraformModule is the module whose resources are bridged.
const terraformModule = "github.com/hetznercloud/terraform-provider-hcloud"

// longestName is the longest name that is generated for a resource without
// one; the API accepts host names, which end at 253 characters (RFC 1035).
const longestName = 253

// provider describes the bridged provider: one half of it is written with
// Terraform's older plugin SDK, the other with its Plugin Framework. version is
// what the plugin says of itself.
func provider(ctx context.Context, version string) (info.Provider, error) {
	// The User-Agent header of API requests carries it.
	hcloud.Version = strings.TrimPrefix(moduleVersion(terraformModule), "v")

	p := info.Provider{
		P: pfbridge.MuxShimWithPF(ctx,
			shimv2.NewProvider(hcloud.Provider()),
			hcloud.NewPluginProvider()),
		Name:         "hcloud",
		DisplayName:  "Hetzner Cloud",
		GitHubOrg:    "hetznercloud",
		Version:      version,
		MetadataInfo: tfbridge.NewProviderMetadata(nil),
		// Without this the token would be stored in plaintext by whoever gives
		// it as configuration rather than through the environment.
		Config: map[string]*info.Schema{"token": {Secret: tfbridge.True()}},
	}
	if err := p.ComputeTokens(tokens.SingleModule("hcloud_", "index", tokens.MakeStandard(p.Name))); err != nil {
		return info.Provider{}, fmt.Errorf("name the resources: %w", err)
	}
	p.SetAutonaming(longestName, "-")

	// Which half serves which resource is normally read from a file that was
	// generated before the build. The halves know it themselves.
	halves, ok := p.P.(interface {
		ResolveDispatch(*info.Provider) (muxer.DispatchTable, error)
	})
	if !ok {
		return info.Provider{}, fmt.Errorf("assign resources to the provider's halves: %T cannot tell them apart", p.P)
	}
	table, err := halves.ResolveDispatch(&p)
	if err != nil {
		return info.Provider{}, fmt.Errorf("assign resources to the provider's halves: %w", err)
	}
	if err := metadata.Set(p.GetMetadata(), "mux", table); err != nil {
		return info.Provider{}, fmt.Errorf("assign resources to the provider's halves: %w", err)
	}
	return p, nil
}

// packageSchema derives the Pulumi schema from the provider's own. It takes
// about a tenth of a second, so it is done at each start rather than kept as a
// generated file that could fall behind.
func packageSchema(p info.Provider) (schema []byte, err error) {
	// The generator prepares to load plugins for examples in documentation,
	// of which there are none here, and for that reads the Pulumi project
	// around the working directory. That one is the user's, and whatever it
	// says of plugins must not matter, so the generator works where none is.
	directory, err := os.Getwd()
	if err != nil {
		return nil, fmt.Errorf("derive the schema: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return nil, fmt.Errorf("derive the schema: %w", err)
	}
	defer func() {
		if back := os.Chdir(directory); back != nil {
			err = errors.Join(err, fmt.Errorf("return to the working directory: %w", back))
		}
	}()
	generated, err := tfgen.GenerateSchemaWithOptions(tfgen.GenerateSchemaOptions{
		ProviderInfo: p,
		// It remarks on missing documentation; what matters it returns.
		DiagnosticsSink: diag.DefaultSink(io.Discard, io.Discard, diag.FormatOptions{Color: colors.Never}),
		XInMemoryDocs:   true,
	})
	if err != nil {
		return nil, fmt.Errorf("derive the schema: %w", err)
	}
	schema, err = json.Marshal(generated.PackageSpec)
	if err != nil {
		return nil, fmt.Errorf("encode the schema: %w", err)
	}
	return schema, nil
}

// moduleVersion returns the version of a module in this binary, or "unknown".
func moduleVersion(path string) string {
	if build, ok := debug.ReadBuildInfo(); ok {
		for _, module := range build.Deps {
			if module.Path == path {
				return module.Version
			}
		}
	}
	return "unknown"
}
