package fleet

import (
	"context"
	_ "embed"
	"fmt"
	"io"
	"strings"

	"github.com/infractl/infractl/provision"
)

//go:embed attended.sh
var attended string

// Command is what to run on hosts.
type Command struct {
	// Words are the program and its arguments, passed as they are. A single
	// word is a line for the shell instead.
	Words []string
	// User is who runs it; empty means root.
	User string
}

// Line is the command as one line for a host's sh.
func (c Command) Line() string {
	words := c.Words
	if len(words) == 1 {
		words = []string{"sh", "-c", words[0]}
	}
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = Quote(w)
	}
	return strings.Join(quoted, " ")
}

// Exec runs a command on a host and hands on what it prints as it comes. It
// returns the command's exit code, which an error means is not known. When the
// context ends, the command is ended too.
func Exec(ctx context.Context, conn *provision.Conn, c Command, stdout, stderr io.Writer) (int, error) {
	run := "attended " + c.Line()
	if c.User != "" && c.User != "root" {
		run = "as_user " + Quote(c.User) + " " + c.Line()
	}
	// The connection's own scripts are stricter than what people expect.
	script := fmt.Sprintf("%s\numask 022\nLC_ALL=C.UTF-8\nexport LC_ALL\n%s\n", attended, run)
	return conn.Attend(ctx, "run the command", script, stdout, stderr)
}
