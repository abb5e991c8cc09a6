// Package memberlistsim lets HashiCorp's own memberlist run in virtual time: its members live in one process, in a bubble of testing/synctest,
// where the clock moves on when everybody waits.
package memberlistsim

import (
	"fmt"
	"math/rand"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// wire connects the members: no delay, in order, and lossy when asked.
type wire struct {
	mu          sync.Mutex
	byAddr      map[string]*transport
	lossPercent int
}

// transport is what memberlist asks for, like its MockTransport; that one cannot be unplugged: whoever sends to a member that ended hangs.
type transport struct {
	wire     *wire
	addr     address
	packets  chan *memberlist.Packet
	streams  chan net.Conn
	dead     chan struct{}
	deadOnce sync.Once
}

type address string

func (a address) Network() string { return "wire" }
func (a address) String() string  { return string(a) }

// Packets that wait to be read; more are lost, as in the buffer of a socket.
const packetsMax = 1024

func (w *wire) plug(number int) *transport {
	w.mu.Lock()
	defer w.mu.Unlock()
	t := &transport{
		wire:    w,
		addr:    address(fmt.Sprintf("10.0.%d.%d:7946", number/250, 1+number%250)),
		packets: make(chan *memberlist.Packet, packetsMax),
		streams: make(chan net.Conn),
		dead:    make(chan struct{}),
	}
	w.byAddr[t.addr.String()] = t
	return t
}

// unplug is kill -9 seen from the outside: packets vanish, connections are refused.
func (t *transport) unplug() { t.deadOnce.Do(func() { close(t.dead) }) }

func (t *transport) isDead() bool {
	select {
	case <-t.dead:
		return true
	default:
		return false
	}
}

func (t *transport) peer(addr string) *transport {
	t.wire.mu.Lock()
	defer t.wire.mu.Unlock()
	return t.wire.byAddr[addr]
}

func (t *transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	host, port, err := net.SplitHostPort(t.addr.String())
	if err != nil {
		return nil, 0, err
	}
	number, err := strconv.Atoi(port)
	return net.ParseIP(host), number, err
}

func (t *transport) WriteTo(b []byte, addr string) (time.Time, error) {
	now := time.Now()
	to := t.peer(addr)
	if to == nil || to.isDead() || t.isDead() || rand.Intn(100) < t.wire.lossPercent {
		return now, nil
	}
	select {
	case to.packets <- &memberlist.Packet{Buf: b, From: t.addr, Timestamp: now}:
	default:
	}
	return now, nil
}

func (t *transport) PacketCh() <-chan *memberlist.Packet { return t.packets }

func (t *transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	to := t.peer(addr)
	if to == nil || to.isDead() || t.isDead() {
		return nil, fmt.Errorf("%s refuses the connection", addr)
	}
	ours, theirs := net.Pipe()
	select {
	case to.streams <- theirs:
		return ours, nil
	case <-to.dead:
		return nil, fmt.Errorf("%s refuses the connection", addr)
	case <-time.After(timeout):
		return nil, fmt.Errorf("%s does not answer", addr)
	}
}

func (t *transport) StreamCh() <-chan net.Conn { return t.streams }

func (t *transport) Shutdown() error {
	t.unplug()
	return nil
}
