package provision

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"
)

// ParseHostKey says what is wrong with the host key of a Target. It may be a
// public key, its SHA-256 fingerprint, or the key of an authority that certifies
// host keys.
func ParseHostKey(text string) error {
	_, err := parseHostKey(text)
	return err
}

// authorityMarker is how known_hosts files mark an authority's key.
const authorityMarker = "@cert-authority"

// expectation is what a host has to prove.
type expectation struct {
	// One of these is set.
	key         ssh.PublicKey
	fingerprint string
	authority   ssh.PublicKey
}

func parseHostKey(text string) (expectation, error) {
	text = strings.TrimSpace(text)
	if strings.Contains(text, "\n") {
		return expectation{}, errors.New("there is more than one line")
	}
	if strings.HasPrefix(text, "SHA256:") {
		// ssh-keygen -l prints the fingerprint without padding.
		sum, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(text[len("SHA256:"):], "="))
		if err != nil || len(sum) != 32 {
			return expectation{}, fmt.Errorf("%q is no SHA-256 fingerprint as ssh-keygen -l prints it", text)
		}
		return expectation{fingerprint: "SHA256:" + base64.RawStdEncoding.EncodeToString(sum)}, nil
	}
	line, authority := strings.CutPrefix(text, authorityMarker+" ")
	key, _, options, _, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil {
		return expectation{}, err
	}
	if len(options) > 0 {
		return expectation{}, fmt.Errorf("there is something before the key: %s", strings.Join(options, ","))
	}
	if _, certified := key.(*ssh.Certificate); certified {
		return expectation{}, errors.New("it is a certificate; give the key of the authority that signed it, after " + authorityMarker)
	}
	if authority {
		return expectation{authority: key}, nil
	}
	return expectation{key: key}, nil
}

// plainTypes are the types of host keys, best first, with the algorithms by
// which each can sign.
var plainTypes = []struct {
	name       string
	algorithms []string
}{
	{ssh.KeyAlgoED25519, []string{ssh.KeyAlgoED25519}},
	{ssh.KeyAlgoECDSA256, []string{ssh.KeyAlgoECDSA256}},
	{ssh.KeyAlgoECDSA384, []string{ssh.KeyAlgoECDSA384}},
	{ssh.KeyAlgoECDSA521, []string{ssh.KeyAlgoECDSA521}},
	{ssh.KeyAlgoRSA, []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}},
}

// certified are the algorithms for host keys with a certificate.
var certified = []string{
	ssh.CertAlgoED25519v01, ssh.CertAlgoECDSA256v01, ssh.CertAlgoECDSA384v01, ssh.CertAlgoECDSA521v01,
	ssh.CertAlgoRSASHA512v01, ssh.CertAlgoRSASHA256v01,
}

// verifier judges the key that one host shows.
type verifier struct {
	// host is what the host is called in advice, such as bastion.example.com.
	host string
	// names are those under which certificates may be issued for it.
	names []string
	// pinned is what the configuration says, if it says anything.
	pinned *expectation
	// known are the lines of known_hosts files for this host.
	known []knownKey
	// revoked are keys that nobody may use any more.
	revoked []knownKey
	// witness, if it is set, gets the key with the verdict on it, and the connection
	// ends there.
	witness func(key ssh.PublicKey, verdict error)
}

// knownKey is a line of a known_hosts file.
type knownKey struct {
	key       ssh.PublicKey
	authority bool
	// file and line say where it stands.
	file string
	line int
}

func (k knownKey) where() string { return fmt.Sprintf("%s, line %d", k.file, k.line) }

// typeOf remembers which type of key a fingerprint belongs to, so that only the
// first connection of a process has to find out.
var typeOf sync.Map // fingerprint to type

// algorithms are those to ask the host for. shown are the types of the keys that
// it showed already and that were wrong: with only a fingerprint, the next
// connection asks for the others.
func (v *verifier) algorithms(shown []string) []string {
	if v.pinned != nil && v.pinned.key != nil {
		return hostKeyAlgorithms(v.pinned.key.Type())
	}
	if v.pinned != nil && v.pinned.authority != nil {
		return certified
	}
	var wanted []string
	if v.pinned != nil {
		if name, ok := typeOf.Load(v.pinned.fingerprint); ok && len(shown) == 0 {
			return hostKeyAlgorithms(name.(string))
		}
	} else {
		for _, k := range v.known {
			if k.authority {
				wanted = append(wanted, certified...)
				break
			}
		}
		for _, t := range plainTypes {
			if slices.ContainsFunc(v.known, func(k knownKey) bool { return !k.authority && k.key.Type() == t.name }) {
				wanted = append(wanted, t.algorithms...)
			}
		}
		if len(wanted) > 0 {
			return wanted
		}
	}
	// Nothing tells the type of the key: those that were shown are left out.
	for _, t := range plainTypes {
		if !slices.Contains(shown, t.name) {
			wanted = append(wanted, t.algorithms...)
		}
	}
	return wanted
}

// open says whether another connection can bring another key to light.
func (v *verifier) open() bool { return v.pinned != nil && v.pinned.fingerprint != "" }

// forget forgets which type of key the fingerprint belongs to, and returns it.
func (v *verifier) forget() string {
	name, _ := typeOf.LoadAndDelete(v.pinned.fingerprint)
	text, _ := name.(string)
	return text
}

// keyError says what is wrong with the key that a host showed.
type keyError struct {
	detail, hint string
	kind         error
	// shown is the type of the key.
	shown string
	// print is its fingerprint with its type, if another fingerprint is expected.
	print string
}

func (e *keyError) Error() string { return e.detail }

// reinstalled is what to do about another key than the expected one.
const reinstalled = "if the host was reinstalled on purpose, put its new key into the configuration; otherwise something else answers at this address: do not go on"

// check judges the key that the host has shown and proved to have, and ends the
// connection if somebody only wants to see that.
func (v *verifier) check(key ssh.PublicKey) error {
	err := v.judge(key)
	if v.witness != nil {
		v.witness(key, err)
		return &keyError{detail: "the host's key was only looked at", kind: ErrHostKeyUnknown, shown: key.Type()}
	}
	return err
}

// judge says what is wrong with a key.
func (v *verifier) judge(key ssh.PublicKey) error {
	wrong := func(hint, format string, arguments ...any) error {
		return &keyError{detail: fmt.Sprintf(format, arguments...), hint: hint, kind: ErrHostKeyMismatch, shown: key.Type()}
	}
	plain, authority := key, ssh.PublicKey(nil)
	certificate, isCertificate := key.(*ssh.Certificate)
	if isCertificate {
		plain, authority = certificate.Key, certificate.SignatureKey
	}
	for _, r := range v.revoked {
		if same(r.key, plain) || isCertificate && same(r.key, authority) {
			return wrong("the host needs a new key; whoever answers here must not be trusted", "it shows %s, which is revoked (%s)", ssh.FingerprintSHA256(r.key), r.where())
		}
	}
	shows := "it shows " + ssh.FingerprintSHA256(plain)
	switch {
	case v.pinned != nil && v.pinned.key != nil:
		if !same(plain, v.pinned.key) {
			return wrong(reinstalled, "%s, expected is %s", shows, ssh.FingerprintSHA256(v.pinned.key))
		}
		return nil
	case v.pinned != nil && v.pinned.fingerprint != "":
		if ssh.FingerprintSHA256(plain) != v.pinned.fingerprint {
			fingerprint := fmt.Sprintf("%s (%s)", ssh.FingerprintSHA256(plain), plain.Type())
			return &keyError{kind: ErrHostKeyMismatch, hint: reinstalled, shown: key.Type(), print: fingerprint,
				detail: fmt.Sprintf("it shows %s, expected is %s", fingerprint, v.pinned.fingerprint)}
		}
		typeOf.Store(v.pinned.fingerprint, plain.Type())
		return nil
	case v.pinned != nil:
		if !isCertificate {
			return wrong(noCertificate, "%s without a certificate of the authority %s", shows, ssh.FingerprintSHA256(v.pinned.authority))
		}
		if !same(authority, v.pinned.authority) {
			return wrong("if the authority was replaced on purpose, put the new one's key into the configuration; otherwise something else answers at this address: do not go on",
				"its certificate is from %s, expected is the authority %s", ssh.FingerprintSHA256(authority), ssh.FingerprintSHA256(v.pinned.authority))
		}
		return v.checkCertificate(certificate)
	}
	if len(v.known) == 0 {
		return &keyError{kind: ErrHostKeyUnknown, shown: key.Type(), detail: shows,
			hint: fmt.Sprintf("compare it with what ssh-keygen -lf /etc/ssh/ssh_host_%s_key.pub prints on the host's own console; if it is the same, put it into the configuration, or log in once with ssh %s", fileType(plain.Type()), v.host)}
	}
	var expected []string
	remove := ""
	for _, k := range v.known {
		switch {
		case !k.authority && same(k.key, plain):
			return nil
		case k.authority && isCertificate && same(k.key, authority):
			return v.checkCertificate(certificate)
		}
		word := ssh.FingerprintSHA256(k.key)
		if k.authority {
			word = "one certified by " + word
		} else {
			remove = fmt.Sprintf("if the host was reinstalled on purpose, remove its old key (%s, line %d) and add the new one; otherwise something else answers at this address: do not go on", k.file, k.line)
		}
		expected = append(expected, fmt.Sprintf("%s (%s)", word, k.where()))
	}
	if remove == "" {
		remove = reinstalled
	}
	return wrong(remove, "%s, expected is %s", shows, strings.Join(expected, " or "))
}

// none explains that none of a host's keys is the expected one.
func (v *verifier) none(wrong []*keyError) *keyError {
	var details, prints []string
	for _, k := range wrong {
		details = append(details, k.detail)
		if k.print != "" {
			prints = append(prints, k.print)
		}
	}
	e := &keyError{kind: ErrHostKeyMismatch, hint: reinstalled, detail: strings.Join(details, "; ")}
	if len(prints) > 0 && len(prints) == len(details) {
		e.detail = fmt.Sprintf("it shows %s, expected is %s", strings.Join(prints, " and "), v.pinned.fingerprint)
	}
	return e
}

const noCertificate = "give its sshd a certificate (HostCertificate in sshd_config), or put the host's own key into the configuration"

// missing explains that the host has no key of the types that were asked for.
func (v *verifier) missing(err error) *keyError {
	e := &keyError{kind: ErrHostKeyMismatch, hint: reinstalled}
	switch {
	case v.pinned != nil && v.pinned.key != nil:
		e.detail = fmt.Sprintf("it has no key of type %s: %v", v.pinned.key.Type(), err)
	case v.pinned != nil && v.pinned.authority != nil:
		e.detail, e.hint = fmt.Sprintf("it has no certificate for its key: %v", err), noCertificate
	default:
		e.detail = fmt.Sprintf("it has no key of an expected type: %v", err)
	}
	return e
}

// fileType is how sshd's key files are called for a type of key.
func fileType(name string) string {
	switch {
	case strings.HasPrefix(name, "ecdsa"):
		return "ecdsa"
	case name == ssh.KeyAlgoRSA:
		return "rsa"
	}
	return "ed25519"
}

// hostKeyAlgorithms are the signature algorithms of a type of key.
func hostKeyAlgorithms(keyType string) []string {
	for _, t := range plainTypes {
		if t.name == keyType {
			return t.algorithms
		}
	}
	return []string{keyType}
}

func same(a, b ssh.PublicKey) bool { return bytes.Equal(a.Marshal(), b.Marshal()) }

// knownHosts reads the lines for a host. The first of names is the one that is
// looked up first; a line for a later one is used if there is none for it.
func knownHosts(files []string, inline string, names ...string) (known, revoked []knownKey, err error) {
	texts := [][2]string{{"known hosts in the configuration", inline}}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, nil, fmt.Errorf("cannot read the known hosts: %w", err)
		}
		texts = append(texts, [2]string{name, string(text)})
	}
	// OpenSSH knows a host with a port of its own as [host]:port, and takes the
	// key of the plain name if there is none.
	for _, name := range names {
		for _, t := range texts {
			for n, line := range strings.Split(t[1], "\n") {
				marker, hosts, key, _, _, err := ssh.ParseKnownHosts([]byte(line))
				if err != nil {
					continue // like OpenSSH: empty lines, comments, unknown types of key
				}
				k := knownKey{key: key, authority: marker == "cert-authority", file: t[0], line: n + 1}
				switch {
				case marker == "revoked":
					revoked = append(revoked, k)
				case marker == "" || k.authority:
					if matchesKnown(strings.ToLower(name), hosts) {
						known = append(known, k)
					}
				}
			}
		}
		if len(known) > 0 {
			break
		}
	}
	return known, revoked, nil
}

// knownName is a host's name in known_hosts files.
func knownName(host string, port int) string {
	if port == 22 {
		return host
	}
	return "[" + host + "]:" + strconv.Itoa(port)
}

// matchesKnown judges the names of a line of known_hosts: patterns, or one name
// that is hashed so that the file does not tell it.
func matchesKnown(name string, hosts []string) bool {
	if len(hosts) == 1 && strings.HasPrefix(hosts[0], "|1|") {
		salt, sum, _ := strings.Cut(hosts[0][3:], "|")
		key, err := base64.StdEncoding.DecodeString(salt)
		want, err2 := base64.StdEncoding.DecodeString(sum)
		if err != nil || err2 != nil {
			return false
		}
		mac := hmac.New(sha1.New, key) // the only hash of known_hosts
		mac.Write([]byte(name))
		return hmac.Equal(mac.Sum(nil), want)
	}
	for i, host := range hosts {
		hosts[i] = strings.ToLower(host)
	}
	return matchesHost(name, hosts)
}

// revokedKeys reads a file of RevokedHostKeys.
func revokedKeys(name string) ([]knownKey, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("RevokedHostKeys: %w", err) // ssh refuses all hosts then, too
	}
	if bytes.HasPrefix(text, []byte("SSHKRL")) {
		return nil, fmt.Errorf("RevokedHostKeys: %s is a binary list, which infractl cannot read; use a text file with the keys", name)
	}
	var keys []knownKey
	for n, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
		if err != nil {
			return nil, fmt.Errorf("RevokedHostKeys: %s, line %d: %w", name, n+1, err)
		}
		keys = append(keys, knownKey{key: key, file: name, line: n + 1})
	}
	return keys, nil
}

// certificateNames are what a certificate may call a host.
func certificateNames(hosts ...string) []string {
	var names []string
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			host = ip.String()
		}
		if host = strings.ToLower(host); host != "" && !slices.Contains(names, host) {
			names = append(names, host)
		}
	}
	return names
}
