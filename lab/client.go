package lab

import (
	"context"
	"fmt"
	"net/http"

	"github.com/infractl/infractl/lab/api"
	"github.com/infractl/infractl/lab/machine"
)

// Client orders faults of a running lab. Hosts are named by their server's
// name, with or without the environment before it. The embedded Control orders
// faults of the API.
type Client struct {
	*api.Control
	token string
}

// Connect makes a client of the lab with its state in o.Dir.
func Connect(o Options) (*Client, error) {
	if err := o.setDefaults(); err != nil {
		return nil, err
	}
	c, err := o.readCredentials()
	if err != nil {
		return nil, fmt.Errorf("%w (%w)", errNotUp, err)
	}
	return newClient(c), nil
}

func newClient(c credentials) *Client {
	return &Client{Control: api.NewControl(Endpoint, c.Token), token: c.Token}
}

// Token is the operator's API token.
func (c *Client) Token() string { return c.token }

func (c *Client) status(ctx context.Context) (daemonStatus, error) {
	var s daemonStatus
	err := c.Do(ctx, http.MethodGet, "/status", nil, &s)
	return s, err
}

// Machines returns the state of all machines, by name.
func (c *Client) Machines(ctx context.Context) ([]machine.State, error) {
	s, err := c.status(ctx)
	return s.Machines, err
}

func (c *Client) order(ctx context.Context, verb string, f hostFault) error {
	return c.Do(ctx, http.MethodPost, "/hosts/"+verb, f, nil)
}

// Cut makes packets between two hosts vanish, one way only those from a to b.
func (c *Client) Cut(ctx context.Context, a, b string, oneWay bool, scope machine.Scope) error {
	return c.order(ctx, "cut", hostFault{Host: a, To: b, OneWay: oneWay, Scope: scope})
}

// Isolate makes all packets from and to a host vanish.
func (c *Client) Isolate(ctx context.Context, host string, scope machine.Scope) error {
	return c.order(ctx, "isolate", hostFault{Host: host, Scope: scope})
}

// Freeze halts a host: its processes stand still and packets to it vanish.
func (c *Client) Freeze(ctx context.Context, host string) error {
	return c.order(ctx, "freeze", hostFault{Host: host})
}

// Thaw lets a frozen host go on.
func (c *Client) Thaw(ctx context.Context, host string) error {
	return c.order(ctx, "thaw", hostFault{Host: host})
}

// Kill cuts a host's power. The API learns of it when it asks.
func (c *Client) Kill(ctx context.Context, host string) error {
	return c.order(ctx, "kill", hostFault{Host: host})
}

// Heal ends all cuts and isolations and thaws what is frozen. Killed hosts stay off.
func (c *Client) Heal(ctx context.Context) error {
	return c.order(ctx, "heal", hostFault{})
}

// Stock makes servers whose names match a pattern (as of path.Match) from images that
// have the packages of a web infrastructure already, from now on until the lab ends: a
// first up then takes half the time. A rehearsal of it does not want that.
func (c *Client) Stock(ctx context.Context, pattern string) error {
	return c.order(ctx, "stock", hostFault{Host: pattern})
}
