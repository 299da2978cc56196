package provision

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// configVariable names a file that is read instead of ~/.ssh/config and
// /etc/ssh/ssh_config, like ssh's option -F.
const configVariable = "INFRACTL_SSH_CONFIG"

const (
	// systemConfig and systemKnownHosts are where OpenSSH of Debian has what
	// is for all users.
	systemConfig     = "/etc/ssh/ssh_config"
	systemKnownHosts = "/etc/ssh/ssh_known_hosts"
	// includeDepth is how deep OpenSSH lets files include each other.
	includeDepth = 16
)

// settings are what ssh_config(5) says about one host. Whatever would weaken the
// check of host keys is not among them.
type settings struct {
	// original is the host as it was asked for.
	original string
	hostName string
	user     string
	port     int
	// family is tcp, tcp4 or tcp6.
	family  string
	timeout time.Duration
	// jump is ProxyJump's value without "none".
	jump             string
	hostKeyAlias     string
	userKnownHosts   []string
	globalKnownHosts []string
	revokedHostKeys  string
	identityFiles    []string
	certificateFiles []string
	identitiesOnly   bool
	// agent is the agent's socket; it is empty for none.
	agent string
}

// readSettings reads what the user's files say about a host. A user and a port
// that are given here win, like those on ssh's command line.
func readSettings(host, user string, port int) (*settings, error) {
	me, err := whoAmI()
	if err != nil {
		return nil, err
	}
	r := newConfigReader(me, host, user, port)
	if name := os.Getenv(configVariable); name != "" {
		if err := r.file(name, origin{user: true, required: true}, yes, 0); err != nil {
			return nil, err
		}
		return r.finish()
	}
	if err := r.file(filepath.Join(me.home, ".ssh", "config"), origin{user: true, private: true}, yes, 0); err != nil {
		return nil, err
	}
	if err := r.file(systemConfig, origin{}, yes, 0); err != nil {
		return nil, err
	}
	return r.finish()
}

// account is the user who runs this process.
type account struct {
	name, id, home string
}

func whoAmI() (account, error) {
	u, err := user.Current()
	if err != nil {
		return account{}, fmt.Errorf("cannot find out who runs this: %w", err)
	}
	home, err := os.UserHomeDir()
	if err != nil {
		home = u.HomeDir
	}
	return account{name: u.Username, id: u.Uid, home: home}, nil
}

// activity says whether the lines of a block hold for the host. Less is more
// restrictive, so that what two conditions make together is their minimum.
type activity int

const (
	no activity = iota
	// perhaps is for conditions that only ssh can judge, such as Match exec.
	perhaps
	yes
)

func truth(b bool) activity {
	if b {
		return yes
	}
	return no
}

// origin is what kind of file is read.
type origin struct {
	// user is for files of the user, system-wide ones are the others.
	user bool
	// private files must not be writable for others.
	private bool
	// required files must exist.
	required bool
}

// configReader reads configuration files for one host, in ssh's order: the
// first value of a keyword wins.
type configReader struct {
	me   account
	host string
	set  map[string]bool
	// values are those of keywords with a single argument, which are expanded
	// in the end.
	values map[string]string
	lists  map[string][]string
	port   int
}

func newConfigReader(me account, host, user string, port int) *configReader {
	r := &configReader{me: me, host: host, set: map[string]bool{}, values: map[string]string{}, lists: map[string][]string{}}
	if user != "" {
		r.set["user"], r.values["user"] = true, user
	}
	if port != 0 {
		r.set["port"], r.port = true, port
	}
	return r
}

// file reads a file whose first lines are as active as it says.
func (r *configReader) file(name string, o origin, active activity, depth int) error {
	if depth > includeDepth {
		return fmt.Errorf("%s: files include each other more than %d deep", name, includeDepth)
	}
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) && !o.required {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot read the SSH configuration: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("cannot read the SSH configuration: %w", err)
	}
	if o.private {
		stat, ok := info.Sys().(*syscall.Stat_t)
		if info.Mode().Perm()&0o022 != 0 || ok && stat.Uid != 0 && strconv.Itoa(int(stat.Uid)) != r.me.id {
			return fmt.Errorf("%s belongs to someone else or others can write to it, so ssh and infractl do not use it; run: chmod go-w %s", name, name)
		}
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return fmt.Errorf("cannot read the SSH configuration: %w", err)
	}
	block := block{active: active, parent: active}
	for i, line := range strings.Split(string(text), "\n") {
		if err := r.line(line, o, &block, depth); err != nil {
			return fmt.Errorf("%s, line %d: %w", name, i+1, err)
		}
	}
	return nil
}

// block is the Host or Match block that a line stands in.
type block struct {
	active activity
	// parent is what an included file's blocks cannot exceed.
	parent activity
	// doubt is the condition for which active is perhaps.
	doubt string
}

// single are the keywords whose first value wins and that matter here.
var single = []string{
	"hostname", "user", "port", "identitiesonly", "identityagent", "hostkeyalias", "connecttimeout",
	"addressfamily", "revokedhostkeys", "proxycommand", "proxyjump", "canonicalizehostname",
}

// several are the keywords whose values add up; those of lists are given at once.
var (
	several = []string{"identityfile", "certificatefile"}
	list    = []string{"userknownhostsfile", "globalknownhostsfile"}
)

func (r *configReader) line(line string, o origin, b *block, depth int) error {
	keyword, rest := cutKeyword(line)
	if keyword == "" {
		return nil
	}
	words, err := splitWords(rest)
	if err != nil {
		return err
	}
	needed := slices.Contains(single, keyword) || slices.Contains(several, keyword) || slices.Contains(list, keyword)
	if !needed && keyword != "host" && keyword != "match" && keyword != "include" {
		return nil
	}
	if len(words) == 0 || words[0] == "" {
		return fmt.Errorf("%s has no argument", keyword)
	}
	switch keyword {
	case "host":
		b.active, b.doubt = min(b.parent, truth(matchesHost(r.host, words))), ""
		return nil
	case "match":
		active, doubt, err := r.match(words)
		b.active, b.doubt = min(b.parent, active), doubt
		return err
	case "include":
		return r.include(words, o, *b, depth)
	}
	if b.active == no {
		return nil
	}
	if keyword == "proxyjump" {
		// Its value is not quoted and has no blanks; a comment may follow.
		words = words[:1]
	}
	decided := r.set[keyword]
	if keyword == "proxyjump" || keyword == "proxycommand" {
		// Whichever comes first wins.
		decided = r.set["proxyjump"] || r.set["proxycommand"]
	}
	if decided && !slices.Contains(several, keyword) {
		return nil
	}
	if b.active == perhaps {
		return fmt.Errorf("the block here has the condition %q, which infractl cannot judge, and sets %s for %s; set it in a Host block above", b.doubt, keyword, r.host)
	}
	// For ssh, a ConnectTimeout of none is none at all.
	r.set[keyword] = keyword != "connecttimeout" || !strings.EqualFold(words[0], "none")
	return r.take(keyword, words)
}

// take notes a value.
func (r *configReader) take(keyword string, words []string) error {
	word := words[0]
	switch {
	case slices.Contains(list, keyword):
		r.lists[keyword] = words
	case slices.Contains(several, keyword):
		if !slices.Contains(r.lists[keyword], word) {
			r.lists[keyword] = append(r.lists[keyword], word)
		}
	case keyword == "port":
		port, err := strconv.Atoi(word)
		if err != nil || port < 1 || port > 65535 {
			return fmt.Errorf("%q is no port", word)
		}
		r.port = port
	case keyword == "identitiesonly":
		if _, err := yesOrNo(word); err != nil {
			return err
		}
		r.values[keyword] = word
	case keyword == "connecttimeout":
		if _, err := duration(word); err != nil {
			return err
		}
		r.values[keyword] = word
	case keyword == "addressfamily":
		if _, ok := families[strings.ToLower(word)]; !ok {
			return fmt.Errorf("%q is no address family; there are any, inet and inet6", word)
		}
		r.values[keyword] = strings.ToLower(word)
	case keyword == "proxyjump":
		if _, err := parseJumps(word); err != nil {
			return err
		}
		r.values[keyword] = word
	default:
		r.values[keyword] = word
	}
	return nil
}

var families = map[string]string{"any": "tcp", "inet": "tcp4", "inet6": "tcp6"}

func (r *configReader) include(words []string, o origin, b block, depth int) error {
	for _, pattern := range words {
		switch {
		case strings.HasPrefix(pattern, "~") && !o.user:
			return fmt.Errorf("a file for all users cannot include %s", pattern)
		case strings.HasPrefix(pattern, "~"):
			var err error
			if pattern, err = r.tilde(pattern); err != nil {
				return err
			}
		case filepath.IsAbs(pattern):
		case o.user:
			pattern = filepath.Join(r.me.home, ".ssh", pattern)
		default:
			pattern = filepath.Join(filepath.Dir(systemConfig), pattern)
		}
		names, err := filepath.Glob(pattern)
		if err != nil {
			return fmt.Errorf("cannot include %s: %w", pattern, err)
		}
		for _, name := range names {
			if err := r.file(name, origin{user: o.user, private: true}, b.active, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

// match judges the conditions of a Match line for the host. The second value is
// the condition that it cannot judge.
func (r *configReader) match(words []string) (activity, string, error) {
	result, doubt := yes, ""
	for i := 0; i < len(words); i++ {
		word := strings.ToLower(words[i])
		condition, negated := strings.CutPrefix(word, "!")
		one := perhaps
		switch condition {
		case "all":
			if len(words) != 1 {
				return no, "", errors.New("the condition all cannot be combined with others")
			}
			one = yes
		case "canonical", "final":
			if doubt == "" {
				doubt = words[i]
			}
		default:
			i++
			if i == len(words) || words[i] == "" {
				return no, "", fmt.Errorf("the condition %s has no argument", condition)
			}
			switch condition {
			case "host":
				host := r.host
				if name, ok := r.values["hostname"]; ok {
					host, _ = expandName(name, r.host)
				}
				one = truth(matchList(strings.ToLower(host), strings.ToLower(words[i])))
			case "originalhost":
				one = truth(matchList(strings.ToLower(r.host), strings.ToLower(words[i])))
			case "user":
				name := r.values["user"]
				if name == "" {
					name = r.me.name
				}
				one = truth(matchList(name, words[i]))
			case "localuser":
				one = truth(matchList(r.me.name, words[i]))
			default:
				if doubt == "" {
					doubt = strings.Join(words[i-1:i+1], " ")
				}
			}
		}
		if negated && one != perhaps {
			one = yes - one
		}
		result = min(result, one)
	}
	if result != perhaps {
		doubt = ""
	} else {
		doubt = "Match " + doubt
	}
	return result, doubt, nil
}

// finish fills in defaults and expands what was read.
func (r *configReader) finish() (*settings, error) {
	s := &settings{original: r.host, port: r.port, user: r.values["user"], family: "tcp"}
	if s.port == 0 {
		s.port = 22
	}
	if s.user == "" {
		s.user = r.me.name
	}
	var err error
	s.hostName = r.host
	if name, ok := r.values["hostname"]; ok {
		if s.hostName, err = expandName(name, r.host); err != nil {
			return nil, fmt.Errorf("HostName %s: %w", name, err)
		}
	}
	if net.ParseIP(s.hostName) == nil {
		s.hostName = strings.ToLower(s.hostName)
		if c := strings.ToLower(r.values["canonicalizehostname"]); (c == "yes" || c == "always") && strings.Count(s.hostName, ".") <= 1 {
			return nil, fmt.Errorf("CanonicalizeHostname is set, but infractl looks no names up to complete them; write %s in full, or give it a HostName", r.host)
		}
	}
	if command := r.values["proxycommand"]; command != "" && !strings.EqualFold(command, "none") {
		return nil, fmt.Errorf("%s is reached by a ProxyCommand, which infractl does not run; use ProxyJump instead (ProxyCommand ssh -W %%h:%%p HOST is ProxyJump HOST)", r.host)
	}
	if family := r.values["addressfamily"]; family != "" {
		s.family = families[family]
	}
	if text := r.values["connecttimeout"]; text != "" {
		s.timeout, _ = duration(text)
	}
	if text := r.values["identitiesonly"]; text != "" {
		s.identitiesOnly, _ = yesOrNo(text)
	}
	s.hostKeyAlias = r.values["hostkeyalias"]
	e := r.expander(s)
	if jump := r.values["proxyjump"]; !strings.EqualFold(jump, "none") {
		if s.jump, err = e.only("hnpr").percent(jump); err != nil {
			return nil, fmt.Errorf("ProxyJump %s: %w", jump, err)
		}
	}
	paths := func(keyword string, fallback ...string) []string {
		names, ok := r.lists[keyword]
		if !ok {
			names = fallback
		}
		var out []string
		for _, name := range names {
			if strings.EqualFold(name, "none") {
				continue
			}
			path, pathErr := r.path(name, e)
			if pathErr != nil {
				err = errors.Join(err, fmt.Errorf("%s %s: %w", keyword, name, pathErr))
				continue
			}
			out = append(out, path)
		}
		return out
	}
	s.identityFiles = paths("identityfile")
	s.certificateFiles = paths("certificatefile")
	s.userKnownHosts = paths("userknownhostsfile", "~/.ssh/known_hosts", "~/.ssh/known_hosts2")
	s.globalKnownHosts = paths("globalknownhostsfile", systemKnownHosts, systemKnownHosts+"2")
	if name := r.values["revokedhostkeys"]; name != "" && !strings.EqualFold(name, "none") {
		var pathErr error
		s.revokedHostKeys, pathErr = r.path(name, e)
		err = errors.Join(err, pathErr)
	}
	agent, agentErr := r.agent(e)
	s.agent = agent
	return s, errors.Join(err, agentErr)
}

// agent is the socket of the agent that IdentityAgent names.
func (r *configReader) agent(e expander) (string, error) {
	name, ok := r.values["identityagent"]
	switch {
	case !ok || name == agentVariable:
		return os.Getenv(agentVariable), nil
	case strings.EqualFold(name, "none"):
		return "", nil
	case strings.HasPrefix(name, "$") && !strings.HasPrefix(name, "${"):
		return os.Getenv(name[1:]), nil
	}
	path, err := r.path(name, e)
	if err != nil {
		return "", fmt.Errorf("IdentityAgent %s: %w", name, err)
	}
	return path, nil
}

// path expands a file's name.
func (r *configReader) path(name string, e expander) (string, error) {
	name, err := r.tilde(name)
	if err != nil {
		return "", err
	}
	if name, err = variables(name); err != nil {
		return "", err
	}
	return e.percent(name)
}

// tilde expands ~ and ~user at the beginning of a file's name.
func (r *configReader) tilde(name string) (string, error) {
	rest, ok := strings.CutPrefix(name, "~")
	if !ok {
		return name, nil
	}
	who, rest, _ := strings.Cut(rest, "/")
	home := r.me.home
	if who != "" {
		u, err := user.Lookup(who)
		if err != nil {
			return "", fmt.Errorf("%s: %w", name, err)
		}
		home = u.HomeDir
	}
	return filepath.Join(home, rest), nil
}

var braced = regexp.MustCompile(`\$\{([^}]*)\}`)

// variables puts the values of environment variables in.
func variables(text string) (string, error) {
	var err error
	return braced.ReplaceAllStringFunc(text, func(word string) string {
		value, ok := os.LookupEnv(word[2 : len(word)-1])
		if !ok {
			err = fmt.Errorf("the environment variable %s is not set", word[2:len(word)-1])
		}
		return value
	}), err
}

// expander knows what percent signs stand for.
type expander map[byte]string

func (r *configReader) expander(s *settings) expander {
	local, _ := os.Hostname()
	short, _, _ := strings.Cut(local, ".")
	alias := s.hostKeyAlias
	if alias == "" {
		alias = s.original
	}
	return expander{
		'd': r.me.home, 'h': s.hostName, 'i': r.me.id, 'k': alias, 'L': short, 'l': local,
		'n': s.original, 'p': strconv.Itoa(s.port), 'r': s.user, 'u': r.me.name,
	}
}

// only is an expander for fewer letters.
func (e expander) only(letters string) expander {
	out := expander{}
	for _, letter := range []byte(letters) {
		out[letter] = e[letter]
	}
	return out
}

func (e expander) percent(text string) (string, error) {
	var out strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] != '%' {
			out.WriteByte(text[i])
			continue
		}
		i++
		if i == len(text) {
			return "", errors.New("it ends in a percent sign")
		}
		value, ok := e[text[i]]
		switch {
		case text[i] == '%':
			out.WriteByte('%')
		case ok:
			out.WriteString(value)
		default:
			return "", fmt.Errorf("infractl does not know %%%c here", text[i])
		}
	}
	return out.String(), nil
}

// expandName expands HostName, in which %h is the host as it was asked for.
func expandName(name, host string) (string, error) { return expander{'h': host}.percent(name) }

// cutKeyword takes the keyword, in small letters, off a line. It is empty for
// comments and empty lines.
func cutKeyword(line string) (keyword, rest string) {
	line = strings.Trim(line, " \t\r\n\f")
	if line == "" || line[0] == '#' {
		return "", ""
	}
	if line[0] == '"' { // a keyword may be quoted
		if word, rest, ok := strings.Cut(line[1:], `"`); ok {
			return strings.ToLower(word), strings.TrimLeft(rest, " \t=")
		}
	}
	end := strings.IndexAny(line, " \t\r=\"")
	if end < 0 {
		return strings.ToLower(line), ""
	}
	keyword, rest = strings.ToLower(line[:end]), strings.TrimLeft(line[end:], " \t\r")
	if strings.HasPrefix(rest, "=") {
		rest = strings.TrimLeft(rest[1:], " \t\r")
	}
	return keyword, rest
}

// splitWords splits arguments at blanks. Quotation marks of both kinds keep
// blanks, a backslash keeps the character after it if that would mean something,
// and a word that begins with # ends the line.
func splitWords(text string) ([]string, error) {
	var words []string
	var word []byte
	inside, quote := false, byte(0)
	for i := 0; i < len(text); i++ {
		c := text[i]
		blank := c == ' ' || c == '\t'
		switch {
		case !inside && blank:
		case !inside && c == '#':
			return words, nil
		case quote == 0 && blank:
			words, word, inside = append(words, string(word)), nil, false
		case c == '\\' && i+1 < len(text) && (strings.IndexByte(`'"\`, text[i+1]) >= 0 || quote == 0 && text[i+1] == ' '):
			i++
			word, inside = append(word, text[i]), true
		case quote == 0 && (c == '"' || c == '\''):
			quote, inside = c, true
		case quote != 0 && c == quote:
			quote = 0
		default:
			word, inside = append(word, c), true
		}
	}
	if quote != 0 {
		return nil, errors.New("a quotation mark is not closed")
	}
	if inside {
		words = append(words, string(word))
	}
	return words, nil
}

// matchesHost judges the patterns of a Host line. One with an exclamation mark
// that matches rules the host out whatever else matches.
func matchesHost(host string, patterns []string) bool {
	matched := false
	for _, pattern := range patterns {
		rest, negated := strings.CutPrefix(pattern, "!")
		if !wildcard(host, rest) {
			continue
		}
		if negated {
			return false
		}
		matched = true
	}
	return matched
}

// matchList judges a list of patterns with commas between them.
func matchList(text, patterns string) bool { return matchesHost(text, strings.Split(patterns, ",")) }

// wildcard says whether text matches a pattern in which * stands for any number
// of characters and ? for one.
func wildcard(text, pattern string) bool {
	// star is the place after the last *, from is where in the text what
	// follows it was tried last.
	star, from, p := -1, 0, 0
	for t := 0; t < len(text); {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			p++
			star, from = p, t
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == text[t]):
			p++
			t++
		case star >= 0:
			from++
			p, t = star, from
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// yesOrNo reads yes and no.
func yesOrNo(word string) (bool, error) {
	switch strings.ToLower(word) {
	case "yes", "true":
		return true, nil
	case "no", "false":
		return false, nil
	}
	return false, fmt.Errorf("%q is neither yes nor no", word)
}

var times = regexp.MustCompile(`^([0-9]+)([smhdwSMHDW]?)`)

// duration reads seconds, or several numbers with units, such as 1m30s. It is 0 for none.
func duration(word string) (time.Duration, error) {
	if strings.EqualFold(word, "none") {
		return 0, nil
	}
	units := map[string]time.Duration{
		"": time.Second, "s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour, "w": 7 * 24 * time.Hour,
	}
	var sum time.Duration
	for rest := word; ; {
		m := times.FindStringSubmatch(rest)
		if m == nil {
			return 0, fmt.Errorf("%q is no time", word)
		}
		n, err := strconv.Atoi(m[1])
		if err != nil || n > 1<<20 {
			return 0, fmt.Errorf("%q is no time", word)
		}
		sum += time.Duration(n) * units[strings.ToLower(m[2])]
		if rest = rest[len(m[0]):]; rest == "" {
			return sum, nil
		}
	}
}

// jumpHost is one host of a ProxyJump.
type jumpHost struct {
	user, host string
	port       int
}

func (j jumpHost) String() string {
	text := j.host
	if strings.Contains(text, ":") {
		text = "[" + text + "]"
	}
	if j.user != "" {
		text = j.user + "@" + text
	}
	if j.port != 0 {
		text += ":" + strconv.Itoa(j.port)
	}
	return text
}

// ParseJump says what is wrong with the jump hosts of a Target.
func ParseJump(text string) error {
	_, err := parseJumps(text)
	return err
}

// parseJumps reads the value of ProxyJump: hosts with commas between them, in the
// order in which they are gone through.
func parseJumps(text string) ([]jumpHost, error) {
	if text == "" || strings.EqualFold(text, "none") {
		return nil, nil
	}
	var jumps []jumpHost
	for _, part := range strings.Split(text, ",") {
		wrong := fmt.Errorf("%q is no jump host; write [user@]host[:port]", part)
		rest, uri := strings.CutPrefix(part, "ssh://")
		if uri {
			rest = strings.TrimSuffix(rest, "/")
		}
		var j jumpHost
		if at := strings.LastIndexByte(rest, '@'); at >= 0 {
			j.user, rest = rest[:at], rest[at+1:]
			if j.user == "" {
				return nil, wrong
			}
		}
		port := ""
		switch {
		case strings.HasPrefix(rest, "["):
			end := strings.IndexByte(rest, ']')
			if end < 0 {
				return nil, wrong
			}
			j.host, port = rest[1:end], rest[end+1:]
			if port != "" && !strings.HasPrefix(port, ":") {
				return nil, wrong
			}
			port = strings.TrimPrefix(port, ":")
		case strings.Count(rest, ":") == 1:
			j.host, port, _ = strings.Cut(rest, ":")
			if port == "" {
				return nil, wrong
			}
		default:
			j.host = rest
		}
		if port != "" {
			n, err := strconv.Atoi(port)
			if err != nil || n < 1 || n > 65535 {
				return nil, wrong
			}
			j.port = n
		}
		// What a shell or ssh would take for something else is no host.
		if j.host == "" || port == "" && strings.Contains(j.host, ":") && !strings.HasPrefix(rest, "[") || strings.HasPrefix(j.host, "-") || strings.HasPrefix(j.user, "-") || strings.ContainsAny(j.host+j.user, " \t'\"`$\\;&<>|(){}/") {
			return nil, wrong
		}
		jumps = append(jumps, j)
	}
	return jumps, nil
}
