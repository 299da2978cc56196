package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"
	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"

	"github.com/infractl/infractl/provision"
	"github.com/infractl/infractl/provision/desired"
)

// skipVariable names the environment variable that makes hosts that do not
// answer keep the state that was seen last: all of them if it is 1, else those
// whose short names it has, with commas between them.
const skipVariable = "INFRACTL_SKIP_UNREACHABLE"

// skipped says whether a host that does not answer keeps its state.
func skipped(name string) bool {
	value := os.Getenv(skipVariable)
	return value == "1" || slices.Contains(strings.Split(value, ","), name)
}

// configuration is infractl:host:Configuration: everything that infractl keeps
// on one host. Its outputs have the shape of its inputs and say what is really
// on the host.
type configuration struct {
	log func(severity pulumirpc.LogSeverity, urn resource.URN, message string, ephemeral bool)
}

// hostInputs are the properties of a configuration.
type hostInputs struct {
	Name    string `json:"name"`
	Address string `json:"address"`
	Port    int    `json:"port"`
	User    string `json:"user"`
	HostKey string `json:"hostKey"`
	// Own, Jump and KnownHosts are for hosts that the user has anyway.
	Own bool `json:"own"`
	// Data says that nothing is removed from it when another server takes its place.
	Data       bool     `json:"data"`
	Jump       string   `json:"jump"`
	KnownHosts []string `json:"knownHosts"`
	desired.Host
}

func (h hostInputs) target() provision.Target {
	return provision.Target{
		Name: h.Name, Address: h.Address, Port: h.Port, User: h.User, HostKey: h.HostKey,
		Own: h.Own, Jump: h.Jump, KnownHosts: strings.Join(h.KnownHosts, "\n"),
	}
}

// create waits for the host to boot and makes it as desired.
func (c *configuration) create(ctx context.Context, req plugin.CreateRequest) (plugin.CreateResponse, error) {
	response := plugin.CreateResponse{RefreshBeforeUpdate: true, Properties: wishedOutputs(req.Properties)}
	if req.Preview {
		return response, c.foresee(ctx, req.URN, req.Properties, nil, response.Properties)
	}
	var in hostInputs
	if err := decode(req.Properties, &in); err != nil {
		return response, err
	}
	redact := provision.NewRedactor(in.Secrets)
	progress := c.progress(req.URN, redact)
	defer c.time(req.URN, in.Name, "create", time.Now())
	conn, err := provision.WaitReady(ctx, in.target(), provision.Wait{Timeout: bootTimeout(), Progress: progress})
	if err != nil {
		return response, c.plain(err, redact)
	}
	defer conn.Close()
	response.ID = resource.ID(in.Name)
	response.Properties, err = c.apply(ctx, req.URN, conn, in, req.Properties, nil, provision.Options{Progress: progress})
	return response, err
}

// update makes the host as desired. The host is looked for where the new
// inputs say, then where it was before: an update can move it.
func (c *configuration) update(ctx context.Context, req plugin.UpdateRequest) (plugin.UpdateResponse, error) {
	response := plugin.UpdateResponse{RefreshBeforeUpdate: true, Properties: wishedOutputs(req.NewInputs)}
	if req.Preview {
		return response, c.foresee(ctx, req.URN, req.NewInputs, req.OldOutputs, response.Properties)
	}
	var in hostInputs
	if err := decode(req.NewInputs, &in); err != nil {
		return response, err
	}
	var old hostInputs
	_ = decode(req.OldOutputs, &old) // only its address is used, as a second try
	secrets := map[string]string{}
	for name, value := range old.Secrets {
		secrets["old "+name] = value
	}
	for name, value := range in.Secrets {
		secrets[name] = value
	}
	redact := provision.NewRedactor(secrets)
	progress := c.progress(req.URN, redact)
	defer c.time(req.URN, in.Name, "update", time.Now())

	options := provision.Options{Progress: progress}
	conn, err := c.reach(ctx, in.target(), old.target())
	if errors.Is(err, provision.ErrUnreachable) {
		// A new server behind the same resource may still be booting.
		if in.target() != old.target() || initial(req.OldOutputs) {
			conn, err = provision.WaitReady(ctx, in.target(), provision.Wait{Timeout: bootTimeout(), Progress: progress})
		}
	}
	if err != nil {
		return response, c.plain(err, redact)
	}
	defer conn.Close()
	moved := conn.Target() != in.target()
	if moved {
		target := in.target()
		options.Confirm = &target
	}
	response.Properties, err = c.apply(ctx, req.URN, conn, in, req.NewInputs, req.OldOutputs, options)
	if err == nil && moved {
		// What is stored as the way to the host must be one that works.
		fresh, unreachable := provision.Connect(ctx, in.target())
		if unreachable != nil {
			return response, partial(in.Name, req.NewInputs, response.Properties,
				c.plain(fmt.Errorf("the host was changed, but is still to be found only at %s: %w", conn.Target().Address, unreachable), redact))
		}
		fresh.Close()
		setTarget(response.Properties, in.target())
	}
	return response, err
}

// setTarget writes into outputs how the host is reached. What the user's SSH
// configuration says is not written down, and so no change when it changes.
func setTarget(outputs resource.PropertyMap, t provision.Target) {
	set := func(key resource.PropertyKey, said bool, v resource.PropertyValue) {
		delete(outputs, key)
		if said {
			outputs[key] = v
		}
	}
	outputs["address"] = resource.NewStringProperty(t.Address)
	set("port", t.Port != 0, resource.NewNumberProperty(float64(t.Port)))
	set("user", t.User != "", resource.NewStringProperty(t.User))
	set("hostKey", t.HostKey != "", resource.NewStringProperty(t.HostKey))
	set("own", t.Own, resource.NewBoolProperty(t.Own))
	set("jump", t.Jump != "", resource.NewStringProperty(t.Jump))
	set("knownHosts", t.KnownHosts != "", generic(strings.Split(t.KnownHosts, "\n")))
}

// initial says that nothing was ever seen on the host.
func initial(outputs resource.PropertyMap) bool {
	_, ok := outputs["address"]
	return !ok
}

// apply makes the host as desired and returns what is on it then. If that
// fails, the error carries what is on it, so that nothing wished is stored.
func (c *configuration) apply(ctx context.Context, urn resource.URN, conn *provision.Conn, in hostInputs, inputs, previous resource.PropertyMap, o provision.Options) (resource.PropertyMap, error) {
	redact := provision.NewRedactor(in.Secrets)
	r, err := conn.Apply(ctx, in.Host, o)
	for _, action := range r.Plan {
		c.log(pulumirpc.LogSeverity_DEBUG, urn, redact.Redact(action.String()), false)
	}
	if r.Actual == nil {
		if err == nil {
			err = fmt.Errorf("%s: nothing is known about the host after the change; run it again", in.Name)
		}
		return nil, c.plain(err, redact)
	}
	outputs := actualOutputs(in, inputs, previous, r.Actual)
	setTarget(outputs, conn.Target())
	if err != nil {
		return outputs, partial(in.Name, inputs, outputs, c.plain(err, redact))
	}
	return outputs, nil
}

// read sees what is on the host.
func (c *configuration) read(ctx context.Context, req plugin.ReadRequest) (plugin.ReadResponse, error) {
	response := plugin.ReadResponse{ReadResult: plugin.ReadResult{
		ID: req.ID, Inputs: req.Inputs, Outputs: req.State, RefreshBeforeUpdate: true,
	}}
	if len(req.Inputs) == 0 {
		return response, fmt.Errorf("%s: a host's configuration cannot be imported; declare it, and the first up takes the host over", req.ID)
	}
	var in, old hostInputs
	if err := decode(req.Inputs, &in); err != nil {
		return response, err
	}
	_ = decode(req.State, &old) // only its address is used, as a second try
	redact := provision.NewRedactor(in.Secrets)
	defer c.time(req.URN, in.Name, "read", time.Now())
	conn, err := c.reach(ctx, in.target(), old.target())
	if err == nil {
		defer conn.Close()
		var actual *provision.Actual
		if actual, err = conn.Inspect(ctx, in.Host); err == nil {
			response.Outputs = actualOutputs(in, req.Inputs, req.State, actual)
			setTarget(response.Outputs, conn.Target())
			return response, nil
		}
	}
	if errors.Is(err, provision.ErrUnreachable) {
		if skipped(in.Name) {
			c.log(pulumirpc.LogSeverity_WARNING, req.URN, c.plain(err, redact).Error()+"; "+skipVariable+" is set, so what was last seen there is taken for true", false)
			return response, nil
		}
		err = fmt.Errorf("%w; to go on without looking at hosts that do not answer, set %s=1", err, skipVariable)
	}
	return response, c.plain(err, redact)
}

// ownerFile says on a host of the user's own whose it is, such as "shop web-1": the
// stack and the name of the configuration.
const ownerFile = "/etc/infractl/host"

// heir is whose a host is that another configuration has taken over since, or empty.
// A server can change its job in one run: then the old configuration is deleted
// after the new one was made, and must not take away what belongs to that one.
func heir(owner string, urn resource.URN, name string) string {
	owner = strings.TrimSpace(owner)
	if owner == urn.Stack().String()+" "+name {
		return ""
	}
	return owner
}

// remove takes everything off a host that outlives the resource.
func (c *configuration) remove(ctx context.Context, req plugin.DeleteRequest) error {
	var in hostInputs
	if err := decode(req.Outputs, &in); err != nil {
		return err
	}
	redact := provision.NewRedactor(in.Secrets)
	defer c.time(req.URN, in.Name, "delete", time.Now())
	conn, err := c.reach(ctx, in.target())
	if errors.Is(err, provision.ErrUnreachable) {
		c.log(pulumirpc.LogSeverity_WARNING, req.URN, c.plain(err, redact).Error()+"; it is taken for gone, and nothing was removed from it", false)
		return nil
	}
	if err != nil {
		return c.plain(err, redact)
	}
	defer conn.Close()
	if in.Own {
		owner, err := conn.Run(ctx, "look whose host it is", "cat "+ownerFile+" 2>/dev/null || :")
		if err != nil {
			return c.plain(err, redact)
		}
		if other := heir(string(owner), req.URN, in.Name); other != "" {
			c.log(pulumirpc.LogSeverity_INFO, req.URN, in.Name+": its server is now "+other+", so nothing is removed from it", false)
			return nil
		}
	}
	if _, err := conn.Remove(ctx, in.Host, provision.Options{Progress: c.progress(req.URN, redact)}); err != nil {
		return c.plain(err, redact)
	}
	return nil
}

// reach connects to the first of the targets that answers. The error is that
// of the first one.
func (c *configuration) reach(ctx context.Context, targets ...provision.Target) (*provision.Conn, error) {
	var first error
	for i, t := range targets {
		if i > 0 && (t.Address == "" || t == targets[0]) {
			continue
		}
		conn, err := provision.Connect(ctx, t)
		if err == nil {
			return conn, nil
		}
		if first == nil {
			first = err
		}
	}
	return nil, first
}

// plain takes secrets out of an error's text. The engine gets a text anyway.
func (c *configuration) plain(err error, r *provision.Redactor) error {
	if text := err.Error(); r.Redact(text) != text {
		return errors.New(r.Redact(text))
	}
	return err
}

// progress shows steps as the resource's status.
func (c *configuration) progress(urn resource.URN, r *provision.Redactor) func(string) {
	return func(step string) {
		c.log(pulumirpc.LogSeverity_INFO, urn, r.Redact(step), true)
	}
}

// wishedOutputs are the outputs of a preview: what will be, if all goes well.
func wishedOutputs(inputs resource.PropertyMap) resource.PropertyMap {
	outputs := inputs.Copy()
	if secrets, ok := outputs["secrets"]; ok {
		outputs["secrets"] = secret(secrets)
	}
	return outputs
}

// actualOutputs say what is on the host, in the words of the inputs wherever it
// is as desired. Values and secrets are those that are in use: the desired ones
// once everything is as desired, the previous ones before.
func actualOutputs(in hostInputs, inputs, previous resource.PropertyMap, a *provision.Actual) resource.PropertyMap {
	out := resource.PropertyMap{}
	out["name"] = resource.NewStringProperty(in.Name)
	set := func(key resource.PropertyKey, v any) {
		if _, wished := inputs[key]; wished {
			out[key] = generic(v)
		}
	}

	set("data", in.Data)
	packages := []string{}
	for _, name := range in.Packages {
		if _, ok := a.Packages[name]; ok {
			packages = append(packages, name)
		}
	}
	set("packages", packages)

	users := []desired.User{}
	for _, u := range in.Users {
		actual, ok := a.Users[u.Name]
		if !ok {
			continue
		}
		if u.Home != "" || actual.Home != "/nonexistent" {
			u.Home = actual.Home
		}
		u.Groups = slices.DeleteFunc(slices.Clone(u.Groups), func(g string) bool { return !slices.Contains(actual.Groups, g) })
		users = append(users, u)
	}
	set("users", users)

	files := map[string]any{}
	for name, f := range a.Files {
		_, wished := in.Files[name]
		files[name] = fileOutput(f, wished)
		if !wished && a.Originals[name] != "" {
			// It does not go, but becomes what it was.
			files[name].(map[string]any)["original"] = true
		}
	}
	if _, wished := inputs["files"]; wished || len(files) > 0 {
		out["files"] = generic(files)
	}

	trees := map[string]desired.Tree{}
	for name, t := range in.Trees {
		if actual, ok := a.Trees[name]; ok {
			trees[name] = desired.Tree{Source: t.Source, Digest: actual.Digest}
		}
	}
	set("trees", trees)

	units := []unitOutput{}
	for _, u := range in.Units {
		actual := a.Units[u.Name]
		pending := provision.Pending(u, in.Host, a)
		u.Active = actual.Running()
		if !actual.Fixed() {
			u.Enabled = actual.Enabled()
		}
		units = append(units, unitOutput{u, string(pending)})
	}
	set("units", units)

	source := previous
	if plan, err := provision.Plan(in.Host, a); err == nil && len(plan) == 0 {
		source = inputs
	}
	for _, key := range []resource.PropertyKey{"values", "secrets"} {
		if v, ok := source[key]; ok {
			out[key] = v
		}
	}
	if v, ok := out["secrets"]; ok {
		out["secrets"] = secret(v)
	}
	return out
}

// unitOutput is a unit with what it still has to do: restart or reload, if it
// has not loaded its files because a run was interrupted.
type unitOutput struct {
	desired.Unit
	Pending string `json:"pending,omitempty"`
}

// fileOutput describes a file on the host. The text of one that is not desired
// any more is nobody's business, and may hold a secret of former times.
func fileOutput(f provision.File, wished bool) map[string]any {
	out := map[string]any{}
	switch {
	case f.Kind == 'l':
		out["link"] = f.Link
		return out
	case f.Kind != 'f':
		out["content"] = "(not a regular file)"
	case wished && f.Known:
		out["content"] = f.Content
	case wished:
		out["content"] = fmt.Sprintf("(differs; not shown, because it is large, no text, or may hold a secret; SHA-256 %s)\n", f.SHA256)
	}
	out["mode"], out["owner"], out["group"] = f.Mode, f.Owner, f.Group
	return out
}

// generic turns a value with JSON names into a property value.
func generic(v any) resource.PropertyValue {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // only types of this package, which can all be encoded
	}
	var plain any
	if err := json.Unmarshal(text, &plain); err != nil {
		panic(err)
	}
	return resource.NewPropertyValue(plain)
}

// time logs how long an operation took, and adds a line to the file that
// INFRACTL_TIMINGS names, for benchmarks.
func (c *configuration) time(urn resource.URN, host, operation string, start time.Time) {
	end := time.Now()
	c.log(pulumirpc.LogSeverity_DEBUG, urn, fmt.Sprintf("%s: %s took %s", host, operation, end.Sub(start).Round(time.Millisecond)), false)
	name := os.Getenv("INFRACTL_TIMINGS")
	if name == "" {
		return
	}
	line, err := json.Marshal(map[string]string{
		"host": host, "op": operation,
		"start": start.UTC().Format(time.RFC3339Nano), "end": end.UTC().Format(time.RFC3339Nano),
	})
	if err == nil {
		var f *os.File
		if f, err = os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644); err == nil {
			// One write, so that lines of several processes do not mix.
			_, err = f.WriteString(string(line) + "\n")
			err = errors.Join(err, f.Close())
		}
	}
	if err != nil {
		c.log(pulumirpc.LogSeverity_WARNING, urn, "INFRACTL_TIMINGS: "+strings.TrimSpace(err.Error()), false)
	}
}

// bootTimeoutVariable says how long a new server is waited for, such as 10m; a
// slow cloud may need more than provision's default.
const bootTimeoutVariable = "INFRACTL_BOOT_TIMEOUT"

// bootTimeout is 0, for the default, unless the variable holds a duration.
func bootTimeout() time.Duration {
	d, err := time.ParseDuration(os.Getenv(bootTimeoutVariable))
	if err != nil || d < 0 {
		return 0
	}
	return d
}
