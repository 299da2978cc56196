package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/infractl/infractl/cmd/infractl/internal/engine"
	"github.com/infractl/infractl/cmd/infractl/internal/hostcheck"
	"github.com/infractl/infractl/stacks"
)

// fit fails if a server that infractl has never worked on is not fit for what it is
// to do: others would have been changed before that was noticed. It is what `hosts
// check` says, but for what an up waits for or puts right.
func (s *session) fit() error {
	if !s.engine.Spec.Uses(stacks.TargetHosts) {
		return nil
	}
	all, err := s.toCheck(nil)
	if err != nil {
		return err
	}
	// By address alone: where sshd of a known server listens may be what changes.
	known := map[string]bool{}
	for _, m := range s.engine.Members() {
		known[m.Public] = true
	}
	var fresh []hostcheck.Server
	served := false
	for _, one := range all {
		switch {
		case known[one.Address]:
			served = served || len(one.VIPs) > 0
		case one.Desired != nil:
			fresh = append(fresh, one)
		}
	}
	if served {
		leaveVIPs(fresh)
	}
	if len(fresh) == 0 {
		return nil
	}
	s.reporter.Phase("looking at %d new servers", len(fresh))
	var found []string
	for _, r := range hostcheck.Check(s.c.Context, fresh) {
		for _, f := range r.Findings {
			if f.Level != hostcheck.Problem || s.curable(f) {
				continue
			}
			text := fmt.Sprintf("%s (%s): %s", r.Title, strings.Join(r.Hosts, ", "), f.Message)
			if f.Advice != "" {
				text += "; " + f.Advice
			}
			found = append(found, text)
		}
	}
	if err := s.c.Context.Err(); err != nil {
		return &engine.Error{Kind: engine.Interrupted, Err: errors.New("interrupted; nothing was changed")}
	}
	if len(found) > 0 {
		return &engine.Error{Kind: engine.Failed, Err: errors.New(strings.Join(found, "\n")), Advice: "Nothing was changed. `infractl hosts check` shows more."}
	}
	return nil
}

// curable says whether an up gets over a problem by itself: it waits for apt and
// finishes what dpkg has left, and a network of the cloud may reach the server only
// once it is made.
func (s *session) curable(f hostcheck.Finding) bool {
	return f.Check == "dpkg" || f.Check == "private" && s.engine.Spec.Uses(stacks.TargetCloud)
}
