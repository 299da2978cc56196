package health

import (
	"bytes"
	"crypto/x509"
	"encoding/csv"
	"encoding/pem"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// reading is what one host has said about itself.
type reading struct {
	load   float64
	cores  int
	uptime float64
	// memoryTotal and memoryAvailable are in KiB.
	memoryTotal, memoryAvailable int64
	// diskTotal, diskFree and diskAvailable are in blocks; the last is what is
	// free for others than root.
	diskTotal, diskFree, diskAvailable int64
	kernel, newestKernel               string
	rebootAsked                        bool
	units                              []unit
	drained                            bool
	reason, left                       string
	ready                              *answer
	certificates                       []certificate
	samples                            []sample
	balancer                           map[string]string
	nginx                              string
	releases                           []string
	database                           *database
}

// unit is a systemd unit, in systemd's words.
type unit struct{ name, load, active, sub string }

// answer is what a program said, and its exit status.
type answer struct {
	status int
	said   string
}

// certificate is the one of a file that expires first.
type certificate struct {
	file    string
	expires time.Time
}

// sample is what HAProxy has counted until a point in time.
type sample struct {
	// at is in hundredths of a second since the host booted.
	at      int64
	version string
	rows    []row
}

// row is a line of HAProxy's statistics (management guide, section 9.1). Its
// server is FRONTEND or BACKEND for the sum of a proxy.
type row struct {
	proxy, server, status string
	// check is the code of the last health check, such as L4TOUT.
	check    string
	sessions int64
	// responses counts HTTP responses, errors those of them with 5xx.
	responses, errors int64
}

// database is what PostgreSQL says.
type database struct {
	// listens says whether it is there for the application hosts, answers
	// whether it answers on its own host.
	listens, answers bool
	version          string
	clients          int64
}

// parse reads the answer of look.sh. Of one that was cut off, what comes last
// may be missing.
func parse(text []byte, mark string) (*reading, error) {
	parts := bytes.Split(text, []byte("\n"+mark+" "))[1:]
	r := &reading{}
	asked := false
	for i, part := range parts {
		name, body, _ := bytes.Cut(part, []byte("\n"))
		if i == len(parts)-1 && string(name) != "end" {
			break // nobody knows where it was cut
		}
		if err := r.section(string(name), string(body)); err != nil {
			return nil, fmt.Errorf("section %s: %w", name, err)
		}
		asked = asked || string(name) == "asked"
	}
	if !asked {
		return nil, fmt.Errorf("the answer is incomplete: %d bytes", len(text))
	}
	return r, nil
}

func (r *reading) section(name, text string) error {
	switch name {
	case "machine":
		return r.machine(text)
	case "units":
		r.parseUnits(text)
	case "drained":
		r.drained, r.reason = true, oneLine(text)
	case "left":
		r.left = oneLine(text)
	case "ready":
		status, said, _ := strings.Cut(text, "\n")
		n, err := strconv.Atoi(strings.TrimSpace(status))
		if err != nil {
			return err
		}
		r.ready = &answer{n, oneLine(said)}
	case "certificates":
		r.certificates = parseCertificates(text)
	case "sample":
		s, err := parseSample(text)
		if err != nil {
			return err
		}
		if s != nil {
			r.samples = append(r.samples, *s)
		}
	case "balancer":
		r.balancer = map[string]string{}
		for line := range strings.Lines(text) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
			r.balancer[key] = value
		}
	case "version":
		// nginx version: nginx/1.26.3
		_, version, _ := strings.Cut(oneLine(text), "/")
		r.nginx, _, _ = strings.Cut(version, " ")
	case "release":
		r.releases = strings.Fields(text)
	case "database":
		r.parseDatabase(text)
	}
	return nil
}

func (r *reading) machine(text string) error {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		word := func(i int) string {
			if i < len(f) {
				return f[i]
			}
			return ""
		}
		var err error
		switch f[0] {
		case "load":
			r.load, err = strconv.ParseFloat(word(1), 64)
		case "uptime":
			r.uptime, err = strconv.ParseFloat(word(1), 64)
		case "cores":
			r.cores, err = strconv.Atoi(word(1))
		case "kernel":
			r.kernel = word(1)
		case "newest":
			r.newestKernel = word(1)
		case "reboot":
			r.rebootAsked = true
		case "MemTotal:":
			r.memoryTotal, err = strconv.ParseInt(word(1), 10, 64)
		case "MemAvailable:":
			r.memoryAvailable, err = strconv.ParseInt(word(1), 10, 64)
		case "disk":
			_, err = fmt.Sscan(line, new(string), &r.diskTotal, &r.diskFree, &r.diskAvailable)
		}
		if err != nil {
			return fmt.Errorf("%q: %w", strings.TrimSpace(line), err)
		}
	}
	return nil
}

// parseUnits reads "haproxy.service loaded active running HAProxy Load Balancer".
// A unit that has failed is listed twice.
func (r *reading) parseUnits(text string) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 4 {
			continue
		}
		if _, twice := r.unit(f[0]); !twice {
			r.units = append(r.units, unit{f[0], f[1], f[2], f[3]})
		}
	}
}

func (r *reading) unit(name string) (unit, bool) {
	for _, u := range r.units {
		if u.name == name {
			return u, true
		}
	}
	return unit{}, false
}

// active says whether a unit runs.
func (r *reading) active(name string) bool {
	u, _ := r.unit(name)
	return u.active == "active" || u.active == "reloading"
}

func parseCertificates(text string) []certificate {
	var out []certificate
	for _, part := range strings.Split("\n"+text, "\nfile ")[1:] {
		path, rest, _ := strings.Cut(part, "\n")
		c := certificate{file: path}
		for {
			block, more := pem.Decode([]byte(rest))
			if block == nil {
				break
			}
			rest = string(more)
			x, err := x509.ParseCertificate(block.Bytes)
			if err == nil && (c.expires.IsZero() || x.NotAfter.Before(c.expires)) {
				c.expires = x.NotAfter
			}
		}
		if !c.expires.IsZero() {
			out = append(out, c)
		}
	}
	return out
}

// parseSample reads the time, the answer to "show info" and that to "show stat".
// It is nil if HAProxy has not answered.
func parseSample(text string) (*sample, error) {
	head, table, found := strings.Cut(text, "\n# ")
	if !found {
		return nil, nil
	}
	first, info, _ := strings.Cut(head, "\n")
	at, err := strconv.ParseInt(strings.TrimSpace(first), 10, 64)
	if err != nil {
		return nil, err
	}
	s := &sample{at: at}
	for line := range strings.Lines(info) {
		if version, ok := strings.CutPrefix(line, "Version: "); ok {
			// Debian's packages append theirs, as in 3.0.11-1+deb13u1.
			s.version, _, _ = strings.Cut(strings.TrimSpace(version), "-")
		}
	}
	lines := csv.NewReader(strings.NewReader(table))
	lines.FieldsPerRecord, lines.LazyQuotes = -1, true
	all, err := lines.ReadAll()
	if err != nil {
		return nil, fmt.Errorf("HAProxy's statistics: %w", err)
	}
	at0 := map[string]int{}
	for i, name := range all[0] {
		at0[name] = i
	}
	for _, record := range all[1:] {
		text := func(name string) string {
			if i, ok := at0[name]; ok && i < len(record) {
				return record[i]
			}
			return ""
		}
		number := func(name string) int64 {
			n, _ := strconv.ParseInt(text(name), 10, 64) // empty where a line has no such thing
			return n
		}
		s.rows = append(s.rows, row{
			proxy: text("pxname"), server: text("svname"), status: text("status"),
			check:    strings.TrimPrefix(text("check_status"), "* "),
			sessions: number("scur"),
			responses: number("hrsp_2xx") + number("hrsp_3xx") + number("hrsp_4xx") +
				number("hrsp_5xx") + number("hrsp_other"),
			errors: number("hrsp_5xx"),
		})
	}
	return s, nil
}

// last is the latest sample, or nil.
func (r *reading) last() *sample {
	if r == nil || len(r.samples) == 0 {
		return nil
	}
	return &r.samples[len(r.samples)-1]
}

func (s *sample) row(proxy, server string) (row, bool) {
	if s != nil {
		for _, r := range s.rows {
			if r.proxy == proxy && r.server == server {
				return r, true
			}
		}
	}
	return row{}, false
}

func (r *reading) parseDatabase(text string) {
	r.database = &database{}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		switch {
		case len(f) == 1 && f[0] == "listens":
			r.database.listens = true
		case len(f) == 3 && f[0] == "server":
			r.database.answers, r.database.version = true, f[1]
			r.database.clients, _ = strconv.ParseInt(f[2], 10, 64)
		}
	}
}

// oneLine is text on one line.
func oneLine(text string) string {
	return strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}
