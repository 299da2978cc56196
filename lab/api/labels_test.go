package api

import "testing"

func TestSelectorsMatchAsDocumented(t *testing.T) {
	labels := map[string]string{"tier": "web", "env": "prod", "empty": "", "example.com/x": "1"}
	for s, want := range map[string]bool{
		"":                         true,
		"tier":                     true,
		"nothing":                  false,
		"!nothing":                 true,
		"!tier":                    false,
		"tier=web":                 true,
		"tier==web":                true,
		"tier=db":                  false,
		"tier!=db":                 true,
		"nothing!=db":              true,
		"empty=":                   true,
		"tier in (web,db)":         true,
		"tier in (lb, db)":         false,
		"tier notin (lb, db)":      true,
		"nothing notin (a)":        true,
		"tier=web,env=prod":        true,
		"tier=web, env in (a,b)":   false,
		"example.com/x=1":          true,
		"tier in (web,db),env,!lb": true,
	} {
		sel, err := parseSelector(s)
		if err != nil {
			t.Errorf("%q: %v", s, err)
			continue
		}
		if got := sel.matches(labels); got != want {
			t.Errorf("%q matches: %t, want %t", s, got, want)
		}
	}
	for _, s := range []string{"=a", "a=b=c", "a in b", "a in (b", ",", "a,", "a b", "-a", "a=-b", "!a=b", "a in (b c)"} {
		if sel, err := parseSelector(s); err == nil {
			t.Errorf("%q is understood as %v", s, sel)
		}
	}
}
