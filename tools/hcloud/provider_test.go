package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// schemaOf returns the schema as a program's author sees it, cut down to what
// the tests look at.
func schemaOf(t *testing.T) (schema struct {
	Name      string
	Version   string
	Config    struct{ Variables map[string]property }
	Resources map[string]struct {
		InputProperties map[string]property
		Properties      map[string]property
	}
	Types map[string]struct{ Properties map[string]property }
}) {
	t.Helper()
	info, err := provider(context.Background(), "1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	raw, err := packageSchema(info)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &schema); err != nil {
		t.Fatal(err)
	}
	return schema
}

type property struct {
	Type   string
	Ref    string `json:"$ref"`
	Secret bool
	Items  *property
}

func TestEveryResourceOfAnEnvironmentIsServed(t *testing.T) {
	schema := schemaOf(t)
	if schema.Name != "hcloud" || schema.Version != "1.2.3" {
		t.Errorf("the plugin says it is %s %s", schema.Name, schema.Version)
	}
	for _, token := range []string{
		"hcloud:index/firewall:Firewall",
		"hcloud:index/firewallAttachment:FirewallAttachment",
		"hcloud:index/floatingIp:FloatingIp",
		"hcloud:index/floatingIpAssignment:FloatingIpAssignment",
		"hcloud:index/network:Network",
		"hcloud:index/networkSubnet:NetworkSubnet",
		"hcloud:index/networkRoute:NetworkRoute",
		"hcloud:index/placementGroup:PlacementGroup",
		"hcloud:index/primaryIp:PrimaryIp",
		"hcloud:index/rdns:Rdns",
		"hcloud:index/server:Server",
		"hcloud:index/serverNetwork:ServerNetwork",
		"hcloud:index/sshKey:SshKey",
		"hcloud:index/volume:Volume",
		"hcloud:index/volumeAttachment:VolumeAttachment",
	} {
		if _, ok := schema.Resources[token]; !ok {
			t.Errorf("%s is missing", token)
		}
	}
}

func TestServerTakesWhatTheSDKSends(t *testing.T) {
	schema := schemaOf(t)
	server := schema.Resources["hcloud:index/server:Server"].InputProperties
	for name, want := range map[string]string{
		"name": "string", "serverType": "string", "image": "string", "location": "string",
		"userData": "string", "sshKeys": "array", "labels": "object", "firewallIds": "array",
		"placementGroupId": "integer", "publicNets": "array", "networks": "array",
		"deleteProtection": "boolean", "rebuildProtection": "boolean",
		"shutdownBeforeDeletion": "boolean", "keepDisk": "boolean", "backups": "boolean",
	} {
		if got := server[name].Type; got != want {
			t.Errorf("Server.%s is %q, the SDK sends %s", name, got, want)
		}
	}
	if items := server["firewallIds"].Items; items == nil || items.Type != "integer" {
		t.Errorf("Server.firewallIds has items %+v, the SDK sends integers", items)
	}
	publicNet := schema.Types["hcloud:index/ServerPublicNet:ServerPublicNet"].Properties
	var names []string
	for name := range publicNet {
		names = append(names, name)
	}
	slices.Sort(names)
	if want := []string{"ipv4", "ipv4Enabled", "ipv6", "ipv6Enabled"}; !slices.Equal(names, want) {
		t.Errorf("ServerPublicNet has %v, the SDK sends %v", names, want)
	}
}

func TestTokenIsSecretConfiguration(t *testing.T) {
	if !schemaOf(t).Config.Variables["token"].Secret {
		t.Error("hcloud:token would be stored in plaintext")
	}
}

func TestTheProjectAroundTheWorkingDirectoryDoesNotMatter(t *testing.T) {
	folder := t.TempDir()
	project := "name: p\nruntime: go\nplugins:\n  providers:\n    - name: hcloud\n      path: no/such/folder\n"
	if err := os.WriteFile(filepath.Join(folder, "Pulumi.yaml"), []byte(project), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Chdir(folder)
	schemaOf(t)
}
