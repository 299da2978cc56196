package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"time"

	"github.com/pulumi/pulumi/sdk/v3/go/auto"
	"github.com/pulumi/pulumi/sdk/v3/go/auto/events"
	"github.com/pulumi/pulumi/sdk/v3/go/auto/optdestroy"
	"github.com/pulumi/pulumi/sdk/v3/go/auto/optpreview"
	"github.com/pulumi/pulumi/sdk/v3/go/auto/optrefresh"
	"github.com/pulumi/pulumi/sdk/v3/go/auto/optup"
	"github.com/pulumi/pulumi/sdk/v3/go/common/apitype"
	"go.yaml.in/yaml/v3"

	"github.com/infractl/infractl/stacks"
)

// parallelism is how many resources are worked on at the same time. The steps
// wait for hosts and for the cloud, not for this computer.
const parallelism = 32

// Settings are what a command line says about a run.
type Settings struct {
	// Dir is where to look for the project.
	Dir string
	// Environment is its name, or empty for the only one.
	Environment string
	// Version is infractl's own, for the cloud's logs.
	Version string
	// Say tells the user something in passing. It may be called at any time.
	Say func(format string, args ...any)
	// Force is closed when the user does not want to wait for what has begun.
	Force <-chan struct{}
	// Command and Args are the command's name and the whole command line, for
	// the lock and for the record.
	Command string
	Args    []string
	// LockTimeout is how long to wait for the lock.
	LockTimeout time.Duration
	// Holder asks the load balancers of an environment with these outputs who has
	// the virtual IP, where no cloud knows it. Nothing means that nobody says so.
	Holder func(ctx context.Context, outputs map[string]any) string
	// SkipFiles leaves out checks of what is only needed to change hosts.
	SkipFiles bool
}

// Engine works on one environment.
type Engine struct {
	Project     Project
	Environment string
	Config      Config
	// Spec is the environment as its configuration describes it.
	Spec  stacks.Environment
	Tools Tools

	say       func(string, ...any)
	decode    stacks.DecodeOptions
	problems  []stacks.Problem
	read      []byte // the configuration's text before Propose
	cloud     *hetzner
	offers    catalog
	inventory inventory
	stack     auto.Stack
	exists    bool
	state     *state
	journal   journal
	locks     *locks
	hold      hold
	settings  Settings
	workDir   string
	copyDir   string         // of a settled copy of the state; may be empty
	outputs   map[string]any // of an up in this process
}

// Sink takes the engine's events, in order, from one goroutine.
type Sink func(apitype.EngineEvent)

// Open finds the project and the environment, loads its variables and checks
// its configuration. It touches neither the cloud nor the state.
func Open(ctx context.Context, s Settings) (*Engine, error) {
	e, err := OpenConfig(s)
	if err != nil {
		return nil, err
	}
	if len(e.problems) > 0 && !s.SkipFiles {
		return nil, fail(Invalid, "", "%s is not right:\n%w", filepath.Base(e.Config.File), &stacks.ConfigError{Problems: e.problems})
	}
	if e.Tools, err = FindTools(ctx, e.Project, s.Force); err != nil {
		return nil, err
	}
	if err := e.Tools.searchPath(); err != nil {
		return nil, err
	}
	if e.cloud, err = newCloud(s.Version, e.Spec); err != nil {
		return nil, err
	}
	where := backend(e.Project)
	if where == "" {
		return nil, fail(Invalid, "Set PULUMI_BACKEND_URL, such as file:///var/lib/infractl, or run: pulumi login",
			"no place was chosen for the environment's state")
	}
	e.locks = newLocks(where, e.Project.Name, e.Environment, e.say)
	if err := e.makeWorkDir(); err != nil {
		return nil, err
	}
	e.hold.place = besideState(where, e.Project, e.Environment)
	e.journal = journal{path: filepath.Join(e.workDir, "run.json")}
	return e, nil
}

// OpenConfig is Open for what needs nothing but the configuration, which may also be
// wrong: then Problems says how. Neither Pulumi nor a state has to be there.
func OpenConfig(s Settings) (*Engine, error) {
	e := &Engine{say: s.Say, settings: s}
	var err error
	if e.Project, err = FindProject(s.Dir); err != nil {
		return nil, err
	}
	if e.Environment, err = e.Project.Choose(s.Environment); err != nil {
		return nil, err
	}
	if err := LoadVariables(e.Project, e.Environment); err != nil {
		return nil, err
	}
	if e.Config, err = e.Project.ReadConfig(e.Environment); err != nil {
		return nil, err
	}
	if e.decode, err = stacks.OperatorOptions(e.Environment, e.Project.Dir); err != nil {
		return nil, fail(Invalid, "", "%w", err)
	}
	e.decode.SkipFiles = s.SkipFiles
	e.Spec, e.problems, err = decoded(e.Config.Values, e.decode)
	return e, err
}

// decoded reads a configuration as far as it can be read, with what is wrong with it.
func decoded(values map[string]string, o stacks.DecodeOptions) (stacks.Environment, []stacks.Problem, error) {
	spec, err := stacks.Decode(values, o)
	var wrong *stacks.ConfigError
	if errors.As(err, &wrong) {
		return spec, wrong.Problems, nil
	}
	return spec, nil, err
}

// Problems are what is wrong with the configuration.
func (e *Engine) Problems() []stacks.Problem { return e.problems }

// Preflight checks whatever can be known before anything is changed.
func (e *Engine) Preflight(ctx context.Context) error {
	if err := checkTokens(e.Spec); err != nil {
		return err
	}
	// How the user's own servers are logged in to is up to their ssh_config.
	if e.Spec.Uses(stacks.TargetCloud) {
		id, err := FindIdentity()
		if err != nil {
			return err
		}
		if err := id.authorized(e.Spec.SSH.AuthorizedKeys); err != nil {
			return err
		}
	}
	if err := parallel(
		func() (err error) { e.offers, err = e.cloud.catalog(ctx); return err },
		func() (err error) { e.inventory, err = e.cloud.inventory(ctx, e.Environment); return err },
	); err != nil {
		return err
	}
	problems := append(checkCatalog(e.Spec, e.offers), checkNetwork(e.Spec, e.inventory)...)
	if len(problems) > 0 {
		return fail(Invalid, "", "%s is not right:\n%w", filepath.Base(e.Config.File), &stacks.ConfigError{Problems: problems})
	}
	return nil
}

// makeWorkDir makes the directory from which the CLI runs: with a copy of the
// project and the configuration, so that it writes nothing into the user's.
func (e *Engine) makeWorkDir() error {
	e.workDir = ownDir(e.Project, e.Environment)
	if err := os.MkdirAll(e.workDir, 0o700); err != nil {
		return fmt.Errorf("cannot make infractl's own directory: %w", err)
	}
	e.Tools.home = filepath.Join(e.workDir, "pulumi-home")
	if err := quietHome(e.Tools.home); err != nil {
		return fmt.Errorf("cannot make a directory for Pulumi in infractl's own: %w", err)
	}
	project := map[string]any{
		"name":    e.Project.Name,
		"runtime": "go",
		"plugins": map[string]any{
			"providers": []any{map[string]any{"name": "infractl", "path": e.Tools.Plugin}},
		},
	}
	if e.Project.Backend != "" {
		project["backend"] = map[string]any{"url": e.Project.Backend}
	}
	text, err := yaml.Marshal(project)
	if err != nil {
		return err
	}
	if err := replaceFile(filepath.Join(e.workDir, "Pulumi.yaml"), text); err != nil {
		return fmt.Errorf("cannot write infractl's own project file: %w", err)
	}
	return e.copyConfig()
}

// copyConfig copies the environment's configuration. What Pulumi has added to
// an earlier copy about the encryption of secrets is kept where the user's own
// file does not say it.
func (e *Engine) copyConfig() error {
	source, err := os.ReadFile(e.Config.File)
	if err != nil {
		return fail(Invalid, "", "cannot read the environment's configuration: %w", err)
	}
	var doc map[string]any
	if err := yaml.Unmarshal(source, &doc); err != nil {
		return fail(Invalid, "", "%s: %w", e.Config.File, err)
	}
	if doc == nil {
		doc = map[string]any{}
	}
	copied := filepath.Join(e.workDir, "Pulumi."+e.Environment+".yaml")
	if old, err := os.ReadFile(copied); err == nil {
		var before map[string]any
		if yaml.Unmarshal(old, &before) == nil {
			for _, k := range []string{"secretsprovider", "encryptionsalt", "encryptedkey"} {
				if _, set := doc[k]; !set && before[k] != nil {
					doc[k] = before[k]
				}
			}
		}
	}
	text, err := yaml.Marshal(doc)
	if err != nil {
		return err
	}
	if err := replaceFile(copied, text); err != nil {
		return fmt.Errorf("cannot copy the environment's configuration: %w", err)
	}
	return nil
}

// forgetEncryption takes from the copied configuration what belonged to a
// stack that no longer exists: with a new passphrase it would only be in the way.
func (e *Engine) forgetEncryption() error {
	if e.Config.EncryptionSalt != "" {
		return nil // the user's own; its secrets depend on it
	}
	if err := os.Remove(filepath.Join(e.workDir, "Pulumi."+e.Environment+".yaml")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return e.copyConfig()
}

// Load reads the state. If there is none, it is created when create is set.
func (e *Engine) Load(ctx context.Context, create bool) error {
	text, err := e.export(ctx)
	if err != nil && !errors.Is(err, errNoStack) {
		return err
	}
	e.exists = err == nil
	if e.exists {
		if e.state, err = parseState([]byte(text)); err != nil {
			return err
		}
	} else {
		e.state = &state{whole: map[string]any{}, deployment: map[string]any{}}
		if !create {
			return nil
		}
		if err := e.forgetEncryption(); err != nil {
			return err
		}
	}
	return e.openStack(ctx)
}

// Exists says whether the environment has a state.
func (e *Engine) Exists() bool { return e.exists }

func (e *Engine) openStack(ctx context.Context) error {
	ws, err := e.workspace(ctx, e.workDir, e.Tools.variables())
	if err != nil {
		return err
	}
	if e.exists {
		e.stack, err = auto.SelectStack(ctx, e.Environment, ws)
	} else {
		e.stack, err = auto.NewStack(ctx, e.Environment, ws)
	}
	return explainCLI(err)
}

// workspace is what the Automation API works with: the program, the CLI, the
// directory in which the CLI runs, and its variables.
func (e *Engine) workspace(ctx context.Context, dir string, variables map[string]string) (auto.Workspace, error) {
	provider := e.Config.SecretsProvider
	if provider == "" && !hosted(backend(e.Project)) {
		provider = "passphrase"
	}
	ws, err := auto.NewLocalWorkspace(ctx,
		auto.WorkDir(dir),
		auto.Pulumi(e.Tools.command),
		auto.EnvVars(variables),
		auto.SecretsProvider(provider),
		auto.Program(stacks.New(stacks.Options{
			Dir:        e.Project.Dir,
			ConfigKeys: e.Config.Keys,
			NewHosts:   e.newHosts(),
			VIPHolder:  e.holderNow,
		})),
	)
	if err != nil {
		return nil, fmt.Errorf("cannot prepare the Pulumi workspace: %w", err)
	}
	return ws, nil
}

var errNoStack = errors.New("the environment has no state yet")

// export returns the state with its secrets encrypted.
func (e *Engine) export(ctx context.Context) (string, error) {
	if err := mendAttributes(backend(e.Project), e.Project.Name, e.Environment); err != nil {
		return "", fmt.Errorf("the environment's state cannot be mended after a run that was cut off: %w", err)
	}
	out, errText, _, err := e.run(ctx, "stack", "export", "--stack", e.Environment)
	if err != nil {
		return "", explainCLI(cliError(err, errText))
	}
	return out, nil
}

// importState writes the state back.
func (e *Engine) importState(ctx context.Context) error {
	text, err := e.state.encode()
	if err != nil {
		return err
	}
	path := filepath.Join(e.workDir, "state.json")
	if err := replaceFile(path, text); err != nil {
		return fmt.Errorf("cannot write the corrected state: %w", err)
	}
	defer os.Remove(path)
	if _, errText, _, err := e.run(ctx, "stack", "import", "--stack", e.Environment, "--file", path); err != nil {
		return explainCLI(fmt.Errorf("cannot correct the state: %w", cliError(err, errText)))
	}
	return nil
}

// cliTimeout bounds calls of the CLI that only read or write the state.
const cliTimeout = 2 * time.Minute

func (e *Engine) run(ctx context.Context, args ...string) (string, string, int, error) {
	ctx, cancel := context.WithTimeout(ctx, cliTimeout)
	defer cancel()
	var env []string
	for k, v := range e.Tools.variables() {
		env = append(env, k+"="+v)
	}
	sort.Strings(env)
	return e.Tools.command.Run(ctx, e.workDir, nil, nil, nil, env, args...)
}

// UpOptions are what a user may allow beyond the ordinary.
type UpOptions struct {
	// Refresh reads everything from the cloud and the hosts first.
	Refresh bool
	// Recreate and Resize name hosts whose replacement or power-off is accepted.
	Recreate []string
	Resize   []string
}

// Ready does what has to be done before a change: it takes the lock, which it
// keeps until Close, clears up after a run that was cut off, and opens the stack.
func (e *Engine) Ready(ctx context.Context, o UpOptions) error {
	ctx, done, err := e.lockUntilClose(ctx)
	if err != nil {
		return err
	}
	defer done()
	if e.hold.waited {
		// Somebody has changed the environment since Preflight looked.
		if e.inventory, err = e.cloud.inventory(ctx, e.Environment); err != nil {
			return err
		}
	}
	if err := e.Load(ctx, true); err != nil {
		return err
	}
	if err := refuseResize(e.state, e.Spec, o.Resize); err != nil {
		return err
	}
	before := len(e.state.resources())
	s, err := e.acceptable(ctx, o)
	if err != nil {
		return err
	}
	if err := e.carryOut(ctx, s); err != nil {
		return err
	}
	if err := e.CheckStock(); err != nil {
		return err
	}
	if len(e.state.resources()) != before {
		return e.openStack(ctx) // the hosts that are new are others now
	}
	return nil
}

// Preview plans a change without making it.
func (e *Engine) Preview(ctx context.Context, o UpOptions, sink Sink) (err error) {
	defer func() { err = errors.Join(err, e.removeCopy()) }()
	ch, done := pump(sink)
	opts := []optpreview.Option{optpreview.EventStreams(ch), optpreview.Parallel(parallelism), optpreview.SuppressProgress()}
	if o.Refresh {
		opts = append(opts, optpreview.Refresh())
	}
	_, err = e.stack.Preview(ctx, opts...)
	done(err)
	if err != nil && ctx.Err() != nil {
		return &Error{Kind: Interrupted, Err: errors.New("interrupted; nothing was changed")}
	}
	return explainCLI(err)
}

// Up makes the change.
func (e *Engine) Up(ctx context.Context, o UpOptions, sink Sink) error {
	ctx, release, err := e.Lock(ctx, "")
	if err != nil {
		return err
	}
	defer release()
	if err := e.begin("up"); err != nil {
		return err
	}
	sink, tally := e.tally(sink)
	ch, done := pump(sink)
	opts := []optup.Option{optup.EventStreams(ch), optup.Parallel(parallelism), optup.SuppressProgress(), optup.SuppressOutputs()}
	if o.Refresh {
		opts = append(opts, optup.Refresh())
	}
	res, err := e.stack.Up(ctx, opts...)
	done(err)
	if err == nil {
		e.outputs = map[string]any{}
		for k, v := range res.Outputs {
			e.outputs[k] = v.Value
		}
	}
	var hosts []string
	for _, h := range e.Spec.Hosts() {
		hosts = append(hosts, h.Name)
	}
	return e.finish(ctx, err, tally().left(hosts)...)
}

// Refresh reads everything from the cloud and the hosts into the state.
func (e *Engine) Refresh(ctx context.Context, sink Sink) error {
	ctx, release, err := e.Lock(ctx, "")
	if err != nil {
		return err
	}
	defer release()
	sink, tally := e.tally(sink)
	ch, done := pump(sink)
	_, err = e.stack.Refresh(ctx, optrefresh.EventStreams(ch), optrefresh.Parallel(parallelism), optrefresh.SuppressProgress())
	done(err)
	tally()
	if err != nil && ctx.Err() != nil {
		return e.stopped(ctx, nil)
	}
	return explainCLI(err)
}

// Destroy deletes everything that the state knows, protected or not. The
// caller has asked the user.
func (e *Engine) Destroy(ctx context.Context, sink Sink) error {
	ctx, release, err := e.Lock(ctx, "")
	if err != nil {
		return err
	}
	defer release()
	if err := e.begin("destroy"); err != nil {
		return err
	}
	var hosts []string
	for _, r := range e.state.resources() {
		if r.Type == typeServer && r.ID != "" {
			hosts = append(hosts, r.name())
		}
	}
	for _, r := range e.state.resources() {
		if p, _ := r.Outputs["deleteProtection"].(bool); !p || r.ID == "" {
			continue
		}
		if err := e.cloud.unprotect(ctx, r.Type, r.ID); err != nil {
			return err
		}
	}
	if e.state.unprotect() {
		if err := e.importState(ctx); err != nil {
			return err
		}
	}
	sink, tally := e.tally(sink)
	ch, done := pump(sink)
	_, err = e.stack.Destroy(ctx, optdestroy.EventStreams(ch), optdestroy.Parallel(parallelism), optdestroy.SuppressProgress())
	done(err)
	return e.finish(ctx, err, tally().leftStanding(hosts)...)
}

// RemoveStack forgets an environment of which nothing is left.
func (e *Engine) RemoveStack(ctx context.Context) error {
	if _, errText, _, err := e.run(ctx, "stack", "rm", "--yes", "--preserve-config", "--stack", e.Environment); err != nil {
		return explainCLI(fmt.Errorf("cannot remove the empty state: %w", cliError(err, errText)))
	}
	return e.forgetEncryption()
}

// begin notes that a run begins, by the cloud's clock.
func (e *Engine) begin(operation string) error {
	now := e.inventory.now
	if now.IsZero() {
		now = time.Now()
	}
	e.hold.configure(e.Config.File)
	return e.journal.begin(entry{Since: now, Endpoint: e.cloud.endpoint, Operation: operation})
}

// finish notes that a run has ended well, or says what its error means. left are
// the hosts for which nothing was done, or not all.
func (e *Engine) finish(ctx context.Context, err error, left ...string) error {
	if err == nil {
		return e.journal.end()
	}
	if ctx.Err() != nil {
		return e.stopped(ctx, left)
	}
	return explainCLI(err)
}

// pump hands events to a sink. done must be called with the operation's
// outcome: it waits until the last event was taken. An operation that fails
// before it begins never closes its channel.
func pump(sink Sink) (chan events.EngineEvent, func(error)) {
	ch := make(chan events.EngineEvent, 64)
	finished := make(chan struct{})
	stop := make(chan struct{})
	go func() {
		defer close(finished)
		for {
			select {
			case ev, ok := <-ch:
				if !ok {
					return
				}
				if ev.Error == nil {
					sink(ev.EngineEvent)
				}
			case <-stop:
				return
			}
		}
	}()
	return ch, func(err error) {
		if err != nil {
			select {
			case <-finished:
				return
			case <-time.After(2 * time.Second):
				close(stop)
			}
		}
		<-finished
	}
}
