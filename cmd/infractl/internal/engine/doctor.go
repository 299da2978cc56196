package engine

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/infractl/infractl/stacks"
)

// Check is one thing that doctor has looked at.
type Check struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	// Needed says that up cannot work without it.
	Needed bool `json:"needed"`
	// Detail is what was found.
	Detail string `json:"detail"`
	// Remedy is what to do if it is not OK.
	Remedy string `json:"remedy,omitempty"`
}

// checked makes a check of an error.
func checked(name, detail string, err error) Check {
	c := Check{Name: name, OK: err == nil, Needed: true, Detail: detail}
	if err != nil {
		c.Detail = err.Error()
		var own *Error
		if errors.As(err, &own) {
			c.Detail, c.Remedy = own.Err.Error(), own.Advice
		}
		c.Detail = strings.ReplaceAll(c.Detail, "\n", "; ")
	}
	return c
}

// Diagnose looks at everything that up needs on this computer, without
// stopping at what is missing.
func Diagnose(ctx context.Context, dir, environment, version string) []Check {
	var checks []Check
	project, projectErr := FindProject(dir)
	checks = append(checks, checked("project", project.Dir, projectErr))

	path, err := exec.LookPath("go")
	goCheck := checked("Go", path, err)
	goCheck.Needed = false
	if err != nil {
		goCheck.Detail, goCheck.Remedy = "not on PATH; only needed to build", "install Go from go.dev or your distribution"
	}
	checks = append(checks, goCheck)

	built := builtDirs(project)
	pulumi, err := findPulumi(ctx, built, nil)
	detail := ""
	if err == nil {
		detail = pulumi.path + ", version " + pulumi.version.String()
		_, err = saidVersion(ctx, pulumi.path) // it has to run, too
	}
	checks = append(checks, checked("Pulumi CLI", detail, err))
	plugin, err := findPlugin(built)
	checks = append(checks, checked("plugin infractl", filepath.Join(plugin, "pulumi-resource-infractl"), err))
	hcloud := Check{Name: "plugin hcloud", OK: true, Needed: true, Detail: "will be downloaded by Pulumi"}
	if p, _ := findHcloud(built); p != "" {
		hcloud.Detail = p
	}
	checks = append(checks, hcloud)
	if projectErr != nil {
		return checks
	}

	name, err := project.Choose(environment)
	checks = append(checks, checked("environment", name, err))
	if err != nil {
		return checks
	}
	credentials := ".env." + name
	if _, err := os.Stat(filepath.Join(project.Dir, credentials)); err != nil {
		credentials = "none; the variables have to be set in the process's environment"
	}
	checks = append(checks, checked("credentials file", credentials, LoadVariables(project, name)))
	id, err := FindIdentity()
	checks = append(checks, checked("SSH identity", id.Source, err))

	var spec stacks.Environment
	config, err := project.ReadConfig(name)
	if err == nil {
		var o stacks.DecodeOptions
		if o, err = stacks.OperatorOptions(name, project.Dir); err == nil {
			spec, err = stacks.Decode(config.Values, o)
		}
	}
	checks = append(checks, checked("configuration", config.File, err))
	if err == nil {
		checks = append(checks, checked("load balancers' token", "set, and not the operator's", checkTokens(spec)))
	}
	where := backend(project)
	state := Check{Name: "place of the state", OK: where != "", Needed: true, Detail: where}
	if where == "" {
		state.Detail, state.Remedy = "none was chosen", "set PULUMI_BACKEND_URL, such as file:///var/lib/infractl, or run: pulumi login"
	}
	checks = append(checks, state)
	if where != "" && !hosted(where) {
		_, file := os.LookupEnv("PULUMI_CONFIG_PASSPHRASE_FILE")
		_, set := os.LookupEnv("PULUMI_CONFIG_PASSPHRASE")
		c := Check{Name: "passphrase", OK: set || file, Needed: true, Detail: "set"}
		if !c.OK {
			c.Detail, c.Remedy = "not set", "set PULUMI_CONFIG_PASSPHRASE or PULUMI_CONFIG_PASSPHRASE_FILE; it encrypts the secrets in the state"
		}
		checks = append(checks, c)
	}
	cloud, err := newCloud(version, stacks.Environment{})
	detail = ""
	if err == nil {
		detail = cloud.endpoint
		_, err = cloud.catalog(ctx)
	}
	return append(checks, checked("cloud", detail, err))
}
