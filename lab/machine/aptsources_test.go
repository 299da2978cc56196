package machine

import (
	"errors"
	"slices"
	"testing"
	"testing/fstest"
)

func files(content map[string]string) fstest.MapFS {
	fs := fstest.MapFS{}
	for name, text := range content {
		fs[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return fs
}

func TestMirrorLinesComeFromTheComputersOwnSources(t *testing.T) {
	const keyring = "signed-by=" + archiveKeyring
	for name, test := range map[string]struct {
		etc  map[string]string
		want []string
	}{
		"deb822, one stanza for release and updates, others' archives beside it": {
			map[string]string{
				"sources.list.d/debian.sources": `# a comment
Types: deb deb-src
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
`,
				"sources.list.d/vendor.list": "deb [signed-by=/etc/apt/keyrings/vendor.gpg arch=amd64] https://vendor.example bookworm main\n",
				"sources.list.d/node.list":   "deb https://node.example/x nodistro main\n",
			},
			[]string{
				"deb [" + keyring + "] http://mirror.example/debian trixie main",
				"deb [" + keyring + "] http://mirror.example/debian trixie-updates main",
				"deb [" + keyring + "] http://mirror.example/debian-security trixie-security main",
			},
		},
		"one-line format without keys": {
			map[string]string{"sources.list": `
deb cdrom:[Debian 12]/ bookworm main
deb http://a.example/other/ bookworm main
deb  http://b.example/debian/  bookworm  main non-free-firmware # default
deb-src http://b.example/debian/ bookworm main
#deb http://c.example/debian bookworm-updates main
deb [ trusted=yes ] https://b.example/debian-security bookworm-security main
`},
			[]string{
				"deb [" + keyring + "] http://b.example/debian/ trixie main",
				"deb [trusted=yes] https://b.example/debian-security trixie-security main",
			},
		},
		"deb822 with continuation lines, a key in the file, and a disabled stanza": {
			map[string]string{"sources.list.d/x.sources": `Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: trixie
Components: main

Types: deb
URIs:
 http://on.example/debian
Suites:
 trixie
 trixie-updates
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mQINBF
 -----END PGP PUBLIC KEY BLOCK-----
`},
			[]string{
				"deb [" + keyring + "] http://on.example/debian trixie main",
				"deb [" + keyring + "] http://on.example/debian trixie-updates main",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := mirrorLines(files(test.etc), "trixie")
			if err != nil || !slices.Equal(got, test.want) {
				t.Errorf("%v\ngot  %q\nwant %q", err, got, test.want)
			}
		})
	}
}

func TestMirrorLinesWantADebianArchive(t *testing.T) {
	for name, etc := range map[string]map[string]string{
		"nothing":        nil,
		"another system": {"sources.list": "deb http://archive.example/ubuntu noble main\n"},
		"not reachable":  {"sources.list": "deb file:/srv/mirror bookworm main\n"},
		"another's key":  {"sources.list": "deb [signed-by=/etc/apt/keyrings/x.gpg] http://x.example/debian bookworm main\n"},
	} {
		t.Run(name, func(t *testing.T) {
			if lines, err := mirrorLines(files(etc), "trixie"); !errors.Is(err, errNoMirror) {
				t.Errorf("%q, %v", lines, err)
			}
		})
	}
}
