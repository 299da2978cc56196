package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"

	"github.com/urfave/cli/v2"
)

// release is set at build time with -ldflags "-X main.release=1.2.3".
var release = "dev"

type versionInfo struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func version() versionInfo {
	v := versionInfo{Version: release, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" && len(s.Value) >= 12 {
				v.Revision = s.Value[:12]
			}
		}
	}
	return v
}

func versionCommand() *cli.Command {
	return &cli.Command{
		Name:         "version",
		Usage:        "print infractl's version",
		Flags:        []cli.Flag{resultFlag()},
		OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			v := version()
			if c.Bool("json") {
				return writeJSON(os.Stdout, v)
			}
			text := "infractl " + v.Version
			if v.Revision != "" {
				text += " (" + v.Revision + ")"
			}
			_, err := fmt.Fprintf(os.Stdout, "%s, %s %s\n", text, v.Go, v.Platform)
			return err
		},
	}
}
