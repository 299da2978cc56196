package health

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/infractl/infractl/cmd/infractl/internal/engine"
	"github.com/infractl/infractl/cmd/infractl/internal/fleet"
	"github.com/infractl/infractl/provision"
	"github.com/infractl/infractl/stacks"
)

// From these shares and times on something is worth a word.
const (
	diskWarning   = 0.90
	diskBroken    = 0.97
	memoryWarning = 0.95
	// The provider renews a certificate long before.
	certificateWarning = 21 * 24 * time.Hour
)

// Ranks of problems: what matters most comes first.
const (
	rankSite = iota
	rankVIP
	rankDatabase
	rankUnreachable
	rankDown
	rankDisagreement
	rankOut
	rankSpace
	rankDrained
	rankRun
	rankLater
)

// assessment is a snapshot in the making.
type assessment struct {
	Snapshot
	facts
	fleet  *fleet.Fleet
	ranked []ranked
}

type ranked struct {
	Problem
	rank int
}

// assess makes of facts what they mean.
func assess(environment string, fl *fleet.Fleet, f facts, now time.Time) Snapshot {
	a := &assessment{fleet: fl, facts: f, Snapshot: Snapshot{
		Version: Version, Environment: environment, Time: now.UTC(), Site: f.site, VIP: []VIP{}, Masters: []string{}, Hosts: []Host{},
	}}
	for _, h := range fl.Hosts {
		a.Hosts = append(a.Hosts, a.host(h))
	}
	a.assessSite()
	a.assessVIP()
	for i := range a.Hosts {
		a.assessHost(&a.Hosts[i])
	}
	a.assessTiers()
	a.assessRuns()
	return a.finish()
}

// finish puts the problems in order.
func (a *assessment) finish() Snapshot {
	sort.SliceStable(a.ranked, func(i, j int) bool {
		x, y := a.ranked[i], a.ranked[j]
		if x.Level != y.Level {
			return x.Level == Broken
		}
		return x.rank < y.rank
	})
	a.Problems = []Problem{}
	a.Healthy = true
	for _, p := range a.ranked {
		a.Problems = append(a.Problems, p.Problem)
		a.Healthy = a.Healthy && p.Level != Broken
	}
	return a.Snapshot
}

func (a *assessment) add(rank int, level Level, host, advice, format string, args ...any) {
	a.ranked = append(a.ranked, ranked{Problem{Level: level, Host: host, Message: fmt.Sprintf(format, args...), Advice: advice}, rank})
}

// host says what is known of a host.
func (a *assessment) host(h fleet.Host) Host {
	out := Host{Name: h.Name, Server: h.Server, Tier: h.Tier, Public: h.Public, Private: h.Private}
	r := a.readings[h.Name]
	if r == nil {
		out.State = Unreachable
		if err := a.errors[h.Name]; err != nil {
			out.Error = cause(err, a.limit)
		}
		if h.Tier == stacks.TierWeb {
			a.web(&out)
			out.State = Unreachable
		}
		return out
	}
	out.Reachable = true
	out.Drained, out.DrainedReason, out.Left = r.drained, r.reason, r.left
	out.Load, out.UptimeSeconds = &r.load, &r.uptime
	if r.cores > 0 {
		perCore := r.load / float64(r.cores)
		out.LoadPerCore = &perCore
	}
	if r.memoryTotal > 0 {
		out.MemoryUsed = share(r.memoryTotal-r.memoryAvailable, r.memoryTotal)
	}
	if used := r.diskTotal - r.diskFree; used+r.diskAvailable > 0 {
		out.DiskUsed = share(used, used+r.diskAvailable) // as df counts
	}
	out.Kernel = r.kernel
	out.RebootNeeded = r.rebootAsked || r.newestKernel != "" && r.newestKernel != r.kernel
	for _, c := range r.certificates {
		if out.Certificate == nil || c.expires.Before(out.Certificate.Expires) {
			out.Certificate = &Certificate{File: c.file, Expires: c.expires.UTC()}
		}
	}
	for _, u := range r.units {
		if u.active == "failed" {
			out.FailedUnits = append(out.FailedUnits, u.name)
		}
	}
	out.Drift = a.drifts[h.Name]
	switch h.Tier {
	case stacks.TierLB:
		a.balancer(&out, r)
	case stacks.TierWeb:
		a.web(&out)
	case stacks.TierApp:
		a.application(&out, r)
	case stacks.TierDB:
		a.database(&out, r)
	}
	switch {
	case out.State == Down:
	case out.Drained:
		out.State = Drained
	case out.State != Out && r.ready != nil && r.ready.status != 0,
		h.Tier == stacks.TierLB && stopped(h.Tier, r) != "":
		out.State = Unready
	}
	return out
}

// stopped names a unit of those that serve which does not run, and how it is;
// it is empty if all run.
func stopped(tier string, r *reading) string {
	for _, u := range r.units {
		serves := slices.ContainsFunc(units[tier], func(pattern string) bool {
			ok, _ := path.Match(pattern, u.name)
			return ok
		})
		if serves && u.load == "loaded" && u.active != "active" && u.active != "reloading" {
			return fmt.Sprintf("%s is %s (%s)", u.name, u.active, u.sub)
		}
	}
	return ""
}

func share(part, whole int64) *float64 {
	s := float64(part) / float64(whole)
	return &s
}

// balancer fills in what a load balancer says of itself.
func (a *assessment) balancer(out *Host, r *reading) {
	if s := r.last(); s != nil && s.version != "" {
		out.Serving = "haproxy " + s.version
	}
	if front, ok := r.last().row("public", "FRONTEND"); ok {
		out.Sessions = &front.sessions
	}
	out.RequestsPerSecond, out.ErrorShare = a.rates(out.Name, func(r row) bool { return r.proxy == "public" && r.server == "FRONTEND" })
	role := ""
	if r.active("keepalived.service") {
		role = r.balancer["vip-state"]
	}
	if role == "MASTER" {
		a.Masters = append(a.Masters, out.Name)
	}
	switch {
	case r.balancer["alive"] != "200":
		out.State = Down
	case role == "MASTER":
		out.State = Master
	case role == "BACKUP":
		out.State = Backup
	case role == "":
		out.State = Up
	default: // FAULT, STOP
		out.State = Unready
	}
}

// web fills in what the load balancers say of a web host.
func (a *assessment) web(out *Host) {
	if r := a.readings[out.Name]; r != nil && r.nginx != "" {
		out.Serving = "nginx " + r.nginx
	}
	out.State = Up
	if r := a.readings[out.Name]; r != nil && !r.active("nginx.service") {
		out.State = Down
	}
	var sessions int64
	for _, lb := range a.fleet.Tier(stacks.TierLB) {
		last := a.readings[lb.Name].last()
		seen, ok := last.row("web", out.Name)
		if !ok {
			continue
		}
		if out.Views == nil {
			out.Views = map[string]string{}
		}
		// UP 1/2 is a host that is up and has just failed a check.
		out.Views[lb.Name], _, _ = strings.Cut(seen.status, " ")
		for _, r := range last.rows {
			if r.server == out.Name && (r.proxy == "web" || r.proxy == "write") {
				sessions += r.sessions
			}
		}
		switch out.Views[lb.Name] {
		case "UP", "no":
		case "DOWN":
			out.State = Down
		default: // NOLB, DRAIN, MAINT
			if out.State == Up {
				out.State = Out
			}
		}
	}
	if out.Views != nil {
		out.Sessions = &sessions
		var total, bad float64
		known := false
		for _, lb := range a.fleet.Tier(stacks.TierLB) {
			rate, errors := a.rates(lb.Name, func(r row) bool {
				return r.server == out.Name && (r.proxy == "web" || r.proxy == "write")
			})
			if rate != nil {
				known = true
				total += *rate
				if errors != nil {
					bad += *rate * *errors
				}
			}
		}
		if known {
			out.RequestsPerSecond = &total
			if total > 0 {
				s := bad / total
				out.ErrorShare = &s
			}
		}
	}
}

// application fills in what the gate of an application host says.
func (a *assessment) application(out *Host, r *reading) {
	if len(r.releases) > 0 {
		// /srv/shop/releases/0123456789ab
		out.Serving = path.Base(path.Dir(path.Dir(r.releases[0]))) + " " + path.Base(r.releases[0])
	}
	out.State = Up
	last := r.last()
	if last == nil {
		for _, u := range r.units {
			if strings.HasPrefix(u.name, "app-") && u.active != "active" {
				out.State = Down
			}
		}
		if u, ok := r.unit("infractl-gate.service"); ok && u.load == "loaded" {
			out.State = Down // there is one, and it does not answer
		}
		return
	}
	if back, ok := last.row("app", "BACKEND"); ok {
		out.Sessions = &back.sessions
	}
	out.RequestsPerSecond, out.ErrorShare = a.rates(out.Name, func(r row) bool { return r.proxy == "app" && r.server == "BACKEND" })
	p := Processes{}
	for _, row := range last.rows {
		if row.proxy == "app" && row.server != "FRONTEND" && row.server != "BACKEND" {
			p.Total++
			if strings.HasPrefix(row.status, "UP") || row.status == "no check" {
				p.Up++
			}
		}
	}
	out.Processes = &p
	switch {
	case p.Up == 0:
		out.State = Down
	case p.Up < p.Total:
		out.State = Partial
	}
	if front, ok := last.row("app", "FRONTEND"); ok && front.status != "OPEN" && out.State != Down {
		out.State = Out
	}
}

// database fills in what PostgreSQL says.
func (a *assessment) database(out *Host, r *reading) {
	out.State = Down
	if d := r.database; d != nil {
		if d.answers && d.listens {
			out.State = Up
		}
		if d.version != "" {
			out.Serving = "postgresql " + d.version
			out.Sessions = &d.clients
		}
	}
}

// rates are responses per second and the share of errors among them, of those
// rows of a host's HAProxy that which chooses. Both are nil if they are not
// known; the share also if there was no response.
func (a *assessment) rates(host string, which func(row) bool) (perSecond, errorShare *float64) {
	r := a.readings[host]
	last := r.last()
	if last == nil {
		return nil, nil
	}
	before, ok := a.before[host]
	if len(r.samples) > 1 {
		before, ok = r.samples[len(r.samples)-2], true
	}
	if !ok || last.at <= before.at {
		return nil, nil
	}
	var responses, errors int64
	for _, now := range last.rows {
		if !which(now) {
			continue
		}
		then, _ := before.row(now.proxy, now.server)
		if now.responses < then.responses || now.errors < then.errors {
			return nil, nil // a reload began to count anew
		}
		responses += now.responses - then.responses
		errors += now.errors - then.errors
	}
	rate := float64(responses) * 100 / float64(last.at-before.at)
	if responses == 0 {
		return &rate, nil
	}
	return &rate, share(errors, responses)
}

func (a *assessment) assessSite() {
	const advice = "what follows may say why; infractl logs --tier lb shows what it answers"
	switch s := a.Site; {
	case s.Error != "":
		a.add(rankSite, Broken, "", advice, "%s does not answer: %s", s.Asked, s.Error)
	case s.Asked != s.URL && (s.Status < 200 || s.Status > 399), s.Status >= 500:
		a.add(rankSite, Broken, "", advice, "%s answers with status %d", s.Asked, s.Status)
	}
}

// assessVIP compares whom the cloud sends the virtual IPs to with who believes
// to be the master.
func (a *assessment) assessVIP() {
	held := map[string]string{}
	for _, h := range a.holders {
		held[h.Family] = strings.TrimPrefix(h.Server, a.Environment+"-")
	}
	for _, family := range []string{"ipv4", "ipv6"} {
		if a.wire && len(a.Masters) == 1 {
			held[family] = a.Masters[0]
		}
		if address := a.fleet.VIP[family]; address != "" {
			a.VIP = append(a.VIP, VIP{Family: family, Address: address, Holder: held[family]})
		}
	}
	const wait = "the load balancers put it right within seconds; if not: infractl logs --tier lb"
	if a.cloudErr != nil {
		a.add(rankVIP, Broken, "", "the load balancers cannot move the virtual IP either, if it is the cloud that does not answer",
			"nobody knows who holds the virtual IP: %s", a.cloudCause())
	}
	unheard := 0
	for _, h := range a.Hosts {
		if h.Tier == stacks.TierLB && !h.Reachable {
			unheard++
		}
	}
	switch {
	case len(a.Masters) > 1:
		a.add(rankVIP, Broken, "", "see whether they hear each other in the private network; infractl logs --tier lb",
			"%s each believe to be the master of the virtual IP", strings.Join(a.Masters, " and "))
	case len(a.Masters) == 0 && unheard == 0:
		a.add(rankVIP, Broken, "", wait, "no load balancer believes to be the master of the virtual IP")
	}
	if a.cloudErr != nil || a.wire {
		return
	}
	for _, v := range a.VIP {
		switch {
		case v.Holder == "":
			a.add(rankVIP, Broken, "", wait, "the cloud sends %s to no server", v.Address)
		case a.state(v.Holder) == "":
			a.add(rankVIP, Broken, "", wait, "the cloud sends %s to %s", v.Address, v.Holder)
		case len(a.Masters) == 1 && v.Holder != a.Masters[0]:
			a.add(rankVIP, Broken, a.Masters[0], wait, "the cloud sends %s to %s, but the master is %s", v.Address, v.Holder, a.Masters[0])
		case len(a.Masters) == 0 && unheard > 0 && a.state(v.Holder) != Unreachable:
			a.add(rankVIP, Broken, v.Holder, wait, "the cloud sends %s to %s, which does not believe to be the master", v.Address, v.Holder)
		}
	}
}

// state is the state of a host by its name; empty if there is no such host.
func (a *assessment) state(name string) State {
	for _, h := range a.Hosts {
		if h.Name == name {
			return h.State
		}
	}
	return ""
}

// assessHost adds what is wrong with one host: the reason why it does not
// serve, if it does not, and everything that will be a reason some day.
func (a *assessment) assessHost(h *Host) {
	if !h.Reachable {
		a.unreachable(h)
		return
	}
	r := a.readings[h.Name]
	rank := rankDown
	if h.Tier == stacks.TierDB {
		rank = rankDatabase
	}
	logs := "infractl logs --host " + h.Name
	switch {
	case h.State == Down:
		a.add(rank, Broken, h.Name, logs, "%s is down: %s", h.Name, a.why(h, r))
	case h.State == Unready:
		a.add(rank, Broken, h.Name, logs, "%s is not ready: %s", h.Name, a.why(h, r))
	case h.State == Partial:
		a.add(rank, Broken, h.Name, logs, "%s: %d of %d processes answer", h.Name, h.Processes.Up, h.Processes.Total)
	case h.State == Out:
		a.add(rankOut, Broken, h.Name, "infractl undrain "+h.Name, "%s gets no new requests, though nobody has drained it: %s", h.Name, a.why(h, r))
	}
	if len(h.Views) > 1 && !h.Drained {
		if words, agreed := a.views(h); !agreed {
			a.add(rankDisagreement, Broken, h.Name, "see whether the one that sees it down reaches it in the private network",
				"the load balancers do not agree on %s: %s", h.Name, words)
		}
	}
	if h.Drained {
		a.drained(h)
	}
	if h.DiskUsed != nil {
		if level := Warning; *h.DiskUsed >= diskWarning {
			if *h.DiskUsed >= diskBroken {
				level = Broken
			}
			a.add(rankSpace, level, h.Name, "make room there: infractl ssh "+h.Name, "%s: its disk is %s full", h.Name, percent(*h.DiskUsed))
		}
	}
	if h.MemoryUsed != nil && *h.MemoryUsed >= memoryWarning {
		a.add(rankSpace, Warning, h.Name, "a larger server type for tier "+h.Tier+", or more hosts", "%s: %s of its memory is in use", h.Name, percent(*h.MemoryUsed))
	}
	for _, u := range h.FailedUnits {
		if h.State != Down && h.State != Unready { // else it was the reason
			a.add(rankLater, Warning, h.Name, "infractl logs --host "+h.Name+" --unit "+u, "%s: %s has failed", h.Name, u)
		}
	}
	if c := h.Certificate; c != nil {
		switch left := c.Expires.Sub(a.Time); {
		case left <= 0:
			a.add(rankDown, Broken, h.Name, "infractl up renews it", "%s: the certificate %s expired on %s", h.Name, c.File, c.Expires.Format(time.DateOnly))
		case left < certificateWarning:
			a.add(rankLater, Warning, h.Name, "infractl up renews it", "%s: the certificate %s expires on %s", h.Name, c.File, c.Expires.Format(time.DateOnly))
		}
	}
	if n := h.Drift.Count(); n > 0 {
		first := append(slices.Clone(h.Drift.Files), h.Drift.Other...)
		more := ""
		if n > 2 {
			more = fmt.Sprintf(" and %d more", n-2)
			first = first[:2]
		}
		a.add(rankLater, Warning, h.Name, "infractl drift shows how, infractl up puts it back", "%s is not as the last run left it: %s%s", h.Name, strings.Join(first, ", "), more)
	}
	if h.RebootNeeded {
		a.add(rankLater, Warning, h.Name, "infractl os upgrade", "%s has to boot for its updates", h.Name)
	}
}

func (a *assessment) unreachable(h *Host) {
	rank := rankUnreachable
	if h.Tier == stacks.TierDB {
		rank = rankDatabase
	}
	advice := "see in the cloud's console whether it runs"
	var e *provision.Error
	if err := a.errors[h.Name]; errors.As(err, &e) && !errors.Is(err, provision.ErrUnreachable) && e.Hint != "" {
		advice = e.Hint
	}
	serves := ""
	if words, agreed := a.views(h); agreed && strings.HasSuffix(words, " UP") {
		serves = " (the load balancers still reach it)"
	}
	if a.slow[h.Name] {
		a.add(rank, Broken, h.Name, "see what keeps it, or this computer, busy; --timeout waits longer", "%s is too slow: it lets in, but gives %s%s", h.Name, h.Error, serves)
		return
	}
	a.add(rank, Broken, h.Name, advice, "%s cannot be reached: %s%s", h.Name, h.Error, serves)
}

// views says what the load balancers see of a web host, and whether that is the same.
func (a *assessment) views(h *Host) (string, bool) {
	by := map[string][]string{}
	for lb, word := range h.Views {
		if seen, _ := a.readings[lb].last().row("web", h.Name); word == "DOWN" && seen.check != "" {
			word += " (" + seen.check + ")"
		}
		by[word] = append(by[word], lb)
	}
	var parts []string
	for word, lbs := range by {
		sort.Strings(lbs)
		parts = append(parts, strings.Join(lbs, " and ")+" "+word)
	}
	sort.Strings(parts)
	words := map[string]bool{}
	for _, word := range h.Views {
		words[word] = true
	}
	return strings.Join(parts, ", "), len(words) == 1
}

// why says why a host does not serve.
func (a *assessment) why(h *Host, r *reading) string {
	if words := stopped(h.Tier, r); words != "" {
		return words
	}
	switch h.Tier {
	case stacks.TierLB:
		switch code := r.balancer["alive"]; code {
		case "200":
		case "503":
			return "HAProxy reaches no web host"
		case "000", "":
			return "HAProxy does not answer"
		default:
			return "HAProxy answers " + code
		}
		if role := r.balancer["vip-state"]; role != "MASTER" && role != "BACKUP" {
			return "keepalived says " + role
		}
		if r.balancer["lb-health"] != "0" {
			return "it was not fit to serve within the last seconds"
		}
	case stacks.TierWeb:
		if words, _ := a.views(h); words != "" && !strings.HasSuffix(words, " UP") {
			return words
		}
	case stacks.TierApp:
		if h.Processes == nil {
			return "its gate does not answer"
		}
		if h.State == Out {
			return "its gate is closed"
		}
		if h.Processes.Up < h.Processes.Total {
			return fmt.Sprintf("%d of %d processes answer", h.Processes.Up, h.Processes.Total)
		}
	case stacks.TierDB:
		if d := r.database; d != nil && d.answers {
			return "PostgreSQL does not listen on " + h.Private
		}
		return "PostgreSQL does not answer"
	}
	if r.ready != nil && r.ready.status == 124 {
		return "its check did not end within a second"
	}
	if r.ready != nil && r.ready.said != "" {
		return r.ready.said
	}
	return "its check fails and does not say why"
}

// drained adds what is to be said of a drained host: an operator who wanted it
// so knows, a run that was cut off does not.
func (a *assessment) drained(h *Host) {
	left := ""
	if h.Left != "" {
		left = ", with " + h.Left + " then"
	}
	advice := "infractl undrain " + h.Name + " lets it take work again"
	switch {
	case fleet.Passing(h.DrainedReason) && a.runs.Running != "":
		a.add(rankDrained, Warning, h.Name, "wait for the run that is under way", "%s is drained for the time of a run (%s)%s", h.Name, h.DrainedReason, left)
	case fleet.Passing(h.DrainedReason):
		a.add(rankDrained, Broken, h.Name, advice, "%s is still drained by a run (%s) that seems to have been cut off%s", h.Name, h.DrainedReason, left)
	case h.DrainedReason == "":
		a.add(rankDrained, Broken, h.Name, advice, "%s is drained, and nobody has said why%s", h.Name, left)
	default:
		a.add(rankDrained, Warning, h.Name, advice, "%s is drained: %s%s", h.Name, h.DrainedReason, left)
	}
}

// assessTiers compares the hosts of a tier.
func (a *assessment) assessTiers() {
	for _, tier := range stacks.TierNames() {
		by := map[string][]string{}
		for _, h := range a.Hosts {
			if h.Tier == tier && h.Serving != "" {
				by[h.Serving] = append(by[h.Serving], h.Name)
			}
		}
		if len(by) < 2 {
			continue
		}
		var parts []string
		for serving, hosts := range by {
			parts = append(parts, strings.Join(hosts, " and ")+": "+serving)
		}
		sort.Strings(parts)
		advice := "infractl os upgrade"
		if tier == stacks.TierApp {
			advice = "infractl up"
		}
		a.add(rankLater, Warning, "", advice, "tier %s does not serve the same everywhere: %s", tier, strings.Join(parts, "; "))
	}
}

// assessRuns adds what the state tells of runs.
func (a *assessment) assessRuns() {
	if !a.runs.LastChange.IsZero() {
		t := a.runs.LastChange.UTC()
		a.LastChange = &t
	}
	a.Running, a.Unfinished = a.runs.Running, a.runs.Unfinished
	if u := a.Unfinished; u != nil {
		a.add(rankRun, Warning, "", "infractl up goes on from there", "the last run (%s, begun %s) has not ended well", u.Operation, u.Since.Local().Format(time.DateTime))
	}
}

// cause is the innermost reason of an error, in a few words. limit is how long
// was waited.
func cause(err error, limit time.Duration) string {
	var late net.Error
	if errors.Is(err, context.DeadlineExceeded) || errors.As(err, &late) && late.Timeout() {
		return fmt.Sprintf("no answer within %.1f s", limit.Seconds())
	}
	var op *net.OpError
	if errors.As(err, &op) {
		var call *os.SyscallError
		if errors.As(op.Err, &call) {
			return call.Err.Error()
		}
		return op.Err.Error()
	}
	var e *provision.Error
	if errors.As(err, &e) {
		words := ""
		if len(e.Kinds) > 0 && !errors.Is(e.Kinds[0], provision.ErrUnreachable) {
			words = e.Kinds[0].Error()
		}
		detail := e.Detail
		if detail == "" && e.Err != nil {
			detail = e.Err.Error()
		}
		switch {
		case words == "":
			return oneLine(detail)
		case detail == "":
			return words
		}
		return words + ": " + oneLine(detail)
	}
	return oneLine(err.Error())
}

// cloudCause is why the cloud could not be asked, in a few words.
func (a *assessment) cloudCause() string {
	var own *engine.Error
	if errors.As(a.cloudErr, &own) && own.Kind == engine.Invalid {
		return oneLine(own.Err.Error())
	}
	var network net.Error
	if errors.As(a.cloudErr, &network) || errors.Is(a.cloudErr, context.DeadlineExceeded) {
		why := cause(a.cloudErr, a.limit)
		if strings.HasPrefix(why, "no answer ") {
			return "the cloud gives " + why
		}
		return "the cloud cannot be reached: " + why
	}
	return oneLine(a.cloudErr.Error())
}

func percent(share float64) string { return fmt.Sprintf("%.0f %%", share*100) }
