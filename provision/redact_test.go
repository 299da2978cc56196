package provision

import (
	"strings"
	"testing"
)

func TestRedactorTakesOutEveryFormOfASecret(t *testing.T) {
	r := NewRedactor(map[string]string{
		"password": "p@ss word/1",
		"key":      "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49\nAgEGCCqGSM49AwEHBG0w\n-----END PRIVATE KEY-----\n",
		"empty":    "",
	})
	for text, want := range map[string]string{
		"login p@ss word/1 failed":                    "login [secret] failed",
		"postgres://app:p%40ss+word%2F1@db":           "postgres://app:[secret]@db",
		"header cEBzcyB3b3JkLzE= sent":                "header [secret] sent",
		"line 2: MIGHAgEAMBMGByqGSM49":                "line 2: [secret]",
		"-----BEGIN PRIVATE KEY----- is not expected": "-----BEGIN PRIVATE KEY----- is not expected",
		"nothing here":                                "nothing here",
	} {
		if got := r.Redact(text); got != want {
			t.Errorf("%q became %q", text, got)
		}
	}
}

func FuzzRedactedTextHoldsNoSecret(f *testing.F) {
	f.Add("the password is hunter2", "hunter2", "x")
	f.Add("[secret]", "secret", "[")
	f.Add("aaaa", "a", "[secret]")
	f.Add("a\nbbbbbbbbbbbbbbbbbbbbbb\nc", "a\nbbbbbbbbbbbbbbbbbbbbbb\nc", "b")
	f.Fuzz(func(t *testing.T, text, a, b string) {
		got := NewRedactor(map[string]string{"a": a, "b": b}).Redact(text)
		for _, secret := range []string{a, b} {
			if secret != "" && strings.Contains(got, secret) {
				t.Errorf("%q still holds %q", got, secret)
			}
		}
	})
}
