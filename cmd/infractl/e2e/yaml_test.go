//go:build lab

package e2e

import "go.yaml.in/yaml/v3"

func decodeYAML(text []byte) (map[string]any, error) {
	var doc map[string]any
	err := yaml.Unmarshal(text, &doc)
	return doc, err
}

func decodeAnyYAML(text []byte) (any, error) {
	var v any
	err := yaml.Unmarshal(text, &v)
	return v, err
}

func encodeYAML(doc map[string]any) ([]byte, error) { return yaml.Marshal(doc) }
