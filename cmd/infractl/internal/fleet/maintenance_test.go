package fleet

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// sh runs a script of this package on this computer.
func sh(t *testing.T, input, file, function string, arguments ...string) string {
	t.Helper()
	cmd := exec.Command("sh", "-c", program(file, function, arguments...))
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", function, err, out)
	}
	return strings.TrimSpace(string(out))
}

func TestANewerKernelOfTheSameFlavourAsksForAReboot(t *testing.T) {
	if _, err := exec.LookPath("dpkg"); err != nil {
		t.Skip("dpkg, which compares the versions, is not installed")
	}
	const (
		bookworm = "#1 SMP PREEMPT_DYNAMIC Debian 6.1.76-1 (2024-02-01)"
		trixie   = "#1 SMP PREEMPT_DYNAMIC Debian 6.12.43-1 (2025-08-27)"
	)
	for _, c := range []struct {
		name, release, build string
		installed            []string
		want                 string
	}{
		{"no kernel package, as in a container", "6.18.5", "#1 SMP", nil, ""},
		{"the newest runs", "6.1.0-18-amd64", bookworm,
			[]string{"ii  linux-image-6.1.0-9-amd64 6.1.27-1", "ii  linux-image-6.1.0-18-amd64 6.1.76-1"}, ""},
		{"a newer one is installed", "6.1.0-18-amd64", bookworm,
			[]string{"ii  linux-image-6.1.0-18-amd64 6.1.76-1", "ii  linux-image-6.1.0-37-amd64 6.1.140-1"},
			"kernel 6.1.0-37-amd64 is installed, 6.1.0-18-amd64 runs"},
		{"of two newer ones the newest is named", "6.1.0-9-amd64", "#1 SMP Debian 6.1.27-1",
			[]string{"ii  linux-image-6.1.0-9-amd64 6.1.27-1", "ii  linux-image-6.1.0-37-amd64 6.1.140-1", "ii  linux-image-6.1.0-18-amd64 6.1.76-1"},
			"kernel 6.1.0-37-amd64 is installed, 6.1.0-9-amd64 runs"},
		{"its files were removed", "6.1.0-18-amd64", bookworm,
			[]string{"ii  linux-image-6.1.0-18-amd64 6.1.76-1", "rc  linux-image-6.1.0-37-amd64 6.1.140-1"}, ""},
		{"another flavour is newer", "6.1.0-18-amd64", bookworm,
			[]string{"ii  linux-image-6.1.0-18-amd64 6.1.76-1", "ii  linux-image-6.1.0-37-cloud-amd64 6.1.140-1"}, ""},
		{"the names of Debian 13", "6.12.43+deb13-cloud-amd64", trixie,
			[]string{"ii  linux-image-6.12.43+deb13-cloud-amd64 6.12.43-1", "ii  linux-image-6.12.48+deb13-cloud-amd64 6.12.48-1"},
			"kernel 6.12.48+deb13-cloud-amd64 is installed, 6.12.43+deb13-cloud-amd64 runs"},
		{"the same name was built anew", "6.1.0-18-amd64", bookworm,
			[]string{"ii  linux-image-6.1.0-18-amd64 6.1.82-1"}, "kernel 6.1.0-18-amd64 was upgraded to 6.1.82-1"},
		{"a kernel that is not Debian's", "6.18.5-custom", "#1 SMP", []string{"ii  linux-image-6.1.0-18-amd64 6.1.76-1"}, ""},
		{"packages that only depend on kernels", "6.1.0-18-amd64", bookworm,
			[]string{"ii  linux-image-6.1.0-18-amd64 6.1.76-1", "ii  linux-image-amd64 6.1.140-1", "ii  linux-image-6.1.0-37-amd64-dbg 6.1.140-1"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := sh(t, strings.Join(c.installed, "\n")+"\n", "upgrade", "newer_kernel", c.release, c.build); got != c.want {
				t.Errorf("%q, not %q", got, c.want)
			}
		})
	}
}

// simulated is what apt-get --simulate --with-new-pkgs upgrade prints.
const simulated = `NOTE: This is only a simulation!
      apt-get needs root privileges for real execution.
Reading package lists...
Building dependency tree...
Calculating upgrade...
The following packages were automatically installed and are no longer required:
  libfoo1
The following NEW packages will be installed:
  linux-image-6.1.0-37-cloud-amd64
The following packages have been kept back:
  haproxy postgresql-17
  nginx
The following packages will be upgraded:
  libssl3
2 upgraded, 1 newly installed, 0 to remove and 3 not upgraded.
Inst libssl3 [3.0.15-1~deb12u1] (3.0.16-1~deb12u1 Debian:12.11/stable, Debian-Security:12/stable-security [amd64])
Inst linux-image-6.1.0-37-cloud-amd64 (6.1.140-1 Debian-Security:12/stable-security [amd64])
Inst libc6:i386 [2.36-9] (2.36-10 Debian:12.11/stable [i386]) []
Conf libssl3 (3.0.16-1~deb12u1 Debian:12.11/stable [amd64])
`

func TestWhatAptWouldDoIsUnderstood(t *testing.T) {
	var u Upgrade
	var steps []string
	text := sh(t, simulated, "upgrade", "planned") + "\n@step reading\n@reboot kernel a b\n@stale nginx.service\n@unfinished\n"
	for line := range strings.Lines(text) {
		u.take(strings.TrimSuffix(line, "\n"), func(s string) { steps = append(steps, s) })
	}
	var got []string
	for _, p := range u.Packages {
		got = append(got, p.String())
	}
	want := []string{
		"libssl3 3.0.15-1~deb12u1 → 3.0.16-1~deb12u1",
		"linux-image-6.1.0-37-cloud-amd64 6.1.140-1 (new)",
		"libc6:i386 2.36-9 → 2.36-10",
	}
	if !slices.Equal(got, want) {
		t.Errorf("packages: %q", got)
	}
	if !slices.Equal(u.Kept, []string{"haproxy", "postgresql-17", "nginx"}) {
		t.Errorf("kept: %q", u.Kept)
	}
	if u.Reboot != "kernel a b" || !u.Unfinished || !slices.Equal(u.Stale, []string{"nginx.service"}) || !slices.Equal(steps, []string{"reading"}) {
		t.Errorf("%+v, steps %q", u, steps)
	}
}

// statistics are the beginning of what HAProxy answers to "show stat".
const statistics = `# pxname,svname,qcur,qmax,scur,smax,slim,stot,bin,bout,dreq,dresp,ereq,econ,eresp,wretr,wredis,status,weight,act,bck,chkfail,
web,web-1,0,0,0,3,,40,9000,80000,,0,,0,0,0,0,UP,1,1,0,0,
web,web-2,0,0,0,2,,38,9000,80000,,0,,0,0,0,0,UP 1/2,1,1,0,0,
web,web-3,0,0,0,0,,0,0,0,,0,,0,0,0,0,MAINT,1,1,0,0,
write,web-1,0,0,0,0,,0,0,0,,0,,0,0,0,0,DOWN,1,1,0,0,

`

func TestAServersStatusIsReadFromItsBackend(t *testing.T) {
	for server, want := range map[string]string{"web-1": "UP", "web-2": "UP 1/2", "web-3": "MAINT"} {
		if got, err := backendStatus(statistics, "web", server); got != want || err != nil {
			t.Errorf("%s: %q, %v", server, got, err)
		}
	}
	if _, err := backendStatus(statistics, "web", "web-4"); err == nil || !strings.Contains(err.Error(), "web-4") {
		t.Errorf("a server that it does not have: %v", err)
	}
	if _, err := backendStatus("", "web", "web-1"); err == nil {
		t.Error("no answer is no error")
	}
}

func TestAConditionIsOneOfThree(t *testing.T) {
	h := Host{Name: "web-1"}
	for text, want := range map[string]Condition{
		"ready\n":                              {},
		"drained by ops@desk at noon\n":        {Drained: "by ops@desk at noon"},
		"unwell nginx.service is not active\n": {Unwell: "nginx.service is not active"},
	} {
		if got := parseCondition(h, text); got != want {
			t.Errorf("%q: %+v", text, got)
		}
	}
	if c := parseCondition(h, ""); c.Err == nil || c.Serves() || c.Problem() != "does not answer" {
		t.Errorf("nothing: %+v", c)
	}
}

func TestOnlyDrainsOfCommandsPass(t *testing.T) {
	for reason, want := range map[string]bool{
		"replace": true, "scale": true, "upgrade, by ops@desk at 2026-01-02 12:00:00": true, "restart": true, "failover by ops": true, "change": true,
		"by ops@desk at noon": false, "": false, "scaled": false, "upgrades of the disk": false, "Replace": false,
	} {
		if got := Passing(reason); got != want {
			t.Errorf("%q: %v", reason, got)
		}
	}
}

func TestAProgramsOutputComesLineByLine(t *testing.T) {
	var got []string
	l := &lines{each: func(s string) { got = append(got, s) }}
	for _, piece := range []string{"@st", "ep one\n@step two\n", "@step", " three"} {
		if n, err := l.Write([]byte(piece)); n != len(piece) || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	}
	l.flush()
	if !slices.Equal(got, []string{"@step one", "@step two", "@step three"}) {
		t.Errorf("%q", got)
	}
}
