//go:build lab

package main

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pulumi/pulumi/sdk/v3/go/auto"
	"github.com/pulumi/pulumi/sdk/v3/go/auto/optpreview"
	"github.com/pulumi/pulumi/sdk/v3/go/common/tokens"
	"github.com/pulumi/pulumi/sdk/v3/go/common/workspace"
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"

	"github.com/infractl/infractl/provision"
)

// These tests run the plugin that bin/ holds under the real engine against a
// real machine: INFRACTL_TEST_TARGET holds its provision.Target as JSON,
// INFRACTL_SSH_IDENTITY names the key that it lets in.

type generated struct {
	pulumi.CustomResourceState
	Value       pulumi.StringOutput `pulumi:"value"`
	Certificate pulumi.StringOutput `pulumi:"certificate"`
	PrivateKey  pulumi.StringOutput `pulumi:"privateKey"`
	PublicKey   pulumi.StringOutput `pulumi:"publicKey"`
}

func labTarget(t *testing.T) provision.Target {
	t.Helper()
	var target provision.Target
	text := os.Getenv("INFRACTL_TEST_TARGET")
	if text == "" {
		t.Skip("INFRACTL_TEST_TARGET is not set")
	}
	if err := json.Unmarshal([]byte(text), &target); err != nil {
		t.Fatal(err)
	}
	return target
}

// newStack makes a stack with the program, with all state below a directory.
func newStack(t *testing.T, state string, program pulumi.RunFunc) auto.Stack {
	t.Helper()
	bin, err := filepath.Abs("../../bin")
	if err != nil {
		t.Fatal(err)
	}
	// The library looks for the CLI on the PATH of this process.
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	project := workspace.Project{
		Name:    tokens.PackageName("plugintest"),
		Runtime: workspace.NewProjectRuntimeInfo("go", nil),
		Plugins: &workspace.Plugins{Providers: []workspace.PluginOptions{{Name: "infractl", Path: bin}}},
	}
	stack, err := auto.UpsertStackInlineSource(t.Context(), "lab", "plugintest", program,
		auto.Project(project), auto.PulumiHome(filepath.Join(state, "home")), auto.WorkDir(t.TempDir()),
		auto.EnvVars(map[string]string{
			"PULUMI_BACKEND_URL": "file://" + state, "PULUMI_CONFIG_PASSPHRASE": "test", "PULUMI_SKIP_UPDATE_CHECK": "true",
			"PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
		}))
	if err != nil {
		t.Fatal(err)
	}
	return stack
}

// content is what varies between the runs of a program.
type content struct{ text, health string }

// site is a program for one host.
func site(target provision.Target, what *content) pulumi.RunFunc {
	return func(ctx *pulumi.Context) error {
		var word, authority, certificate, key generated
		if err := ctx.RegisterResource("infractl:secret:Password", "word", pulumi.Map{}, &word); err != nil {
			return err
		}
		if err := ctx.RegisterResource("infractl:secret:HostKey", "key", pulumi.Map{}, &key); err != nil {
			return err
		}
		if err := ctx.RegisterResource("infractl:secret:Authority", "ca", pulumi.Map{"commonName": pulumi.String("test")}, &authority); err != nil {
			return err
		}
		if err := ctx.RegisterResource("infractl:secret:Certificate", "cert", pulumi.Map{
			"commonName": pulumi.String("db-1"), "addresses": pulumi.ToStringArray([]string{"10.0.4.11", "db-1"}),
			"authorityCertificate": authority.Certificate, "authorityKey": authority.PrivateKey,
		}, &certificate); err != nil {
			return err
		}
		var host pulumi.CustomResourceState
		return ctx.RegisterResource("infractl:host:Configuration", target.Name, pulumi.Map{
			"name": pulumi.String(target.Name), "address": pulumi.String(target.Address), "user": pulumi.String(target.User),
			"hostKey":  pulumi.String(target.HostKey),
			"packages": pulumi.ToStringArray([]string{"haproxy"}),
			"files": pulumi.Map{
				"/etc/plugintest/a.conf":                 pulumi.Map{"content": pulumi.String(what.text)},
				"/etc/plugintest/secret":                 pulumi.Map{"content": pulumi.String("word=@@secret.word@@\nkey=@@secret.key@@"), "mode": pulumi.String("0600")},
				"/etc/plugintest/cert":                   pulumi.Map{"content": certificate.Certificate},
				"/etc/systemd/system/plugintest.service": pulumi.Map{"content": pulumi.String("[Service]\nExecStart=sleep infinity\nExecReload=true\n")},
				"/etc/plugintest/link":                   pulumi.Map{"link": pulumi.String("a.conf")},
			},
			"units": pulumi.Array{pulumi.Map{
				"name": pulumi.String("plugintest.service"), "active": pulumi.Bool(true),
				"reloadOn": pulumi.ToStringArray([]string{"/etc/plugintest/"}),
				"health":   pulumi.String(what.health), "healthTimeout": pulumi.Int(1),
			}},
			"values":  pulumi.Map{"colour": pulumi.String("blue")},
			"secrets": pulumi.Map{"word": word.Value, "key": certificate.PrivateKey},
		}, &host)
	}
}

func TestEngineShowsDriftAndPutsItBack(t *testing.T) {
	target := labTarget(t)
	what := content{text: "first\ncolour=@@value.colour@@\nlast\n", health: "true"}
	state := t.TempDir()
	stack := newStack(t, state, site(target, &what))
	if p, err := stack.Preview(t.Context()); err != nil {
		t.Fatal(err)
	} else if p.ChangeSummary["create"] != 6 {
		t.Errorf("preview: %v\n%s", p.ChangeSummary, p.StdOut)
	}
	up, err := stack.Up(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Log(up.StdOut)
	p, err := stack.Preview(t.Context(), optpreview.Diff())
	if err != nil {
		t.Fatal(err)
	}
	if len(p.ChangeSummary) != 1 || p.ChangeSummary["same"] != 6 {
		t.Errorf("second preview: %v\n%s", p.ChangeSummary, p.StdOut)
	}

	// Someone edits the file on the host, behind infractl's back.
	onHost(t, target, "sed -i 's/^last/changed by hand/' /etc/plugintest/a.conf; chmod 0644 /etc/plugintest/secret")
	p, err = stack.Preview(t.Context(), optpreview.Diff())
	if err != nil {
		t.Fatal(err)
	}
	t.Log(p.StdOut)
	for _, want := range []string{"changed by hand", "last", "0600"} {
		if !strings.Contains(p.StdOut, want) {
			t.Errorf("the preview does not show %q", want)
		}
	}
	if _, err := stack.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := onHost(t, target, "cat /etc/plugintest/a.conf; stat -c %a /etc/plugintest/secret"); got != "first\ncolour=blue\nlast\n600" {
		t.Errorf("after up: %q", got)
	}

	// No secret may be in the state in plaintext, nor anything of a private key.
	word := strings.TrimPrefix(onHost(t, target, "sed -n 's/^word=//p' /etc/plugintest/secret"), "word=")
	stored, err := os.ReadFile(filepath.Join(state, ".pulumi", "stacks", "plugintest", "lab.json"))
	if err != nil {
		t.Fatal(err)
	}
	if len(word) != 32 || strings.Contains(string(stored), word) || strings.Contains(string(stored), "PRIVATE KEY") {
		t.Errorf("the state holds a secret, or the secret is odd: %q", word)
	}

	// A change that fails is taken back, and what is stored is what is there.
	what.text, what.health = "third\n", "! grep third /etc/plugintest/a.conf"
	if _, err := stack.Up(t.Context()); err == nil || !strings.Contains(err.Error(), "the previous state was put back") {
		t.Fatalf("up with a failing health check: %v", err)
	}
	deployment, err := stack.Export(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if outputs := hostOutputs(t, deployment.Deployment); !strings.Contains(outputs, "last") || strings.Contains(outputs, `"third`) {
		t.Errorf("stored after a failed up: %s", outputs)
	}
	what.health = "true"
	if _, err := stack.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := onHost(t, target, "cat /etc/plugintest/a.conf"); got != "third" {
		t.Errorf("after the repaired up: %q", got)
	}

	if _, err := stack.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := onHost(t, target, "ls /etc/plugintest; systemctl is-active plugintest"); got != "inactive" {
		t.Errorf("after destroy: %q", got)
	}
}

// hostOutputs are the outputs of the host in a state.
func hostOutputs(t *testing.T, deployment json.RawMessage) string {
	t.Helper()
	var state struct {
		Resources []struct {
			Type    string          `json:"type"`
			Outputs json.RawMessage `json:"outputs"`
		} `json:"resources"`
	}
	if err := json.Unmarshal(deployment, &state); err != nil {
		t.Fatal(err)
	}
	for _, r := range state.Resources {
		if r.Type == "infractl:host:Configuration" {
			return string(r.Outputs)
		}
	}
	t.Fatal("the state has no host")
	return ""
}

// onHost runs a command on the machine as root.
func onHost(t *testing.T, target provision.Target, command string) string {
	t.Helper()
	known := filepath.Join(t.TempDir(), "known_hosts")
	if err := os.WriteFile(known, []byte(target.Address+" "+target.HostKey+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ssh := exec.Command("ssh", "-F", "none", "-o", "UserKnownHostsFile="+known, "-i", os.Getenv("INFRACTL_SSH_IDENTITY"), target.User+"@"+target.Address, "sudo sh")
	ssh.Stdin = strings.NewReader(command)
	out, err := ssh.Output()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() == 255) {
		t.Fatalf("%s: %v", command, err)
	}
	return strings.TrimSpace(string(out))
}
