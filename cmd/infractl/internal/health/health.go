// Package health looks at all hosts of an environment at once and says what is
// wrong: with the site as its clients see it, with the virtual IP, and with
// every host.
package health

import (
	"time"
)

// Version is the version of a Snapshot's JSON. It changes when something is
// taken out of it or gets another meaning.
const Version = 1

// Snapshot is an environment at one point in time. Numbers that nobody knows
// are nil.
type Snapshot struct {
	Version     int    `json:"version"`
	Environment string `json:"environment"`
	Healthy     bool   `json:"healthy"`
	// Time is when the look began, Seconds how long it took.
	Time    time.Time `json:"time"`
	Seconds float64   `json:"seconds"`
	// LastChange is when the state was last written, Running who is changing
	// the environment now, Unfinished a run that has not ended well.
	LastChange *time.Time  `json:"lastChange,omitempty"`
	Running    string      `json:"running,omitempty"`
	Unfinished *Unfinished `json:"unfinished,omitempty"`
	Site       Site        `json:"site"`
	VIP        []VIP       `json:"vip"`
	// Masters are the load balancers that believe to be the master.
	Masters []string `json:"masters"`
	Hosts   []Host   `json:"hosts"`
	// Problems are what is wrong, most important first. An environment is
	// healthy if there are at most warnings.
	Problems []Problem `json:"problems"`
}

// Unfinished is a run that has not ended well.
type Unfinished struct {
	Operation string    `json:"operation"`
	Since     time.Time `json:"since"`
}

// Site is what a client gets.
type Site struct {
	URL string `json:"url"`
	// Asked is the address that was asked for.
	Asked string `json:"asked"`
	// Status is the HTTP status, 0 if there was no answer.
	Status int `json:"status"`
	// Milliseconds is how long the answer took, with the connection.
	Milliseconds float64 `json:"milliseconds"`
	Error        string  `json:"error,omitempty"`
}

// VIP is a virtual IP.
type VIP struct {
	Family  string `json:"family"`
	Address string `json:"address"`
	// Holder is the host that the cloud sends it to; empty if it is not known.
	Holder string `json:"holder"`
}

// Host is one host.
type Host struct {
	Name    string `json:"name"`
	Server  string `json:"server"`
	Tier    string `json:"tier"`
	Public  string `json:"public"`
	Private string `json:"private"`
	// Reachable says whether it answered over SSH, Error why it did not.
	Reachable bool   `json:"reachable"`
	Error     string `json:"error,omitempty"`
	State     State  `json:"state"`
	// Views are what the load balancers' HAProxy says of a web host, in its
	// words, by load balancer.
	Views map[string]string `json:"views,omitempty"`
	// Processes are those of an application host.
	Processes *Processes `json:"processes,omitempty"`
	Drained   bool       `json:"drained"`
	// DrainedReason is why, Left what was in flight when the time to drain was up.
	DrainedReason string `json:"drainedReason,omitempty"`
	Left          string `json:"left,omitempty"`
	// Sessions are client connections of a load balancer, requests under way
	// at a web or application host, and clients of a database host.
	Sessions          *int64   `json:"sessions,omitempty"`
	RequestsPerSecond *float64 `json:"requestsPerSecond,omitempty"`
	// ErrorShare is the share of answers with status 5xx, from 0 to 1.
	ErrorShare *float64 `json:"errorShare,omitempty"`
	// Load is the load average over a minute, also for each core.
	Load        *float64 `json:"load,omitempty"`
	LoadPerCore *float64 `json:"loadPerCore,omitempty"`
	// MemoryUsed and DiskUsed, of the file system at /, are shares from 0 to 1.
	MemoryUsed *float64 `json:"memoryUsed,omitempty"`
	DiskUsed   *float64 `json:"diskUsed,omitempty"`
	// UptimeSeconds is the time since the host booted.
	UptimeSeconds *float64 `json:"uptimeSeconds,omitempty"`
	// Serving is the serving daemon and its version, such as haproxy 3.0.11, or
	// the application and the first digits of its release's digest.
	Serving      string `json:"serving,omitempty"`
	Kernel       string `json:"kernel,omitempty"`
	RebootNeeded bool   `json:"rebootNeeded"`
	// Certificate is the one on the host that expires first.
	Certificate *Certificate `json:"certificate,omitempty"`
	FailedUnits []string     `json:"failedUnits,omitempty"`
	// Drift is nil if it is not known.
	Drift *Drift `json:"drift,omitempty"`
}

// State is how a host is, in a word.
type State string

// The states of a host.
const (
	// Unreachable: it does not answer over SSH.
	Unreachable State = "unreachable"
	// Down: what it is there for does not work.
	Down State = "down"
	// Unready: it works, but something of it does not.
	Unready State = "not ready"
	// Partial: some of an application host's processes answer.
	Partial State = "partial"
	// Drained: it takes no new work, because somebody wanted it so.
	Drained State = "drained"
	// Out: HAProxy gives it no new requests, though it is not drained.
	Out State = "out"
	// Up: it serves.
	Up State = "up"
	// Master and Backup: a load balancer that serves, and what it believes to be.
	Master State = "master"
	Backup State = "backup"
)

// Processes are an application host's, as its gate sees them.
type Processes struct {
	Up    int `json:"up"`
	Total int `json:"total"`
}

// Certificate is a certificate on a host.
type Certificate struct {
	File    string    `json:"file"`
	Expires time.Time `json:"expires"`
}

// Drift is what on a host is not as the last run wanted it.
type Drift struct {
	// Files are paths of managed files, Other is everything else.
	Files []string `json:"files"`
	Other []string `json:"other"`
}

// Count is how many things differ.
func (d *Drift) Count() int {
	if d == nil {
		return 0
	}
	return len(d.Files) + len(d.Other)
}

// Level says how bad a problem is.
type Level string

const (
	// Broken is what makes an environment unhealthy.
	Broken Level = "problem"
	// Warning is what somebody should know.
	Warning Level = "warning"
)

// Problem is something that is wrong.
type Problem struct {
	Level Level `json:"level"`
	// Host is the host that has it; empty if it is not one host's.
	Host    string `json:"host,omitempty"`
	Message string `json:"message"`
	// Advice is what to do about it.
	Advice string `json:"advice,omitempty"`
}
