package lab

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

// relay passes machines' DNS questions on to a name server that only this
// computer can ask, such as one on its loopback interface.
type relay struct {
	to     string
	udp    net.PacketConn
	tcp    net.Listener
	cancel context.CancelFunc
	group  sync.WaitGroup
}

// questionTimeout is when a resolver has asked the next server long since (resolv.conf(5): 5 s).
const questionTimeout = 5 * time.Second

// startRelay passes on what is asked at one address and port to another.
func startRelay(at netip.AddrPort, server string) (*relay, error) {
	udp, err := net.ListenPacket("udp", at.String())
	if err != nil {
		return nil, fmt.Errorf("relay to the name server %s: %w", server, err)
	}
	tcp, err := net.Listen("tcp", at.String())
	if err != nil {
		udp.Close()
		return nil, fmt.Errorf("relay to the name server %s: %w", server, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &relay{to: server, udp: udp, tcp: tcp, cancel: cancel}
	r.group.Go(func() { r.questions(ctx) })
	r.group.Go(func() { r.connections(ctx) })
	return r, nil
}

// Close ends the relay.
func (r *relay) Close() {
	r.cancel()
	r.udp.Close()
	r.tcp.Close()
	r.group.Wait()
}

func (r *relay) questions(ctx context.Context) {
	buffer := make([]byte, 65535)
	for {
		n, from, err := r.udp.ReadFrom(buffer)
		if err != nil {
			return // closed
		}
		question := append([]byte{}, buffer[:n]...)
		r.group.Go(func() {
			c, err := r.dial(ctx, "udp")
			if err != nil {
				return // the machine asks again
			}
			defer c.Close()
			if _, err := c.Write(question); err != nil {
				return
			}
			answer := make([]byte, 65535)
			if n, err := c.Read(answer); err == nil {
				_, _ = r.udp.WriteTo(answer[:n], from)
			}
		})
	}
}

func (r *relay) connections(ctx context.Context) {
	for {
		client, err := r.tcp.Accept()
		if err != nil {
			return // closed
		}
		r.group.Go(func() {
			defer client.Close()
			server, err := r.dial(ctx, "tcp")
			if err != nil {
				return
			}
			defer server.Close()
			_ = client.SetDeadline(time.Now().Add(questionTimeout))
			r.group.Go(func() { _, _ = io.Copy(server, client) })
			_, _ = io.Copy(client, server)
		})
	}
}

func (r *relay) dial(ctx context.Context, network string) (net.Conn, error) {
	c, err := (&net.Dialer{Timeout: questionTimeout}).DialContext(ctx, network, r.to)
	if err != nil {
		return nil, err
	}
	return c, c.SetDeadline(time.Now().Add(questionTimeout))
}
