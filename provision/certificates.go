package provision

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// now is the clock that certificates are judged by.
var now = time.Now

// clockAdvice follows the validity of a certificate: more often than the
// certificate, the clock is wrong, by an hour if it is a mistaken time zone.
const clockAdvice = "check this computer's clock and time zone first (timedatectl): one that is an hour off makes a good certificate look like this"

// checkCertificate judges a host's certificate that is from the right authority.
func (v *verifier) checkCertificate(c *ssh.Certificate) error {
	wrong := func(hint, format string, arguments ...any) error {
		return &keyError{detail: "its certificate " + fmt.Sprintf(format, arguments...), hint: hint, kind: ErrHostKeyMismatch, shown: c.Type()}
	}
	if c.CertType != ssh.HostCert {
		return wrong("sign the host's key with ssh-keygen -h", "is one for users, not for hosts")
	}
	if problem := validity(c); problem != "" {
		return wrong(clockAdvice+"; otherwise sign the host's key again", "%s", problem)
	}
	names := strings.Join(v.names, ", ")
	if len(c.ValidPrincipals) == 0 {
		return wrong("sign the host's key again with ssh-keygen -h -n "+v.names[0], "names no hosts, so it would do for any")
	}
	if !slices.ContainsFunc(c.ValidPrincipals, func(p string) bool {
		return slices.ContainsFunc(v.names, func(name string) bool { return wildcard(name, strings.ToLower(p)) })
	}) {
		return wrong("use a name that is in the certificate as the host's address, or sign the host's key again with ssh-keygen -h -n "+v.names[0],
			"is for %s, but the host is known as %s", strings.Join(c.ValidPrincipals, ", "), names)
	}
	// The signature, and options that would restrict what is not known here. The
	// names were judged above, with wildcards as OpenSSH does.
	judge := ssh.CertChecker{Clock: now}
	if err := judge.CheckCert(c.ValidPrincipals[0], c); err != nil {
		return wrong("sign the host's key again", "is not valid: %v", err)
	}
	return nil
}

// validity says why a certificate is not valid now; it is empty if it is.
func validity(c *ssh.Certificate) string {
	at := now()
	seconds := uint64(max(at.Unix(), 0))
	clock := at.Format(time.RFC3339)
	switch {
	case seconds < c.ValidAfter:
		return fmt.Sprintf("is not valid before %s, but this computer's clock says %s", moment(c.ValidAfter), clock)
	case c.ValidBefore != ssh.CertTimeInfinity && seconds >= c.ValidBefore:
		return fmt.Sprintf("was valid until %s, but this computer's clock says %s", moment(c.ValidBefore), clock)
	}
	return ""
}

// moment is a certificate's time for people, in this computer's time zone like
// its clock.
func moment(seconds uint64) string {
	if seconds > 1<<40 {
		return "the end of time"
	}
	return time.Unix(int64(seconds), 0).In(now().Location()).Format(time.RFC3339)
}

// readCertificate reads a user's certificate, as in id_ed25519-cert.pub.
func readCertificate(name string) (*ssh.Certificate, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey(text)
	if err != nil {
		return nil, fmt.Errorf("%s is no SSH certificate: %w", name, err)
	}
	c, ok := key.(*ssh.Certificate)
	if !ok {
		return nil, fmt.Errorf("%s is a public key, not a certificate", name)
	}
	return c, nil
}

// called is what a user's certificate is called in messages.
func called(c *ssh.Certificate) string {
	if c.KeyId == "" {
		return fmt.Sprintf("the certificate with serial number %d", c.Serial)
	}
	return fmt.Sprintf("the certificate %q", c.KeyId)
}

// doubts say why a host may not accept a user's certificate; there may be none.
func doubts(c *ssh.Certificate, user string) []string {
	var all []string
	if c.CertType != ssh.UserCert {
		all = append(all, "is one for hosts, not for users")
	}
	if problem := validity(c); problem != "" {
		all = append(all, problem+" ("+clockAdvice+")")
	}
	if len(c.ValidPrincipals) > 0 && !slices.Contains(c.ValidPrincipals, user) {
		all = append(all, fmt.Sprintf("is for %s, not for %s", strings.Join(c.ValidPrincipals, ", "), user))
	}
	return all
}
