package lab

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"
)

// echoServer answers every question, by UDP and TCP, with itself turned round.
func echoServer(t *testing.T) string {
	t.Helper()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	udp, err := net.ListenPacket("udp", tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tcp.Close(); udp.Close() })
	go func() {
		buffer := make([]byte, 4096)
		for {
			n, from, err := udp.ReadFrom(buffer)
			if err != nil {
				return
			}
			_, _ = udp.WriteTo(bytes.ToUpper(buffer[:n]), from)
		}
	}()
	go func() {
		for {
			c, err := tcp.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				buffer := make([]byte, 4096)
				if n, err := c.Read(buffer); err == nil {
					_, _ = c.Write(bytes.ToUpper(buffer[:n]))
				}
			}()
		}
	}()
	return tcp.Addr().String()
}

func TestRelayPassesQuestionsOn(t *testing.T) {
	// A port that is free for both protocols.
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := netip.MustParseAddrPort(free.Addr().String())
	free.Close()
	r, err := startRelay(at, echoServer(t))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, network := range []string{"udp", "tcp"} {
		c, err := net.Dial(network, at.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.Write([]byte("question")); err != nil {
			t.Fatal(err)
		}
		answer := make([]byte, len("question"))
		if _, err := io.ReadFull(c, answer); err != nil || string(answer) != "QUESTION" {
			t.Errorf("%s: %q %v", network, answer, err)
		}
	}
}
