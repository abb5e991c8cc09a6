// A node of hashicorp/memberlist without Serf, for tests of our wire format: what the Serf agent has no flags for (labels, version 0 of the encryption,
// compression on or off) and what it does not tell (the bytes that it was given). Prints a line of JSON for each thing that it learns.
package main

import (
	"encoding/hex"
	"encoding/json"
	"flag"
	"io"
	"log"
	"os"
	"strings"
	"sync"

	"github.com/hashicorp/memberlist"
)

type line struct {
	Event string `json:"event"`
	Node  string `json:"node,omitempty"`
	Addr  string `json:"addr,omitempty"`
	Port  uint16 `json:"port,omitempty"`
	Hex   string `json:"hex,omitempty"`
	Join  bool   `json:"join,omitempty"`
	Error string `json:"error,omitempty"`
}

var out = struct {
	sync.Mutex
	*json.Encoder
}{Encoder: json.NewEncoder(os.Stdout)}

func say(l line) {
	out.Lock()
	defer out.Unlock()
	if err := out.Encode(l); err != nil {
		os.Exit(1)
	}
}

// node is all the delegates that memberlist has, and only tells what it is told.
type node struct{ name string }

func (n node) NodeMeta(int) []byte             { return []byte("meta of " + n.name) }
func (n node) NotifyMsg(bytes []byte)          { say(line{Event: "user", Hex: hex.EncodeToString(bytes)}) }
func (n node) GetBroadcasts(int, int) [][]byte { return nil }
func (n node) LocalState(bool) []byte          { return []byte("state of " + n.name) }
func (n node) MergeRemoteState(b []byte, j bool) {
	say(line{Event: "state", Hex: hex.EncodeToString(b), Join: j})
}
func (n node) NotifyJoin(m *memberlist.Node)        { say(member("join", m)) }
func (n node) NotifyLeave(m *memberlist.Node)       { say(member("leave", m)) }
func (n node) NotifyUpdate(m *memberlist.Node)      { say(member("update", m)) }
func (n node) NotifyConflict(_, m *memberlist.Node) { say(member("conflict", m)) }

func member(event string, m *memberlist.Node) line {
	return line{Event: event, Node: m.Name, Addr: m.Addr.String(), Port: m.Port, Hex: hex.EncodeToString(m.Meta)}
}

func main() {
	config := memberlist.DefaultLocalConfig()
	flag.StringVar(&config.Name, "name", "node", "its name")
	flag.StringVar(&config.BindAddr, "bind", "127.0.0.1", "address to bind to")
	flag.IntVar(&config.BindPort, "port", 7946, "port to bind to")
	flag.IntVar(&config.AdvertisePort, "advertise-port", 0, "port that others are told")
	flag.StringVar(&config.Label, "label", "", "label of the cluster")
	flag.BoolVar(&config.EnableCompression, "compress", false, "compress what it sends")
	key := flag.String("key", "", "key of the cluster, in hexadecimal")
	protocol := flag.Uint("protocol", 2, "version of the protocol that it speaks")
	join := flag.String("join", "", "address and port of a node to join")
	messages := flag.String("messages", "", "texts, with commas between, sent as user messages over UDP and TCP to all that it joins")
	verbose := flag.Bool("verbose", false, "its log, to standard error")
	flag.Parse()
	self := node{config.Name}
	config.ProtocolVersion = uint8(*protocol)
	config.AdvertiseAddr = config.BindAddr
	if config.AdvertisePort == 0 {
		config.AdvertisePort = config.BindPort
	}
	config.Delegate, config.Events, config.Conflict = self, self, self
	if !*verbose {
		config.LogOutput = io.Discard
	}
	var err error
	if config.SecretKey, err = hex.DecodeString(*key); err != nil {
		log.Fatal(err)
	}
	list, err := memberlist.Create(config)
	if err != nil {
		log.Fatal(err)
	}
	say(line{Event: "ready"})
	if *join != "" {
		if _, err := list.Join([]string{*join}); err != nil {
			say(line{Event: "failed", Error: err.Error()})
		}
		for _, m := range list.Members() {
			for _, text := range strings.Split(*messages, ",") {
				if m.Name != config.Name && text != "" {
					_ = list.SendBestEffort(m, []byte(text))
					_ = list.SendReliable(m, []byte(text))
				}
			}
		}
	}
	// Ends with the standard input, and so with its parent.
	_, _ = io.Copy(io.Discard, os.Stdin)
}
