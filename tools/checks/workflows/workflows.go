// Package workflows checks the files for build servers that the documentation
// offers. People copy them and give them credentials, so they must be right
// without anybody having run them here.
package workflows

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"go.yaml.in/yaml/v4"
)

// problems collects what is wrong with a file.
type problems []string

func (p *problems) add(format string, args ...any) { *p = append(*p, fmt.Sprintf(format, args...)) }

// parse reads a YAML file that has to be a mapping without doubled keys.
func parse(text []byte) (map[string]any, error) {
	var doc map[string]any
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, err
	}
	if len(doc) == 0 {
		return nil, errors.New("there is nothing in it")
	}
	return doc, nil
}

// shell checks a script. The program reads it from its standard input.
func shell(script, program string, args ...string) error {
	cmd := exec.Command(program, args...)
	cmd.Stdin = strings.NewReader(script)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(out.String()))
	}
	return nil
}
