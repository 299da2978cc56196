package api

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Labels follow the API's rules: a key is an optional DNS prefix of at most 253
// characters and a name of at most 63, a value is empty or at most 63.
var (
	labelName   = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9._-]{0,61}[a-zA-Z0-9])?$`)
	labelPrefix = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`)
)

func validLabelKey(key string) bool {
	prefix, name, ok := strings.Cut(key, "/")
	if !ok {
		return labelName.MatchString(key)
	}
	return labelPrefix.MatchString(prefix) && labelName.MatchString(name)
}

func validLabelValue(value string) bool { return value == "" || labelName.MatchString(value) }

func checkLabels(labels *map[string]string) error {
	if labels == nil {
		return nil
	}
	var v problems
	for key, value := range *labels {
		if !validLabelKey(key) {
			v.add("labels", "'%s' is not a valid label key", key)
		}
		if !validLabelValue(value) {
			v.add("labels", "'%s' is not a valid label value", value)
		}
	}
	if v.any() {
		slices.Sort(v.fields[0].Messages)
		return v.err()
	}
	return nil
}

// selector is a label selector: all its requirements must be met.
type selector []requirement

type requirement struct {
	key string
	// values are those allowed, or with not those forbidden; nil means any.
	values []string
	not    bool
}

func (s selector) matches(labels map[string]string) bool {
	for _, r := range s {
		value, there := labels[r.key]
		met := there
		if r.values != nil {
			met = there && slices.Contains(r.values, value)
		}
		if met == r.not {
			return false
		}
	}
	return true
}

// selectorTerm is one requirement: !key, key, key=value, key==value,
// key!=value, key in (a,b), key notin (a,b).
var selectorTerm = regexp.MustCompile(`^(?:(!?)\s*([^\s=!(),]+)|([^\s=!(),]+)\s*(==|=|!=)\s*([^\s=!(),]*)|([^\s=!(),]+)\s+(in|notin)\s*\(([^()]*)\))$`)

func parseSelector(s string) (selector, error) {
	if strings.TrimSpace(s) == "" {
		return nil, nil
	}
	var out selector
	for _, term := range splitSelector(s) {
		m := selectorTerm.FindStringSubmatch(strings.TrimSpace(term))
		if m == nil {
			return nil, fmt.Errorf("label selector '%s' cannot be understood at '%s'", s, term)
		}
		var r requirement
		switch {
		case m[2] != "":
			r = requirement{key: m[2], not: m[1] == "!"}
		case m[3] != "":
			r = requirement{key: m[3], values: []string{m[5]}, not: m[4] == "!="}
		default:
			r = requirement{key: m[6], values: []string{}, not: m[7] == "notin"}
			for v := range strings.SplitSeq(m[8], ",") {
				r.values = append(r.values, strings.TrimSpace(v))
			}
		}
		if !validLabelKey(r.key) {
			return nil, fmt.Errorf("'%s' is not a valid label key", r.key)
		}
		for _, v := range r.values {
			if !validLabelValue(v) {
				return nil, fmt.Errorf("'%s' is not a valid label value", v)
			}
		}
		out = append(out, r)
	}
	return out, nil
}

// splitSelector splits at commas outside of parentheses.
func splitSelector(s string) []string {
	var out []string
	depth, from := 0, 0
	for i, r := range s {
		switch {
		case r == '(':
			depth++
		case r == ')':
			depth--
		case r == ',' && depth == 0:
			out = append(out, s[from:i])
			from = i + 1
		}
	}
	return append(out, s[from:])
}
