package fleet

import (
	"context"
	"errors"
	"strings"
	"testing"
)

func outputs() map[string]any {
	host := func(name string) any {
		return map[string]any{"name": name, "server": "shop-" + name, "public": "198.51.100.1", "private": "10.0.1.11", "hostKey": "ssh-ed25519 AAAA"}
	}
	return map[string]any{
		"url": "http://198.51.100.9/", "vip": map[string]any{"ipv4": "198.51.100.9"},
		"ssh":   map[string]any{"user": "ops", "port": float64(2222)},
		"hosts": map[string]any{"lb": []any{host("lb-1"), host("lb-2")}, "web": []any{host("web-1")}},
	}
}

func TestHostsAreFoundByEitherName(t *testing.T) {
	f, err := New(outputs())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"lb-2", "shop-lb-2"} {
		h, err := f.Host(name)
		if err != nil || h.Tier != "lb" || h.Index != 2 {
			t.Errorf("%s: %+v, %v", name, h, err)
		}
	}
	if target := f.Target(f.Tier("web")[0]); target.Port != 2222 || target.User != "ops" {
		t.Errorf("target %+v", target)
	}
	_, err = f.Host("db-1")
	if err == nil || !strings.Contains(err.Error(), "lb-1, lb-2, web-1") {
		t.Errorf("the error names no hosts: %v", err)
	}
}

func TestOutputsWithoutHostsAreRefused(t *testing.T) {
	if _, err := New(map[string]any{}); err == nil {
		t.Error("no error")
	}
}

func TestErrorsOfSeveralHostsAreJoinedInOrder(t *testing.T) {
	f, _ := New(outputs())
	err := Each(t.Context(), f.Hosts, func(_ context.Context, h Host) error {
		if h.Tier == "web" {
			return nil
		}
		return errors.New(h.Name)
	})
	if err == nil || err.Error() != "lb-1\nlb-2" {
		t.Errorf("%v", err)
	}
}
