package provision

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// configFile writes a configuration that is read instead of the user's own.
func configFile(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv(configVariable, name)
	return name
}

// sshG asks the real ssh what a configuration means. It returns the values by
// keyword, and what it said if it refused.
func sshG(t *testing.T, file, host, user string, port int) (map[string][]string, string) {
	t.Helper()
	arguments := []string{"-G", "-F", file}
	if user != "" {
		arguments = append(arguments, "-l", user)
	}
	if port != 0 {
		arguments = append(arguments, "-p", strconv.Itoa(port))
	}
	c := exec.Command("ssh", append(arguments, "--", host)...)
	var said strings.Builder
	c.Stderr = &said
	out, err := c.Output()
	if err != nil {
		return nil, said.String()
	}
	values := map[string][]string{}
	for line := range strings.Lines(string(out)) {
		keyword, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		values[keyword] = append(values[keyword], value)
	}
	return values, ""
}

// sameAsSSH compares what readSettings makes of a configuration with what ssh does.
func sameAsSSH(t *testing.T, file, host, login string, port int) {
	t.Helper()
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	// ssh takes the home directory from the user database.
	t.Setenv("HOME", me.HomeDir)
	want, said := sshG(t, file, host, login, port)
	got, err := readSettings(host, login, port)
	text, _ := os.ReadFile(file)
	context := fmt.Sprintf("host %s, user %q, port %d of\n%s", host, login, port, text)
	if want == nil {
		// A value that is not used because another one came first is not looked at.
		if err == nil && login == "" {
			t.Errorf("ssh refuses (%s), infractl does not: %s", strings.TrimSpace(said), context)
		}
		return
	}
	if err != nil {
		t.Errorf("infractl refuses: %v: %s", err, context)
		return
	}
	home := func(names []string) []string {
		var out []string
		for _, name := range names {
			if rest, ok := strings.CutPrefix(name, "~/"); ok {
				name = filepath.Join(me.HomeDir, rest)
			}
			if name != "none" {
				out = append(out, name)
			}
		}
		return out
	}
	compare := func(keyword string, got, want []string) {
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %q, ssh has %q: %s", keyword, got, want, context)
		}
	}
	one := func(text string) []string {
		if text == "" {
			return nil
		}
		return []string{text}
	}
	// ssh -G shows the name before ssh turns it into small letters.
	compare("hostname", []string{got.hostName}, []string{strings.ToLower(want["hostname"][0])})
	compare("user", []string{got.user}, want["user"])
	compare("port", []string{strconv.Itoa(got.port)}, want["port"])
	var jump []string
	if len(want["proxyjump"]) == 1 {
		jump = one(want["proxyjump"][0])
	}
	// ssh puts brackets around the last address even if it has no port.
	compare("proxyjump", one(normalJumps(t, got.jump)), one(normalJumps(t, strings.Join(jump, ","))))
	compare("hostkeyalias", one(got.hostKeyAlias), want["hostkeyalias"])
	if len(got.identityFiles) > 0 {
		compare("identityfile", got.identityFiles, home(want["identityfile"]))
	} else if files := home(want["identityfile"]); len(files) > 0 && files[0] != filepath.Join(me.HomeDir, ".ssh/id_rsa") {
		t.Errorf("identityfile: got none, ssh has %q: %s", files, context)
	}
	compare("certificatefile", got.certificateFiles, home(want["certificatefile"]))
	compare("identitiesonly", []string{map[bool]string{true: "yes", false: "no"}[got.identitiesOnly]}, want["identitiesonly"])
	compare("userknownhostsfile", got.userKnownHosts, home(strings.Fields(want["userknownhostsfile"][0])))
	compare("globalknownhostsfile", got.globalKnownHosts, home(strings.Fields(want["globalknownhostsfile"][0])))
	timeout := "none"
	if got.timeout != 0 {
		timeout = strconv.Itoa(int(got.timeout.Seconds()))
	}
	compare("connecttimeout", []string{timeout}, want["connecttimeout"])
	compare("addressfamily", []string{map[string]string{"tcp": "any", "tcp4": "inet", "tcp6": "inet6"}[got.family]}, want["addressfamily"])
}

func normalJumps(t *testing.T, text string) string {
	jumps, err := parseJumps(text)
	if err != nil {
		t.Errorf("ssh has ProxyJump %s: %v", text, err)
	}
	var out []string
	for _, j := range jumps {
		out = append(out, j.String())
	}
	return strings.Join(out, ",")
}

func needSSH(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("ssh"); err != nil {
		t.Skip("ssh is not installed")
	}
}

// configurations are read for each of hosts.
var configurations = []string{
	"",
	"Host web\n  HostName 192.0.2.1\n  Port 2222\n  User anna\n",
	"Host web\nHostName %h.example.com\nHost *.example.com\nPort 3\n",
	"HostName a%%b%hc\n",
	"User first\nHost web\nUser second\nHost *\nPort 5\n",
	"Host *\nPort 5\nHost web\nPort 6\n",
	"Host !web *\nUser all-but-web\n",
	"Host * !web\nUser all-but-web\n",
	"Host w?b ?eb.example.com\nUser question\n",
	"Host *.example.com !web.example.com\nUser star\n",
	"Host WEB\nUser capital\nHost Web.Example.com\nUser mixed\n",
	"Match host web\nUser m\nMatch host *.example.com,!web.example.com\nUser n\n",
	"Match host WEB.example.COM\nUser case\n",
	"Host web\nHostName db.example.com\nMatch host db.example.com\nPort 7\nMatch originalhost web\nUser orig\n",
	"Match host web.example.com\nPort 8\nHost web\nHostName %h.example.com\nMatch host web.example.com\nUser late\n",
	"Match user anna\nPort 9\nMatch user *,!anna\nPort 10\n",
	"User anna\nMatch user anna\nPort 9\n",
	"Match localuser root user root host web\nPort 11\nMatch !localuser root\nPort 12\n",
	"Match all\nPort 13\nMatch !all\nPort 14\n",
	"Match !host web\nUser notweb\n",
	"Match host web !user root\nUser x\nMatch all\nUser y\n",
	"Match HOST web USER root\nPort 15\n",
	"IdentityFile ~/.ssh/a\nHost web\nIdentityFile ~/.ssh/b\nIdentityFile ~/.ssh/a\nIdentityFile /tmp/c\nHost *\nIdentityFile d\n",
	"IdentityFile \"~/.ssh/with blank\"\nCertificateFile '~/.ssh/other blank'\n",
	"IdentityFile ~/.ssh/with\\ blank\nCertificateFile ~/.ssh/it\\'s\n",
	"IdentityFile none\n",
	"IdentitiesOnly yes\nCertificateFile ~/.ssh/c-cert.pub\nCertificateFile ~/.ssh/d-cert.pub\n",
	"IdentitiesOnly TRUE\n", "IdentitiesOnly False\n",
	"ProxyJump bastion\n", "ProxyJump none\n", "ProxyJump anna@bastion:2222\n", "ProxyJump a,b@c:1,ssh://d@e:2\n",
	"ProxyJump ssh://anna@bastion:2222/\n", "ProxyJump [2001:db8::1]:22\n", "ProxyJump 2001:db8::1\n", "ProxyJump = bastion\n", "ProxyJump=bastion\n",
	"Host web\nProxyJump none\nHost *\nProxyJump bastion\n",
	"ProxyCommand none\nProxyJump bastion\n",
	"ProxyJump bastion\nProxyCommand nc %h %p\n",
	"UserKnownHostsFile ~/.ssh/k1 ~/.ssh/k2\nUserKnownHostsFile ~/.ssh/k3\nGlobalKnownHostsFile /etc/k1\n",
	"UserKnownHostsFile none\nGlobalKnownHostsFile /a /b /c\n",
	"HostKeyAlias bastion.example.com\n",
	"StrictHostKeyChecking no\nUserKnownHostsFile /dev/null\n",
	"ConnectTimeout 5\n", "ConnectTimeout 1m30s\n", "ConnectTimeout none\n", "ConnectTimeout 2H\n", "ConnectTimeout 1d2\n",
	"AddressFamily inet\n", "AddressFamily INET6\n", "AddressFamily any\n",
	"port=24\nUSER = anna\nhostname\t=\t192.0.2.9\n",
	"Port \"25\"\n\"User\" anna\n",
	"  # a comment\nPort 26 # another\nUser anna#not\n\n\tHostKeyAlias x\t\n",
	"Port 27\r\nUser anna\r\n",
	"Host \"web\" 'db'\nUser quoted\n",
	"Host web # db\nUser comment\n",
	"Host web,db\nUser comma\n",
	"Host *e*b*\nUser stars\nHost **\nPort 28\n",
	"Host web\n\nHost db\nUser d\n",
	"Match canonical\nSendEnv X\nMatch all\nUser anna\n",
	"Include /nowhere/at/all\nUser anna\n",
	"CanonicalizeHostname no\n",
	"HostName UPPER.example.com\n",
	// What ssh refuses.
	"Port 0\n", "Port 70000\n", "Port x\n", "Host\n", "Match\n", "Match all user root\n", "Match host\n", "User \"anna\n", "IdentitiesOnly maybe\n",
	"ConnectTimeout x\n", "AddressFamily ipx\n", "ProxyJump a b\n", "ProxyJump ,a\n", "HostName %x\n", "ProxyJump a:0\n",
}

func TestConfigurationMeansWhatItMeansToSSH(t *testing.T) {
	needSSH(t)
	for _, text := range configurations {
		file := configFile(t, text)
		for _, host := range []string{"web", "db", "web.example.com", "WEB", "192.0.2.7"} {
			sameAsSSH(t, file, host, "", 0)
		}
		sameAsSSH(t, file, "web", "anna", 4711)
	}
}

func TestIncludedFilesMeanWhatTheyMeanToSSH(t *testing.T) {
	needSSH(t)
	for _, c := range []map[string]string{
		{"config": "Include DIR/a\nPort 5\n", "a": "Port 6\nHost web\nUser anna\n"},
		{"config": "Host web\nInclude DIR/*.conf\nUser outer\nPort 5\n", "b.conf": "Host *\nPort 6\n", "a.conf": "Host db\nPort 7\nHost web\nUser inner\n"},
		{"config": "Host db\nInclude DIR/a\nHost *\nUser late\n", "a": "User never\nHost *\nPort 9\nMatch all\nPort 10\n"},
		{"config": "Include DIR/a DIR/b\nUser x\n", "a": "Host db\n", "b": "Port 11\n"},
		{"config": "Match host web\nInclude DIR/a\nPort 12\n", "a": "Include DIR/b\nMatch host db\nPort 13\n", "b": "Host nothing\nUser nobody\n"},
		{"config": "Include \"DIR/with blank\"\n", "with blank": "Port 14\n"},
	} {
		dir := t.TempDir()
		for name, text := range c {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(strings.ReplaceAll(text, "DIR", dir)), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		t.Setenv(configVariable, filepath.Join(dir, "config"))
		for _, host := range []string{"web", "db"} {
			sameAsSSH(t, filepath.Join(dir, "config"), host, "", 0)
		}
	}
}

// TestRandomConfigurationsMeanWhatTheyMeanToSSH puts lines together at random,
// always the same ones, so that a failure can be looked into.
func TestRandomConfigurationsMeanWhatTheyMeanToSSH(t *testing.T) {
	needSSH(t)
	dice := rand.New(rand.NewPCG(4, 2))
	pick := func(words ...string) string { return words[dice.IntN(len(words))] }
	patterns := []string{"web", "db", "*", "w*", "?b", "!web", "!*.com", "*.example.com", "web.example.com", "192.0.2.*"}
	line := func() string {
		switch dice.IntN(14) {
		case 0, 1:
			return "Host " + pick(patterns...) + " " + pick(patterns...)
		case 2:
			return "Match " + pick("", "!") + "host " + pick(patterns...) + "," + pick(patterns...) + " " + pick("user root", "!user anna", "originalhost web,w*", "localuser *", "")
		case 3:
			return pick("Match all", "Match user anna,!root", "Match !originalhost db")
		case 4:
			return "HostName " + pick("%h.example.com", "web.example.com", "192.0.2.1", "DB")
		case 5:
			return "User " + pick("anna", "root", "\"bob\"")
		case 6:
			return "Port " + pick("22", "2222", "\"23\"", "= 24")
		case 7:
			return "ProxyJump " + pick("none", "bastion", "anna@bastion:22,b", "b:23")
		case 8:
			return "IdentityFile " + pick("~/.ssh/a", "/k/b", "\"/k/c d\"")
		case 9:
			return "IdentitiesOnly " + pick("yes", "no")
		case 10:
			return pick("UserKnownHostsFile", "GlobalKnownHostsFile") + " " + pick("/k1", "/k1 /k2", "none")
		case 11:
			return "HostKeyAlias " + pick("x", "y # z", "'q'")
		case 12:
			return "ConnectTimeout " + pick("3", "1m", "none")
		}
		return pick("# a comment", "", "\tCertificateFile /k/a-cert.pub", "AddressFamily inet", "ServerAliveInterval 5", "ProxyCommand none")
	}
	runs := 150
	if testing.Short() {
		runs = 30
	}
	for range runs {
		var text strings.Builder
		for range 2 + dice.IntN(14) {
			text.WriteString(line() + "\n")
		}
		sameAsSSH(t, configFile(t, text.String()), pick("web", "db", "web.example.com", "192.0.2.7"), pick("", "anna"), dice.IntN(2)*2200)
	}
}

// TestPathsAreExpandedAsSSHDoes looks at what ssh says about the key files that
// it is about to read.
func TestPathsAreExpandedAsSSHDoes(t *testing.T) {
	needSSH(t)
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("HOME", me.HomeDir)
	t.Setenv("INFRACTL_TEST_WORD", "a word")
	file := configFile(t, `Host web
HostName web.example.com
User anna
Port 2222
HostKeyAlias alias
IdentityFile ~/.ssh/x
IdentityFile %d/%u/%h/%r/%n/%p/%i/%k
IdentityFile /k/%l/%L/%%
IdentityFile ${INFRACTL_TEST_WORD}/b
IdentityFile ~`+me.Username+`/z
ProxyCommand false
`)
	out, _ := exec.Command("ssh", "-v", "-F", file, "-o", "BatchMode=yes", "web").CombinedOutput()
	var want []string
	for line := range strings.Lines(string(out)) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "debug1: identity file "); ok {
			name, _, _ := strings.Cut(rest, " type ")
			if !strings.HasSuffix(name, "-cert") {
				want = append(want, name)
			}
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	configFile(t, strings.Replace(string(text), "ProxyCommand false", "", 1))
	s, err := readSettings("web", "", 0)
	if err != nil {
		t.Fatal(err)
	}
	if len(want) != 5 || !slices.Equal(s.identityFiles, want) {
		t.Errorf("got  %q\nwant %q", s.identityFiles, want)
	}
}

func TestConditionsThatOnlySSHCanJudgeAreAnErrorIfTheyMatter(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"exec":                     {"Match exec true\nPort 3\n", "line 2: the block here has the condition \"Match exec true\", which infractl cannot judge, and sets port for web"},
		"final":                    {"Match final all\nUser anna\n", "cannot be combined"},
		"final alone":              {"Match final\nUser anna\n", "Match final"},
		"one that is not known":    {"Match localnetwork 10.0.0.0/8\nProxyJump none\n", "Match localnetwork 10.0.0.0/8"},
		"negated":                  {"Match !exec true\nIdentityFile x\n", "Match !exec true"},
		"with another one":         {"Match host web exec true\nPort 3\n", "Match exec true"},
		"ruled out":                {"Match host db exec true\nPort 3\n", ""},
		"after the value":          {"Port 4\nMatch exec true\nPort 3\n", ""},
		"what is not read":         {"Match exec true\nForwardAgent yes\n", ""},
		"block after it":           {"Match exec true\nForwardAgent yes\nHost web\nPort 3\n", ""},
		"a file added to others":   {"IdentityFile a\nMatch exec true\nIdentityFile b\n", "Match exec true"},
		"a proxy after a jump":     {"ProxyJump a\nMatch exec true\nProxyCommand b\n", ""},
		"a proxy command":          {"ProxyCommand nc %h %p\n", "use ProxyJump"},
		"a jump to an option":      {"ProxyJump -x\n", "\"-x\" is no jump host"},
		"a canonical name":         {"CanonicalizeHostname yes\n", "CanonicalizeHostname"},
		"a name that is canonical": {"CanonicalizeHostname yes\nHostName a.b.example.com\n", ""},
		"a sign of later versions": {"IdentityFile ~/%C\n", "%C"},
		"a variable not set":       {"IdentityFile ${INFRACTL_NOT_SET}/a\n", "INFRACTL_NOT_SET is not set"},
	} {
		t.Run(name, func(t *testing.T) {
			configFile(t, c.text)
			_, err := readSettings("web", "", 0)
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

func TestConditionReachesIntoIncludedFiles(t *testing.T) {
	inner := filepath.Join(t.TempDir(), "inner")
	if err := os.WriteFile(inner, []byte("Host web\nPort 3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	configFile(t, "Match exec true\nInclude "+inner+"\n")
	if _, err := readSettings("web", "", 0); err == nil || !strings.Contains(err.Error(), inner+", line 2") {
		t.Errorf("got %v", err)
	}
	if _, err := readSettings("db", "", 0); err != nil {
		t.Error(err)
	}
}

func TestConfigurationOfOthersIsRefused(t *testing.T) {
	t.Setenv(configVariable, "")
	home := t.TempDir()
	t.Setenv("HOME", home)
	if _, err := readSettings("web", "", 0); err != nil {
		t.Fatalf("without a file: %v", err)
	}
	if err := os.Mkdir(filepath.Join(home, ".ssh"), 0o700); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(home, ".ssh", "config")
	if err := os.WriteFile(name, []byte("Port 99\nInclude more\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(home, ".ssh", "more"), []byte("User anna\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := readSettings("web", "", 0)
	if err != nil || s.port != 99 || s.user != "anna" || s.userKnownHosts[0] != filepath.Join(home, ".ssh", "known_hosts") {
		t.Fatalf("%+v, %v", s, err)
	}
	if err := os.Chmod(name, 0o620); err != nil {
		t.Fatal(err)
	}
	if _, err := readSettings("web", "", 0); err == nil || !strings.Contains(err.Error(), "chmod go-w "+name) {
		t.Errorf("got %v", err)
	}
}

func TestFilesThatIncludeThemselvesEnd(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(file, []byte("Include "+file+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv(configVariable, file)
	if _, err := readSettings("web", "", 0); err == nil || !strings.Contains(err.Error(), "include each other") {
		t.Errorf("got %v", err)
	}
}

func TestConfigurationThatIsNamedMustExist(t *testing.T) {
	t.Setenv(configVariable, filepath.Join(t.TempDir(), "nothing"))
	if _, err := readSettings("web", "", 0); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("got %v", err)
	}
}

func TestAgentIsTheOneThatTheConfigurationNames(t *testing.T) {
	t.Setenv(agentVariable, "/run/agent")
	t.Setenv("INFRACTL_TEST_AGENT", "/run/other")
	for text, want := range map[string]string{
		"":                                     "/run/agent",
		"IdentityAgent none":                   "",
		"IdentityAgent SSH_AUTH_SOCK":          "/run/agent",
		"IdentityAgent $INFRACTL_TEST_AGENT":   "/run/other",
		"IdentityAgent ${INFRACTL_TEST_AGENT}": "/run/other",
		"IdentityAgent /run/%u/agent":          "/run/USER/agent",
	} {
		configFile(t, text+"\n")
		s, err := readSettings("web", "", 0)
		if err != nil {
			t.Fatal(err)
		}
		me, _ := whoAmI()
		if want = strings.ReplaceAll(want, "USER", me.name); s.agent != want {
			t.Errorf("%s: got %s, want %s", text, s.agent, want)
		}
	}
}

func TestWildcards(t *testing.T) {
	for _, c := range []struct {
		text, pattern string
		want          bool
	}{
		{"", "", true}, {"", "*", true}, {"", "?", false}, {"a", "", false}, {"abc", "a*c", true}, {"abc", "a*b", false},
		{"aXbXc", "*X*", true}, {"mississippi", "*iss*pi", true}, {"mississippi", "*iss*pa", false}, {"[::1]:22", "[::1]:22", true}, {"a", "[a]", false},
		{strings.Repeat("a", 200), strings.Repeat("*a", 60) + "b", false},
	} {
		start := time.Now()
		if got := wildcard(c.text, c.pattern); got != c.want {
			t.Errorf("%q %q: %v", c.text, c.pattern, got)
		}
		if time.Since(start) > time.Second {
			t.Errorf("%q takes long", c.pattern)
		}
	}
}

func FuzzConfiguration(f *testing.F) {
	for _, text := range configurations {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		name := filepath.Join(t.TempDir(), "config")
		if os.WriteFile(name, []byte(text), 0o600) == nil {
			t.Setenv(configVariable, name)
			// Whatever is in the file, reading it ends without a crash.
			_, _ = readSettings("web", "", 0)
		}
	})
}
