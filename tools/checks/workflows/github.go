package workflows

import (
	"io"
	"maps"
	"regexp"
	"slices"

	"github.com/rhysd/actionlint"
)

// actions are the only ones that the workflows may use: everything else in them
// is a program that can be read here.
var actions = regexp.MustCompile(`^actions/(checkout|setup-go)@v[0-9]+$`)

// secretInScript is an expression that would write a secret into a script.
var secretInScript = regexp.MustCompile(`\$\{\{[^}]*\bsecrets\b`)

// CheckGitHub checks a workflow of GitHub Actions. The steps' scripts are
// checked by the program shellcheck.
func CheckGitHub(name string, text []byte) ([]string, error) {
	linter, err := actionlint.NewLinter(io.Discard, &actionlint.LinterOptions{Shellcheck: "shellcheck"})
	if err != nil {
		return nil, err
	}
	found, err := linter.Lint(name, text, nil)
	if err != nil {
		return nil, err
	}
	var p problems
	for _, f := range found {
		p.add("%s", f)
	}
	doc, err := parse(text)
	if err != nil {
		return append(p, err.Error()), nil
	}
	p.policy(doc)
	return p, nil
}

// policy reports what is allowed on GitHub and not in these files.
func (p *problems) policy(doc map[string]any) {
	// Without this a workflow gets whatever the repository's settings say.
	if _, ok := doc["permissions"].(map[string]any); !ok {
		p.add("permissions must be listed for the whole workflow")
	}
	if doc["concurrency"] == nil {
		p.add("concurrency must be set")
	}
	jobs, _ := doc["jobs"].(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(jobs)) {
		job, _ := jobs[name].(map[string]any)
		if job["timeout-minutes"] == nil {
			p.add("job %s: timeout-minutes must be set", name)
		}
		steps, _ := job["steps"].([]any)
		for i, s := range steps {
			step, _ := s.(map[string]any)
			if uses, ok := step["uses"].(string); ok && !actions.MatchString(uses) {
				p.add("job %s, step %d: uses %s, which is not one of the few that are allowed", name, i+1, uses)
			}
			if run, _ := step["run"].(string); secretInScript.MatchString(run) {
				p.add("job %s, step %d: a secret stands in the script; hand it over in env", name, i+1)
			}
		}
	}
}
