package workflows

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// docs is where the files are that people copy.
const docs = "../../../docs/ci"

func needShellcheck(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("shellcheck"); err != nil {
		t.Skip("shellcheck is not installed (as root: scripts/packages install test)")
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(docs, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestGitHubWorkflowsAreRight(t *testing.T) {
	needShellcheck(t)
	files, err := filepath.Glob(filepath.Join(docs, "github/*"))
	if err != nil || len(files) != 3 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		found, err := CheckGitHub(file, text)
		if err != nil || len(found) > 0 {
			t.Errorf("%s: %v\n%s", file, err, strings.Join(found, "\n"))
		}
	}
}

func TestGitLabPipelineIsRight(t *testing.T) {
	needShellcheck(t)
	files, err := filepath.Glob(filepath.Join(docs, "gitlab/*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, %v", files, err)
	}
	found, err := CheckGitLab([]byte(read(t, "gitlab/gitlab-ci.yml")))
	if err != nil || len(found) > 0 {
		t.Errorf("%v\n%s", err, strings.Join(found, "\n"))
	}
}

// broken are single mistakes in a good file, and words of what is found.
type broken struct{ old, new, want string }

func testBroken(t *testing.T, name string, all []broken, check func(text []byte) ([]string, error)) {
	t.Helper()
	needShellcheck(t)
	good := read(t, name)
	for _, b := range all {
		t.Run(b.want, func(t *testing.T) {
			t.Parallel()
			bad := strings.Replace(good, b.old, b.new, 1)
			if bad == good {
				t.Fatalf("%s holds no %q", name, b.old)
			}
			found, err := check([]byte(bad))
			if err != nil {
				t.Fatal(err)
			}
			if all := strings.Join(found, "\n"); !strings.Contains(all, b.want) {
				t.Errorf("found: %q", all)
			}
		})
	}
}

func TestMistakesInAGitHubWorkflowAreFound(t *testing.T) {
	testBroken(t, "github/infractl-apply.yml", []broken{
		{"    needs: plan\n", "    needs: plans\n", `needs job "plans" which does not exist`},
		{"    timeout-minutes: 120\n", "    timeout: 120\n", `unexpected key "timeout"`},
		{"    timeout-minutes: 120\n", "", "job apply: timeout-minutes must be set"},
		{"steps.plan.outputs.changes", "steps.plans.outputs.changes", `property "plans" is not defined`},
		{"  contents: read\n", "  content: read\n", `unknown permission scope "content"`},
		{"permissions:\n  contents: read\n", "", "permissions must be listed"},
		{"concurrency:\n  group: infractl-production\n  cancel-in-progress: false\n", "", "concurrency must be set"},
		{`changes=no >>"$GITHUB_OUTPUT"`, `changes=no >>$GITHUB_OUTPUT`, "SC2086"},
		{`          esac`, `          done`, "SC1"},
		{"actions/checkout@v6", "somebody/checkout@v6", "somebody/checkout@v6, which is not one of the few"},
		{`printf '%s\n' "$SSH_KEY"`, `printf '%s\n' "${{ secrets.INFRACTL_SSH_KEY }}"`, "a secret stands in the script"},
		{"on:\n", "on:\n  pushed:\n", `unknown Webhook event "pushed"`},
		{"jobs:\n", "jobs: [\n", "could not parse as YAML"},
	}, func(text []byte) ([]string, error) { return CheckGitHub("apply.yml", text) })
}

func TestMistakesInAGitLabPipelineAreFound(t *testing.T) {
	testBroken(t, "gitlab/gitlab-ci.yml", []broken{
		{"stages: [preview, plan, apply, drift]", "stages: [preview, plan, apply]", `job drift: stage "drift" is not listed`},
		{"stages: [preview, plan, apply, drift]", "stages: [preview, apply, plan, drift]", "job apply: needs plan, which comes later"},
		{"stages: [preview, plan, apply, drift]", "stage: [preview, plan, apply, drift]", "stages must be listed"},
		{"variables:\n  ENV", "variable:\n  ENV", "job variable: ENVIRONMENT is not a keyword"},
		{"needs: [plan]", "needs: [plans]", "job apply: needs plans, which is no job"},
		{"needs: [plan]", "needs: [.infractl]", "needs .infractl, which is no job"},
		{"extends: .infractl", "extends: .infra", "job preview: extends .infra, which does not exist"},
		{"  resource_group:", "  resourcegroup:", "job apply: resourcegroup is not a keyword"},
		{"when: manual", "when: manually", "job apply, rule 1: when: manually is not known"},
		{"      allow_failure: false", "      allow_failures: false", "job apply, rule 1: allow_failures is not a keyword"},
		{`$CI_PIPELINE_SOURCE == "schedule"`, `$CI_PIPELINE_SOURCE = "schedule"`, "job drift, rule 1: if:"},
		{`!= "schedule" &&`, `!= "schedule" and`, "cannot be read"},
		{"expire_in: 1 week", "expires_in: 1 week", "job plan, artifacts: expires_in is not a keyword"},
		{"    name: production", "    named: production", "job apply, environment: named is not a keyword"},
		{"      files: [", "      file: [", "cache, key: file is not a keyword"},
		{"    paths: [.go/, bin/]", "    path: [.go/, bin/]", "job .infractl, cache: path is not a keyword"},
		{"  image: golang:1.26-trixie\n", "", "job plan: has no image"},
		{"      fi\n    - exit", "    - exit", "job preview: "},
		{`install -m 600 "$INFRACTL_SSH_KEY"`, `install -m 600 $INFRACTL_SSH_KEY`, "SC2086"},
		{"    - ./scripts/build\n", "    - ./scripts/build: now\n", "a line of its script is not text"},
		{"  script:\n    # 0:", "  scripts:\n    # 0:", "job drift: has no script"},
		{"stage: drift\n  rules:\n    - if: $CI_PIPELINE_SOURCE == \"schedule\"\n", "stage: drift\n", "job drift: has no rules"},
		{"  stage: plan\n", "  stage: plan\n  stage: plan\n", "already defined"},
	}, CheckGitLab)
}

func TestConditionsAreRead(t *testing.T) {
	for text, want := range map[string]bool{
		`$A`:                               true,
		`$A == "x"`:                        true,
		`$A != null || $B =~ /^v\d+\/x$/i`: true,
		`$A == $B && "x" != $C`:            true,
		``:                                 false,
		`$A ==`:                            false,
		`$A == x`:                          false,
		`$A && && $B`:                      false,
		`A == "x"`:                         false,
	} {
		if got := conditionIsRight(text); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}
