package workflows

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// The keywords of GitLab's CI/CD YAML that these files may use, by where they
// stand (https://docs.gitlab.com/ci/yaml/). GitLab itself takes some of them for
// granted when they are misspelt: an unknown key at the top is a job.
var (
	globalKeywords = words("stages variables workflow default include")
	jobKeywords    = words(`after_script allow_failure artifacts before_script cache environment extends image interruptible
		needs resource_group retry rules script services stage tags timeout variables`)
	ruleKeywords        = words("if changes exists when allow_failure variables")
	artifactKeywords    = words("paths exclude expire_in name access when reports untracked")
	environmentKeywords = words("name url action deployment_tier")
	cacheKeywords       = words("key paths policy when fallback_keys")
	cacheKeyKeywords    = words("files prefix")
	ruleTimes           = words("on_success on_failure never always manual delayed")
)

func words(s string) []string { return strings.Fields(s) }

// pipeline is what is known of a GitLab file while it is checked.
type pipeline struct {
	problems
	stages []string
	jobs   map[string]map[string]any
}

// CheckGitLab checks a file for GitLab CI: its structure, and every script with
// sh and the program shellcheck.
func CheckGitLab(text []byte) ([]string, error) {
	doc, err := parse(text)
	if err != nil {
		return []string{err.Error()}, nil
	}
	p := &pipeline{jobs: map[string]map[string]any{}}
	for _, s := range list(doc["stages"]) {
		p.stages = append(p.stages, fmt.Sprint(s))
	}
	if len(p.stages) == 0 {
		p.add("stages must be listed")
	}
	for _, key := range slices.Sorted(maps.Keys(doc)) {
		if slices.Contains(globalKeywords, key) {
			continue
		}
		job, ok := doc[key].(map[string]any)
		if !ok {
			p.add("%s: is neither a keyword nor a job", key)
			continue
		}
		p.jobs[key] = job
	}
	for _, name := range slices.Sorted(maps.Keys(p.jobs)) {
		p.job(name)
	}
	return p.problems, nil
}

// list makes a list of what may be a single thing.
func list(v any) []any {
	switch v := v.(type) {
	case nil:
		return nil
	case []any:
		return v
	}
	return []any{v}
}

func hidden(job string) bool { return strings.HasPrefix(job, ".") }

func (p *pipeline) job(name string) {
	p.keys("job "+name, p.jobs[name], jobKeywords)
	// What the jobs say that it extends, in the order in which they win.
	chain := []map[string]any{p.jobs[name]}
	for at := p.jobs[name]; at["extends"] != nil; {
		base, ok := p.jobs[fmt.Sprint(at["extends"])]
		if !ok || len(chain) > len(p.jobs) {
			p.add("job %s: extends %v, which does not exist or extends it", name, at["extends"])
			return
		}
		chain = append(chain, base)
		at = base
	}
	value := func(key string) any {
		for _, j := range chain {
			if j[key] != nil {
				return j[key]
			}
		}
		return nil
	}
	p.rules(name, p.jobs[name]["rules"])
	p.parts(name, p.jobs[name])
	if hidden(name) {
		return
	}
	stage, _ := value("stage").(string)
	if !slices.Contains(p.stages, stage) {
		p.add("job %s: stage %q is not listed in stages", name, stage)
	}
	for _, n := range list(value("needs")) {
		needed, _ := n.(string)
		other, ok := p.jobs[needed]
		if !ok || hidden(needed) {
			p.add("job %s: needs %v, which is no job", name, n)
			continue
		}
		if its, _ := other["stage"].(string); slices.Index(p.stages, its) > slices.Index(p.stages, stage) {
			p.add("job %s: needs %s, which comes later", name, needed)
		}
	}
	if len(list(value("script"))) == 0 {
		p.add("job %s: has no script", name)
	}
	if len(list(value("rules"))) == 0 {
		p.add("job %s: has no rules, so it runs in every pipeline", name)
	}
	for _, key := range []string{"image", "timeout"} {
		if value(key) == nil {
			p.add("job %s: has no %s", name, key)
		}
	}
	p.script(name, slices.Concat(list(value("before_script")), list(value("script"))))
	p.script(name, list(value("after_script")))
}

// keys reports the unknown ones.
func (p *pipeline) keys(where string, m map[string]any, known []string) {
	for _, key := range slices.Sorted(maps.Keys(m)) {
		if !slices.Contains(known, key) {
			p.add("%s: %s is not a keyword", where, key)
		}
	}
}

// parts checks the mappings in a job that have keywords of their own.
func (p *pipeline) parts(name string, job map[string]any) {
	for key, known := range map[string][]string{"artifacts": artifactKeywords, "environment": environmentKeywords, "cache": cacheKeywords} {
		if m, ok := job[key].(map[string]any); ok {
			p.keys("job "+name+", "+key, m, known)
		}
	}
	if cache, ok := job["cache"].(map[string]any); ok {
		if key, ok := cache["key"].(map[string]any); ok {
			p.keys("job "+name+", cache, key", key, cacheKeyKeywords)
		}
	}
}

func (p *pipeline) rules(name string, rules any) {
	for i, r := range list(rules) {
		where := fmt.Sprintf("job %s, rule %d", name, i+1)
		rule, ok := r.(map[string]any)
		if !ok {
			p.add("%s: is not a mapping", where)
			continue
		}
		p.keys(where, rule, ruleKeywords)
		if when, ok := rule["when"]; ok && !slices.Contains(ruleTimes, fmt.Sprint(when)) {
			p.add("%s: when: %v is not known", where, when)
		}
		if condition, ok := rule["if"]; ok && !conditionIsRight(fmt.Sprint(condition)) {
			p.add("%s: if: %v cannot be read", where, condition)
		}
	}
}

// A condition is values, compared or alone, joined by && and ||
// (https://docs.gitlab.com/ci/jobs/job_rules/#cicd-variable-expressions).
const (
	conditionValue = `(?:\$[A-Za-z_][A-Za-z0-9_]*|"[^"]*"|'[^']*'|null)`
	conditionTerm  = conditionValue + `(?:\s*(?:==|!=)\s*` + conditionValue + `|\s*(?:=~|!~)\s*/(?:[^/\\]|\\.)+/i?)?`
)

var condition = regexp.MustCompile(`^` + conditionTerm + `(?:\s*(?:&&|\|\|)\s*` + conditionTerm + `)*$`)

func conditionIsRight(text string) bool { return condition.MatchString(strings.TrimSpace(text)) }

// script checks the lines of a job, which run one after the other in one shell.
func (p *pipeline) script(name string, lines []any) {
	if len(lines) == 0 {
		return
	}
	var all []string
	for _, l := range lines {
		line, ok := l.(string)
		if !ok {
			p.add("job %s: a line of its script is not text: %v", name, l)
			return
		}
		if err := shell(line, "sh", "-n"); err != nil {
			p.add("job %s: %q: %v", name, line, err)
			return
		}
		all = append(all, line)
	}
	if err := shell(strings.Join(all, "\n"), "shellcheck", "--shell=bash", "-"); err != nil {
		p.add("job %s: %v", name, err)
	}
}
