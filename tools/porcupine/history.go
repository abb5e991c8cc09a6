package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math"
)

// void is the key of an id that was answered as void.
const void = -1

// never is the end of what has no known end.
const never = math.MaxInt64

// line is one operation as test/support/operations.ts writes it.
//
//	publish: messages with the keys Key, Key+1, … (Count of them); ok: their first id is ID
//	inc:     an id that is given without a message; ok: it is ID
//	fetch:   of ID; ok: it has the message Key (void: -1); absent: it is not there (yet)
//	scan:    of all ids from ID on; Keys has what each of them is
type line struct {
	Client  string  `json:"client"`
	Op      string  `json:"op"`
	Subject string  `json:"subject"`
	Outcome string  `json:"outcome"`
	Start   int64   `json:"start"`
	End     int64   `json:"end"`
	ID      int64   `json:"id"`
	Key     int64   `json:"key"`
	Count   int64   `json:"count"`
	Keys    []int64 `json:"keys"`
}

// span is a time from the call to the answer, in ns of one monotonic clock.
type span struct{ start, end int64 }

// giving is the part of an operation that concerns the order of ids: it was given the ids first to last.
type giving struct {
	span
	client      string
	first, last int64
}

// access is the part of an operation that concerns one id: its message was written, or read (key absent: nothing was found).
type access struct {
	span
	isWrite bool
	key     int64
}

const absent = -2

// subject is the history of one subject.
type subject struct {
	name     string
	givings  []giving
	accesses map[int64][]access
}

// publishOp waits until all reads are known: what has no answer may be found by one of them.
type publishOp struct {
	line
	subject *subject
}

type place struct {
	subject *subject
	id      int64
}

type history struct {
	operations int
	subjects   map[string]*subject
	publishes  []publishOp
	// Where each key was found by a read.
	found      map[int64]place
	violations []violation
}

type violation struct {
	Rule    string `json:"rule"`
	Subject string `json:"subject"`
	ID      int64  `json:"id"`
	Detail  string `json:"detail"`
}

func (h *history) report(rule string, s *subject, id int64, format string, args ...interface{}) {
	h.violations = append(h.violations, violation{rule, s.name, id, fmt.Sprintf(format, args...)})
}

func readHistory(source io.Reader) (*history, error) {
	h := &history{subjects: map[string]*subject{}, found: map[int64]place{}}
	decoder := json.NewDecoder(bufio.NewReaderSize(source, 1<<20))
	for {
		var one line
		if err := decoder.Decode(&one); err == io.EOF {
			break
		} else if err != nil {
			return nil, fmt.Errorf("operation %d: %w", h.operations+1, err)
		}
		h.operations++
		if err := h.take(one); err != nil {
			return nil, fmt.Errorf("operation %d: %w", h.operations, err)
		}
	}
	for _, publish := range h.publishes {
		h.resolve(publish)
	}
	h.publishes = nil
	return h, nil
}

func (h *history) take(one line) error {
	if one.End < one.Start {
		return fmt.Errorf("it ends before it starts")
	}
	s := h.subjects[one.Subject]
	if s == nil {
		s = &subject{name: one.Subject, accesses: map[int64][]access{}}
		h.subjects[one.Subject] = s
	}
	when := span{one.Start, one.End}
	switch {
	case one.Op == "publish":
		h.publishes = append(h.publishes, publishOp{one, s})
	case one.Op == "inc" && one.Outcome == "ok":
		s.givings = append(s.givings, giving{when, one.Client, one.ID, one.ID})
		s.access(one.ID, access{when, true, void})
	case one.Op == "fetch" && one.Outcome == "absent":
		s.access(one.ID, access{when, false, absent})
	case one.Op == "fetch" && one.Outcome == "ok":
		h.read(s, one.ID, when, one.Key)
	case one.Op == "scan" && one.Outcome == "ok":
		for index, key := range one.Keys {
			h.read(s, one.ID+int64(index), when, key)
		}
	case one.Op == "inc" || one.Op == "fetch" || one.Op == "scan":
		// Without an answer it says nothing.
	default:
		return fmt.Errorf("unknown operation %q", one.Op)
	}
	return nil
}

func (h *history) read(s *subject, id int64, when span, key int64) {
	s.access(id, access{when, false, key})
	if key < 0 {
		return
	}
	before, isKnown := h.found[key]
	if isKnown && (before.subject != s || before.id != id) {
		h.report("once", s, id, "message %d is also %s id %d", key, before.subject.name, before.id)
	}
	h.found[key] = place{s, id}
}

func (s *subject) access(id int64, one access) {
	s.accesses[id] = append(s.accesses[id], one)
}

// resolve turns a publish into what it did: with an answer as it says, without one as a read found it, for as long as it may take.
func (h *history) resolve(one publishOp) {
	if one.Outcome == "ok" {
		when := span{one.Start, one.End}
		one.subject.givings = append(one.subject.givings, giving{when, one.Client, one.ID, one.ID + one.Count - 1})
		for index := int64(0); index < one.Count; index++ {
			one.subject.access(one.ID+index, access{when, true, one.Key + index})
		}
		return
	}
	for key := one.Key; key < one.Key+one.Count; key++ {
		where, isFound := h.found[key]
		if !isFound {
			continue
		}
		if one.Outcome == "none" {
			h.report("never-none", where.subject, where.id, "message %d was answered as having no effect, and is there", key)
		}
		when := span{one.Start, never}
		where.subject.givings = append(where.subject.givings, giving{when, one.Client, where.id, where.id})
		where.subject.access(where.id, access{when, true, key})
	}
}
