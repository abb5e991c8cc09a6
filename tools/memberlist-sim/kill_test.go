package memberlistsim

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"math/rand"
	"sort"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"
)

var (
	nodes = flag.Int("nodes", 100, "members")
	kills = flag.Int("kills", 10, "clusters, in each of which one member is killed")
	loss  = flag.Int("loss", 0, "percent of the packets that are lost")
)

// The times of one kill, from the kill on, in ms.
type kill struct {
	First  float64 `json:"firstMs"`
	Median float64 `json:"medianMs"`
	Last   float64 `json:"lastMs"`
	// Members that were called failed and were not.
	False int `json:"false"`
}

type report struct {
	Nodes int    `json:"nodes"`
	Loss  int    `json:"lossPercent"`
	Kills []kill `json:"kills"`
}

const (
	settle = 45 * time.Second
	// After this a failure counts as not seen.
	patience = 5 * time.Minute
)

// watcher notes when one member hears that another is called failed.
type watcher struct {
	name  string
	notes *notes
}

type notes struct {
	mu     sync.Mutex
	victim string
	at     time.Time
	seen   map[string]time.Duration
	false  int
}

func (w *watcher) NotifyJoin(*memberlist.Node)   {}
func (w *watcher) NotifyUpdate(*memberlist.Node) {}
func (w *watcher) NotifyLeave(node *memberlist.Node) {
	w.notes.mu.Lock()
	defer w.notes.mu.Unlock()
	if node.Name != w.notes.victim {
		w.notes.false++
		return
	}
	if _, ok := w.notes.seen[w.name]; !ok {
		w.notes.seen[w.name] = time.Since(w.notes.at)
	}
}

// TestKill prints a report in one line of JSON.
func TestKill(t *testing.T) {
	r := report{Nodes: *nodes, Loss: *loss, Kills: []kill{}}
	for i := 0; i < *kills; i++ {
		synctest.Test(t, func(t *testing.T) { r.Kills = append(r.Kills, killOne(t)) })
	}
	line, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("%s\n", line)
}

func killOne(t *testing.T) kill {
	w := &wire{byAddr: map[string]*transport{}, lossPercent: *loss}
	n := &notes{seen: map[string]time.Duration{}}
	members := make([]*memberlist.Memberlist, *nodes)
	transports := make([]*transport, *nodes)
	for i := range members {
		config := memberlist.DefaultLANConfig()
		transports[i] = w.plug(i)
		config.Name = fmt.Sprintf("n%d", i)
		config.Transport = transports[i]
		config.Logger = log.New(io.Discard, "", 0)
		config.Events = &watcher{name: config.Name, notes: n}
		m, err := memberlist.Create(config)
		if err != nil {
			t.Fatal(err)
		}
		members[i] = m
		if i > 0 {
			if _, err := m.Join([]string{transports[0].addr.String()}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Duration(rand.Int63n(int64(100 * time.Millisecond))))
	}
	time.Sleep(settle)
	// Gossip reaches everybody only most likely; whom it missed learns of the others by the next push/pull.
	for !allKnown(members) {
		time.Sleep(time.Second)
	}
	victim := rand.Intn(*nodes)
	n.mu.Lock()
	n.victim, n.at, n.false = fmt.Sprintf("n%d", victim), time.Now(), 0
	n.mu.Unlock()
	transports[victim].unplug()
	members[victim].Shutdown()
	for waited := time.Duration(0); waited < patience && n.count() < *nodes-1; waited += time.Second {
		time.Sleep(time.Second)
	}
	result := n.kill(t)
	for _, m := range members {
		m.Shutdown()
	}
	// The longest that anything of it waits.
	time.Sleep(patience)
	return result
}

func allKnown(members []*memberlist.Memberlist) bool {
	for _, m := range members {
		if m.NumMembers() != len(members) {
			return false
		}
	}
	return true
}

func (n *notes) count() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.seen)
}

func (n *notes) kill(t *testing.T) kill {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.seen) != *nodes-1 {
		t.Fatalf("%d of %d saw it", len(n.seen), *nodes-1)
	}
	times := make([]float64, 0, len(n.seen))
	for _, after := range n.seen {
		times = append(times, float64(after.Microseconds())/1000)
	}
	sort.Float64s(times)
	return kill{First: times[0], Median: times[len(times)/2], Last: times[len(times)-1], False: n.false}
}
