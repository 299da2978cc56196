package provision

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/infractl/infractl/provision/desired"
)

var update = flag.Bool("update", false, "write the golden files anew")

// hostile are names that mean something to a shell.
var hostile = []string{
	"", " ", "a b", "it's", `"`, "`id`", "$(id)", "$HOME", "${x}", "a;b", "a&b", "a|b", "*", "?", "[a]", "~", "#", "\\", `\n`, "-rf", "--", "!", "a\tb", "a\nb", "'", "''", `'"'"'`, "é", "\x7f", "{a,b}", "<a", ">a", "%s",
}

func TestQuoteSurvivesTheShell(t *testing.T) {
	s := new(script)
	s.call("printf", append([]string{`%s\0`}, hostile...)...)
	out, err := exec.Command("sh", "-c", s.String()).Output()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(out), strings.Join(hostile, "\x00")+"\x00"; got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func FuzzQuote(f *testing.F) {
	for _, word := range hostile {
		f.Add(word)
	}
	f.Fuzz(func(t *testing.T, word string) {
		if strings.Contains(word, "\x00") {
			return
		}
		out, err := exec.Command("sh", "-c", "printf %s "+quote(word)).Output()
		if err != nil || string(out) != word {
			t.Errorf("%q became %q, %v", word, out, err)
		}
	})
}

// calls is a script without the library in front of it.
func calls(t *testing.T, text string, files ...string) string {
	t.Helper()
	for _, file := range files {
		library, err := scripts.ReadFile("scripts/" + file + ".sh")
		if err != nil {
			t.Fatal(err)
		}
		text = strings.Replace(text, string(library), "", 1)
	}
	return text
}

// parses lets sh read a script without running it.
func parses(t *testing.T, text string) {
	t.Helper()
	c := exec.Command("sh", "-n")
	c.Stdin = strings.NewReader(text)
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("sh -n: %v: %s", err, out)
	}
}

func unpack(t *testing.T, archive []byte) map[string]string {
	t.Helper()
	members := map[string]string{}
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return members
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		members[header.Name] = string(text)
	}
}

func TestTransactionGolden(t *testing.T) {
	h := web()
	h.Packages = append(h.Packages, "it's")
	h.Files["/etc/it's $(odd)/`name`"] = desired.File{Content: "@@secret.word@@", Owner: "app", Mode: "0600"}
	h.Units[0].Validate = `nginx -t -c "/etc/nginx/nginx.conf" && echo 'fine'`
	h.Units[0].Health = "curl -sf http://10.0.2.11/"
	h.Units[0].Guarded = true
	h.Files["/etc/ssh/authorized_keys.d/ops"] = desired.File{Content: "ssh-ed25519 AAAA ops"}
	a := asDesired(web())
	// A file that was there before, one that comes back, and one that goes.
	h.Files["/etc/theirs"] = desired.File{Content: "ours"}
	a.Files["/etc/theirs"] = File{Kind: 'f', Content: "theirs", Known: true}
	a.Files["/etc/back"] = File{Kind: 'f'}
	a.Manifest = append(a.Manifest, "/etc/back")
	a.Originals = map[string]string{"/etc/back": "0123"}
	a.Found = map[string]Found{"nginx.service": {Load: "loaded", Active: "active", File: "enabled"}, "old.service": {Load: "not-found", Active: "inactive"}}
	a.Files["/etc/old"] = File{Kind: 'f'}
	a.Files["/etc/systemd/system/old.service"] = File{Kind: 'f'}
	a.Manifest = append(a.Manifest, "/etc/old", "/etc/systemd/system/old.service")
	a.Loaded["old.service"] = Loaded{"x", "-"}
	a.Trees = map[string]Tree{"/srv/old/1": {}}
	delete(a.Files, "/etc/nginx/nginx.conf")
	delete(a.Files, "/srv/app/current")
	delete(a.Users, "app")
	plan, err := Plan(h, a)
	if err != nil {
		t.Fatal(err)
	}
	tx, err := newTransaction("1700000000abcdef", "anna@laptop (process 1)", h, a, plan, false)
	if err != nil {
		t.Fatal(err)
	}
	members := unpack(t, tx.archive)
	matchGolden(t, "transaction.golden", golden(t, tx, members))
	// A key that was not there goes when all daemons have their previous files.
	back := members["rollback.sh"]
	for _, later := range [][2]string{{"/etc/ssh/authorized_keys.d/ops' 'yet'", "resume "}, {"resume ", "/etc/ssh/authorized_keys.d/ops'\n"}} {
		if first, then := strings.Index(back, later[0]), strings.LastIndex(back, later[1]); first < 0 || then < first {
			t.Errorf("%q does not come before %q in\n%s", later[0], later[1], back)
		}
	}
	for _, text := range []string{tx.script, members["validate.sh"], members["rollback.sh"], inspectScript("@@x", h)} {
		parses(t, text)
		if strings.Contains(text, "xyzzy") {
			t.Error("a secret is in a script")
		}
	}
	if members["complete"] != "" || !strings.Contains(members["1"]+members["0"]+members["2"]+members["3"], "xyzzy") {
		t.Errorf("members: %q", members)
	}
}

func TestGivingBackGolden(t *testing.T) {
	a := takenOver()
	h := remains(server(), a)
	plan, err := planChange(h, a, true)
	if err != nil {
		t.Fatal(err)
	}
	tx, err := newTransaction("1700000000abcdef", "anna@laptop (process 1)", h, a, plan, true)
	if err != nil {
		t.Fatal(err)
	}
	members := unpack(t, tx.archive)
	for _, text := range []string{tx.script, members["validate.sh"], members["rollback.sh"]} {
		parses(t, text)
	}
	matchGolden(t, "giveback.golden", golden(t, tx, members))
}

// golden are the calls that a transaction makes on a host.
func golden(t *testing.T, tx *transaction, members map[string]string) string {
	t.Helper()
	// The archive's size depends on the scripts in it.
	main := strings.Replace(calls(t, tx.script, "common", "change"), "receive '"+itoa(len(tx.archive))+"'", "receive 'N'", 1)
	return "# the change\n" + main +
		"# validate.sh\n" + calls(t, members["validate.sh"], "common", "validate") +
		"# rollback.sh\n" + calls(t, members["rollback.sh"], "common", "rollback")
}

// matchGolden compares a text with a file of testdata, or writes it there.
func matchGolden(t *testing.T, name, got string) {
	t.Helper()
	golden := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the scripts differ from %s; run go test -update and look at the difference:\n%s", golden, got)
	}
}

func TestDirectoriesThatAChangeMakesAreNotedUpToTheTop(t *testing.T) {
	tx := t.TempDir()
	s := newScript()
	s.set("tx", tx)
	s.load("change")
	s.call("made", "/no such directory/a/b", tx+"/c", tx)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if out, err := exec.CommandContext(ctx, "sh", "-c", s.String()).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	text, err := os.ReadFile(filepath.Join(tx, "index"))
	if want := "dir /no such directory/a/b\ndir /no such directory/a\ndir /no such directory\ndir " + tx + "/c\n"; err != nil || string(text) != want {
		t.Errorf("the index is %q, %v", text, err)
	}
}

func itoa(n int) string {
	var digits []byte
	for ; n > 0; n /= 10 {
		digits = append([]byte{byte('0' + n%10)}, digits...)
	}
	return string(digits)
}

func TestTreeIsSentAsItIs(t *testing.T) {
	if _, err := exec.LookPath("tar"); err != nil {
		t.Skip("tar is not installed")
	}
	dir, out := t.TempDir(), t.TempDir()
	for name, mode := range map[string]os.FileMode{"bin/app": 0o755, "public/a b.css": 0o644, "big": 0o600} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		text := name
		if name == "big" {
			text = strings.Repeat("0123456789abcdef-", 100000)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("bin/app", filepath.Join(dir, "run")); err != nil {
		t.Fatal(err)
	}
	sum, err := desired.Digest(dir)
	if err != nil {
		t.Fatal(err)
	}
	var stream bytes.Buffer
	if err := sendTree(&stream, desired.Tree{Source: dir, Digest: sum}); err != nil {
		t.Fatal(err)
	}
	// The loop is that of the script's function tree.
	c := exec.Command("sh", "-c", `while IFS= read -r n && [ "$n" != 0 ]; do head -c "$n"; done | tar -xzf - -C `+quote(out)+` && cat`)
	stream.WriteString("what follows")
	c.Stdin = &stream
	rest, err := c.CombinedOutput()
	if err != nil || string(rest) != "what follows" {
		t.Fatalf("%v: %q", err, rest)
	}
	if again, err := desired.Digest(out); err != nil || again != sum {
		t.Errorf("what arrived has digest %s, %v", again, err)
	}
}

func TestTreeThatChangedSinceItsDigestIsNotSent(t *testing.T) {
	dir := t.TempDir()
	err := sendTree(io.Discard, desired.Tree{Source: dir, Digest: "sha256:0"})
	if err == nil || !strings.Contains(err.Error(), "has changed") {
		t.Errorf("got %v", err)
	}
}

func TestProtocol(t *testing.T) {
	var p protocol
	for _, line := range []string{"noise\n", "@step one\n", "@text /etc/a:3: bad\n", "@text \n", "@fail validate untouched\n"} {
		p.read(line)
	}
	err := p.err("web-1")
	expect(t, err, ErrValidation, "/etc/a:3: bad", "still has the previous one")
	if errors.Is(err, ErrReverted) {
		t.Error("nothing was reverted")
	}
	var done protocol
	done.read("@done\n")
	if err := done.err("web-1"); !done.ended || err != nil {
		t.Errorf("got %v", err)
	}
	for flag, kind := range map[string]error{"reverted": ErrReverted, "stuck": ErrNotReverted} {
		var p protocol
		p.read("@fail unhealthy " + flag + "\n")
		expect(t, p.err("web-1"), ErrUnhealthy)
		expect(t, p.err("web-1"), kind)
	}
	for code := range failures {
		var p protocol
		p.read("@fail " + code + " untouched\n")
		var e *Error
		if err := p.err("web-1"); !errors.As(err, &e) || e.Hint == "" || e.Step == "" {
			t.Errorf("%s: %v", code, err)
		}
	}
}
