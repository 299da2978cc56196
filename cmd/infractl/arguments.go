package main

import (
	"strings"

	"github.com/urfave/cli/v2"
)

// arguments are the command's arguments without flags. The parser stops at the
// first argument, so flags behind it are set here.
func arguments(c *cli.Context) ([]string, error) {
	var out []string
	rest := c.Args().Slice()
	for len(rest) > 0 {
		one := rest[0]
		rest = rest[1:]
		switch {
		case one == "--":
			return append(out, rest...), nil
		case len(one) < 2 || one[0] != '-':
			out = append(out, one)
			continue
		}
		name, value, given := strings.Cut(strings.TrimLeft(one, "-"), "=")
		flag := flagOf(c.Command, name)
		if flag == nil {
			return nil, usage("flag provided but not defined: -%s", name)
		}
		if _, isSwitch := flag.(*cli.BoolFlag); isSwitch && !given {
			value, given = "true", true
		}
		if !given {
			if len(rest) == 0 {
				return nil, usage("flag needs an argument: -%s", name)
			}
			value, rest = rest[0], rest[1:]
		}
		if err := c.Set(flag.Names()[0], value); err != nil {
			return nil, usage("invalid value %q for flag -%s: %w", value, name, err)
		}
	}
	return out, nil
}

// flagOf finds a command's flag by any of its names.
func flagOf(command *cli.Command, name string) cli.Flag {
	for _, f := range command.Flags {
		for _, n := range f.Names() {
			if n == name {
				return f
			}
		}
	}
	return nil
}
