// Package engine runs the Pulumi program of an environment: it finds what is
// needed on this computer, checks what can be checked before anything is
// changed, clears up after a run that was cut off, and drives the Pulumi CLI
// by the Automation API.
package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/infractl/infractl/stacks"
)

// Project is a directory with a Pulumi.yaml.
type Project struct {
	// Dir is absolute.
	Dir string
	// Name is the project's name, a part of every resource's URN.
	Name string
	// PluginDir is the directory of the plugin infractl as the project names it; empty if it does not.
	PluginDir string
	// Backend is the state's place, if the project sets one.
	Backend string
}

// FindProject looks for the project in dir and the directories above it.
func FindProject(dir string) (Project, error) {
	start, err := filepath.Abs(dir)
	if err != nil {
		return Project{}, err
	}
	for at := start; ; at = filepath.Dir(at) {
		text, err := os.ReadFile(filepath.Join(at, "Pulumi.yaml"))
		if err == nil {
			return parseProject(at, text)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return Project{}, fmt.Errorf("cannot read the project: %w", err)
		}
		if at == filepath.Dir(at) {
			return Project{}, fail(Invalid, "Change to your project's directory.", "there is no Pulumi.yaml in %s or above it", start)
		}
	}
}

func parseProject(dir string, text []byte) (Project, error) {
	var doc struct {
		Name    string `yaml:"name"`
		Backend struct {
			URL string `yaml:"url"`
		} `yaml:"backend"`
		Plugins struct {
			Providers []struct {
				Name string `yaml:"name"`
				Path string `yaml:"path"`
			} `yaml:"providers"`
		} `yaml:"plugins"`
	}
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return Project{}, fail(Invalid, "", "%s: %w", filepath.Join(dir, "Pulumi.yaml"), err)
	}
	if doc.Name == "" {
		return Project{}, fail(Invalid, "", "%s: name must be set", filepath.Join(dir, "Pulumi.yaml"))
	}
	p := Project{Dir: dir, Name: doc.Name, Backend: doc.Backend.URL}
	for _, provider := range doc.Plugins.Providers {
		if provider.Name == "infractl" && provider.Path != "" {
			p.PluginDir = provider.Path
			if !filepath.IsAbs(p.PluginDir) {
				p.PluginDir = filepath.Join(dir, p.PluginDir)
			}
		}
	}
	return p, nil
}

// Environments are the names of the environments that the project has a
// configuration for.
func (p Project) Environments() []string {
	matches, err := filepath.Glob(filepath.Join(p.Dir, "Pulumi.*.yaml"))
	if err != nil {
		return nil
	}
	var names []string
	for _, m := range matches {
		name := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(m), "Pulumi."), ".yaml")
		if name != "" {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	return names
}

// Choose returns the environment to work on: the one that was named, or the
// only one there is.
func (p Project) Choose(named string) (string, error) {
	all := p.Environments()
	if named == "" {
		switch len(all) {
		case 0:
			return "", fail(Invalid, "Write a Pulumi.<environment>.yaml first.", "there is no environment in %s", p.Dir)
		case 1:
			return all[0], nil
		}
		return "", fail(Invalid, "", "there are several environments, so name one: --env %s", strings.Join(all, ", --env "))
	}
	for _, name := range all {
		if name == named {
			return named, nil
		}
	}
	if len(all) == 0 {
		return "", fail(Invalid, "", "there is no environment %q: %s does not exist", named, filepath.Join(p.Dir, "Pulumi."+named+".yaml"))
	}
	return "", fail(Invalid, "", "there is no environment %q; there is %s", named, strings.Join(all, ", "))
}

// Config is an environment's configuration as it stands in its file.
type Config struct {
	// File is its path.
	File string
	// Values are by key, as Pulumi hands them to the program, but with
	// stacks.SecretPlaceholder in place of what is encrypted.
	Values map[string]string
	// Keys are the keys of Values, in order.
	Keys []string
	// SecretsProvider and EncryptionSalt are how its secrets are encrypted; both may be empty.
	SecretsProvider string
	EncryptionSalt  string

	text []byte
}

// ReadConfig reads an environment's configuration.
func (p Project) ReadConfig(environment string) (Config, error) {
	file := filepath.Join(p.Dir, "Pulumi."+environment+".yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		return Config{}, fail(Invalid, "", "cannot read the environment's configuration: %w", err)
	}
	return parseConfig(file, text)
}

func parseConfig(file string, text []byte) (Config, error) {
	c := Config{File: file, Values: map[string]string{}, text: text}
	var doc struct {
		SecretsProvider string               `yaml:"secretsprovider"`
		EncryptionSalt  string               `yaml:"encryptionsalt"`
		Config          map[string]yaml.Node `yaml:"config"`
	}
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return c, fail(Invalid, "", "%s: %w", c.File, err)
	}
	c.SecretsProvider, c.EncryptionSalt = doc.SecretsProvider, doc.EncryptionSalt
	for key, node := range doc.Config {
		v, err := plain(&node)
		if err != nil {
			return c, fail(Invalid, "", "%s: %s: %w", c.File, key, err)
		}
		if c.Values[key], err = asText(v); err != nil {
			return c, fail(Invalid, "", "%s: %s: %w", c.File, key, err)
		}
		c.Keys = append(c.Keys, key)
	}
	sort.Strings(c.Keys)
	return c, nil
}

// plain turns a YAML node into what encoding/json can write, with a placeholder
// for what is encrypted.
func plain(n *yaml.Node) (any, error) {
	switch n.Kind {
	case yaml.AliasNode:
		return plain(n.Alias)
	case yaml.SequenceNode:
		list := make([]any, len(n.Content))
		for i, item := range n.Content {
			v, err := plain(item)
			if err != nil {
				return nil, err
			}
			list[i] = v
		}
		return list, nil
	case yaml.MappingNode:
		if len(n.Content) == 2 && n.Content[0].Value == "secure" && n.Content[1].Kind == yaml.ScalarNode {
			return stacks.SecretPlaceholder, nil
		}
		m := make(map[string]any, len(n.Content)/2)
		for i := 0; i+1 < len(n.Content); i += 2 {
			v, err := plain(n.Content[i+1])
			if err != nil {
				return nil, err
			}
			if _, twice := m[n.Content[i].Value]; twice {
				return nil, fmt.Errorf("line %d: %s stands here twice", n.Content[i].Line, n.Content[i].Value)
			}
			m[n.Content[i].Value] = v
		}
		return m, nil
	}
	var v any
	if err := n.Decode(&v); err != nil {
		return nil, err
	}
	switch v := v.(type) {
	case nil, string, bool, int, int64, uint64, float64:
		return v, nil
	}
	return n.Value, nil // such as a date, which is text for Pulumi too
}

// asText writes a value as Pulumi hands it to a program: text as it is,
// everything else as JSON.
func asText(v any) (string, error) {
	switch v := v.(type) {
	case nil:
		return "", nil
	case string:
		return v, nil
	case bool:
		return strconv.FormatBool(v), nil
	}
	text, err := json.Marshal(v)
	return string(text), err
}
