package provision

import (
	"encoding/base64"
	"net/url"
	"slices"
	"strings"
)

// withheld stands for a text from which the secrets cannot be taken out.
const withheld = "[withheld: the text holds a secret]"

// marks stand for a secret in a text. The first that holds no secret is used:
// a one-letter secret must not be put in by what is to hide it.
var marks = []string{"[secret]", "***", "#", ""}

// Redactor takes secrets out of texts that come from hosts.
type Redactor struct {
	words []string
	mark  string
}

// NewRedactor returns a Redactor for the values of secrets. Beside a value
// itself it knows it as part of a URL, in base64, and, for values of several
// lines such as keys, each line of it.
func NewRedactor(secrets map[string]string) *Redactor {
	var r Redactor
	for _, value := range secrets {
		trimmed := strings.TrimSpace(value)
		words := []string{value, trimmed, url.QueryEscape(value), url.PathEscape(value), base64.StdEncoding.EncodeToString([]byte(value))}
		if strings.Contains(trimmed, "\n") {
			for _, line := range strings.Split(trimmed, "\n") {
				// The first and last line of a PEM file are no secret.
				if line = strings.TrimSpace(line); len(line) >= 16 && !strings.HasPrefix(line, "-----") {
					words = append(words, line)
				}
			}
		}
		for _, word := range words {
			if word != "" && !slices.Contains(r.words, word) {
				r.words = append(r.words, word)
			}
		}
	}
	// Longer words first: one that contains another must be found whole.
	slices.SortFunc(r.words, func(a, b string) int {
		if len(a) != len(b) {
			return len(b) - len(a)
		}
		return strings.Compare(a, b)
	})
	for _, r.mark = range marks {
		if !r.holds(r.mark) {
			break
		}
	}
	return &r
}

// Redact returns the text without any secret. Nothing that it returns contains
// a secret's value, whatever the values are.
func (r *Redactor) Redact(text string) string {
	// What is put in a secret's place can form another secret with what is
	// around it, so once is not enough.
	for range 4 {
		if !r.holds(text) {
			return text
		}
		for _, word := range r.words {
			text = strings.ReplaceAll(text, word, r.mark)
		}
	}
	for _, last := range []string{text, withheld} {
		if !r.holds(last) {
			return last
		}
	}
	return ""
}

func (r *Redactor) holds(text string) bool {
	return slices.ContainsFunc(r.words, func(word string) bool { return strings.Contains(text, word) })
}
