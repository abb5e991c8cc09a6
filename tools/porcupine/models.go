package main

import (
	"sort"

	"github.com/anishathalye/porcupine"
)

// Linearizability is local: a history is linearizable exactly if that of each object is. A subject is taken as two kinds of objects, since
// a later id may be readable while an earlier one is on its way still: the order in which it gives ids, and each id as a register that is
// written once.

// orderModel is a subject as the giver of ids: its state is the highest id so far, and whoever is next is given higher ones. Those in
// between are void, or went to a publish that nobody has an answer of.
var orderModel = porcupine.Model{
	Init: func() interface{} { return int64(0) },
	Step: func(state, input, _ interface{}) (bool, interface{}) {
		one := input.(giving)
		return one.first > state.(int64), one.last
	},
}

// registerModel is one id. Its state is the key of its message, void, or absent at first.
var registerModel = porcupine.Model{
	Init: func() interface{} { return int64(absent) },
	Step: func(state, input, _ interface{}) (bool, interface{}) {
		before, one := state.(int64), input.(access)
		if one.isWrite {
			return before == absent, one.key
		}
		// That an id is void is decided by the broker, with nobody's call: at the latest when somebody reads it.
		if one.key == void && before == absent {
			return true, int64(void)
		}
		return one.key == before, before
	},
}

// chunkSize bounds what one search works on: its memory is the square of that.
const chunkSize = 400

// checkOrder goes through a subject in chunks of rising ids. Each chunk also has, of all chunks below it, the operation that began last:
// an operation of this chunk that had ended before any of those began had ended before that one began.
func checkOrder(h *history, s *subject) {
	givings := s.givings
	sort.SliceStable(givings, func(a, b int) bool { return givings[a].first < givings[b].first })
	var latest *giving
	for from := 0; from < len(givings); from += chunkSize {
		to := from + chunkSize
		if to > len(givings) {
			to = len(givings)
		}
		chunk := givings[from:to]
		operations := make([]porcupine.Operation, 0, len(chunk)+1)
		if latest != nil {
			operations = append(operations, orderOperation(*latest))
		}
		for _, one := range chunk {
			operations = append(operations, orderOperation(one))
		}
		if !porcupine.CheckOperations(orderModel, operations) {
			explainOrder(h, s, latest, chunk)
		}
		for index := range chunk {
			if latest == nil || chunk[index].start > latest.start {
				latest = &chunk[index]
			}
		}
	}
}

func orderOperation(one giving) porcupine.Operation {
	return porcupine.Operation{Input: one, Call: one.start, Return: one.end}
}

// explainOrder names a pair for which there is no order.
func explainOrder(h *history, s *subject, latest *giving, chunk []giving) {
	before := latest
	highest := int64(0)
	for index := range chunk {
		one := &chunk[index]
		if one.first <= highest || (latest != nil && index == 0 && one.first <= latest.last) {
			h.report("doubled-id", s, one.first, "given to %s, and to another before", one.client)
			return
		}
		if before != nil && one.end < before.start {
			h.report("order", s, one.first, "%s had it before id %d was asked for by %s", one.client, before.first, before.client)
			return
		}
		if before == nil || one.start > before.start {
			before = one
		}
		highest = one.last
	}
	h.report("order", s, chunk[0].first, "no order of ids %d to %d agrees with real time", chunk[0].first, highest)
}

// batchSize is how many ids are given to Porcupine at one time: it starts a goroutine for each.
const batchSize = 2_000

func checkIDs(h *history, s *subject) {
	ids := make([]int64, 0, len(s.accesses))
	for id := range s.accesses {
		ids = append(ids, id)
	}
	sort.Slice(ids, func(a, b int) bool { return ids[a] < ids[b] })
	for from := 0; from < len(ids); from += batchSize {
		to := from + batchSize
		if to > len(ids) {
			to = len(ids)
		}
		part := ids[from:to]
		model := registerModel
		model.Partition = func(_ []porcupine.Operation) [][]porcupine.Operation { return registers(s, part) }
		if porcupine.CheckOperations(model, nil) {
			continue
		}
		for _, id := range part {
			if !porcupine.CheckOperations(registerModel, registerOperations(s.accesses[id])) {
				h.report(explainID(s.accesses[id]), s, id, "%s", describe(s.accesses[id]))
			}
		}
	}
}

func registers(s *subject, ids []int64) [][]porcupine.Operation {
	list := make([][]porcupine.Operation, len(ids))
	for index, id := range ids {
		list[index] = registerOperations(s.accesses[id])
	}
	return list
}

func registerOperations(accesses []access) []porcupine.Operation {
	operations := make([]porcupine.Operation, len(accesses))
	for index, one := range accesses {
		operations[index] = porcupine.Operation{Input: one, Call: one.start, Return: one.end}
	}
	return operations
}
