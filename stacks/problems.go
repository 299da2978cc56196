package stacks

import (
	"fmt"
	"sort"
	"strings"
)

// Problem is one thing that is wrong with an environment's configuration.
type Problem struct {
	// Key names the place, such as infractl:tiers.web.count.
	Key string
	// Message says what is wrong and what would be right.
	Message string
}

// ConfigError holds everything that is wrong with a configuration, so that it
// can be put right in one go.
type ConfigError struct {
	Problems []Problem
}

// Error lists all problems, one on a line.
func (e *ConfigError) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.Key + ": " + p.Message
	}
	return strings.Join(lines, "\n")
}

// problems collects what is found.
type problems struct {
	list []Problem
}

func (p *problems) add(key, format string, args ...any) {
	p.list = append(p.list, Problem{Key: key, Message: fmt.Sprintf(format, args...)})
}

// has says whether something was already found at the key or below it, so that
// one mistake is not reported twice.
func (p *problems) has(key string) bool {
	for _, q := range p.list {
		if q.Key == key || strings.HasPrefix(q.Key, key+".") || strings.HasPrefix(q.Key, key+"[") {
			return true
		}
	}
	return false
}

func (p *problems) err() error {
	if len(p.list) == 0 {
		return nil
	}
	sort.SliceStable(p.list, func(i, j int) bool { return p.list[i].Key < p.list[j].Key })
	return &ConfigError{Problems: p.list}
}
