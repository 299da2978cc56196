package main

import (
	"context"
	"os"

	"github.com/infractl/infractl/cmd/infractl/internal/prompt"
	"github.com/infractl/infractl/provision/ask"
)

// sudoVariable holds sudo's password for runs without a person.
const sudoVariable = "INFRACTL_SUDO_PASSWORD"

// questions is what answers questions of this process and of the plugin.
var questions *ask.Server

// answerQuestions answers, from now on, what only the user knows: sudo's password
// and the passphrases of keys. The password in the environment is taken out of
// it, so that Pulumi and its plugins do not inherit it.
func (s *session) answerQuestions() error {
	p := &prompt.Prompter{
		SudoPassword: os.Getenv(sudoVariable),
		Terminal:     prompt.Terminal(),
		Aside:        s.aside,
	}
	if questions != nil || p.SudoPassword == "" && p.Terminal == nil {
		return nil
	}
	var err error
	questions, err = ask.Serve(func(ctx context.Context, q ask.Question) (string, error) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(s.c.Context, cancel)()
		return p.Answer(ctx, q)
	})
	if err != nil {
		return err
	}
	return os.Unsetenv(sudoVariable)
}

// stopQuestions forgets what was answered.
func stopQuestions() {
	if questions != nil {
		questions.Close()
		questions = nil
	}
}
