//go:build lab

package e2e

import (
	"strings"
	"testing"
	"time"
)

func TestAFileEditedOnAHostIsShownAndPutBack(t *testing.T) {
	const file = "/etc/haproxy/haproxy.cfg"
	before := site.on(t, "lb-2", "cat "+file)
	site.on(t, "lb-2", "sed -i 's/retries  *[0-9]*/retries 7/' "+file)
	if site.on(t, "lb-2", "cat "+file) == before {
		t.Fatal("the edit changed nothing")
	}
	preview := site.infractl("preview", "-e", site.env, "--refresh")
	if preview.code != 0 {
		t.Fatalf("%v", preview)
	}
	shown := preview.stdout + preview.stderr
	for _, want := range []string{"lb-2", file, "retries 7", "reload"} {
		if !strings.Contains(shown, want) {
			t.Errorf("the preview does not show %q", want)
		}
	}
	if strings.Contains(shown, "lb-1:") {
		t.Errorf("the preview names lb-1, which did not change")
	}
	if t.Failed() {
		t.Logf("%v", preview)
	}
	site.up(t)
	if after := site.on(t, "lb-2", "cat "+file); after != before {
		t.Errorf("up did not put the file back:\n%s", after)
	}
}

func TestARefusedConfigurationLeavesTheOldOneServing(t *testing.T) {
	// The new configuration is refused because of a file that it includes and
	// that is Debian's, so the next change to anything of nginx's meets it.
	site.on(t, "web-1", "cp -a /etc/nginx/mime.types /root/mime.types && sed -i '1i no_such_directive on;' /etc/nginx/mime.types && "+
		"sha256sum /etc/nginx/nginx.conf >/root/nginx.sum")
	t.Cleanup(func() {
		site.on(t, "web-1", "mv /root/mime.types /etc/nginx/mime.types && rm /root/nginx.sum")
		if err := site.configure(nil); err != nil {
			t.Error(err)
		}
		site.up(t)
	})
	if err := site.configure(map[string]string{"infractl:debugHeaders": "false"}); err != nil {
		t.Fatal(err)
	}
	l := startLoad([]string{site.URL + "/"}, 50, 10*time.Second, 5*time.Minute)
	r := site.infractl("up", "-e", site.env, "--yes")
	samples := l.stop()
	if r.code == 0 {
		t.Fatalf("a configuration that nginx refuses was applied: %v", r)
	}
	for _, want := range []string{"web-1", "/etc/nginx/mime.types:1", "no_such_directive"} {
		if !strings.Contains(r.stderr, want) {
			t.Errorf("the error does not name %q: %v", want, r)
		}
	}
	if out := site.on(t, "web-1", "sha256sum -c /root/nginx.sum && systemctl is-active nginx"); !strings.Contains(out, "OK") {
		t.Errorf("web-1 has the refused configuration: %s", out)
	}
	if bad := failures(samples); len(bad) > 0 {
		t.Errorf("%d of %d requests failed meanwhile", len(bad), len(samples))
	}
}
