// Checks histories of a broker for linearizability, by Porcupine: ids are given in one order that agrees with real time, each once, and
// an id that was acknowledged is read as what was written to it, by everybody, from then on.
//
// Usage: checker FILE…, histories of the form in history.go. Prints a verdict as JSON.
// Exit code: 0 linearizable, 1 not, 2 a file that cannot be read.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"time"
)

type verdict struct {
	Operations int         `json:"operations"`
	Subjects   int         `json:"subjects"`
	IDs        int         `json:"ids"`
	Seconds    float64     `json:"seconds"`
	Violations []violation `json:"violations"`
}

const violationsMax = 50

func main() {
	began := time.Now()
	total := verdict{Violations: []violation{}}
	for _, path := range os.Args[1:] {
		if err := checkFile(path, &total); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", path, err)
			os.Exit(2)
		}
	}
	total.Seconds = time.Since(began).Seconds()
	isGood := len(total.Violations) == 0
	if len(total.Violations) > violationsMax {
		total.Violations = total.Violations[:violationsMax]
	}
	json.NewEncoder(os.Stdout).Encode(total)
	if !isGood {
		os.Exit(1)
	}
}

func checkFile(path string, total *verdict) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	h, err := readHistory(file)
	if err != nil {
		return err
	}
	for _, s := range h.subjects {
		checkOrder(h, s)
		checkIDs(h, s)
		total.IDs += len(s.accesses)
	}
	total.Operations += h.operations
	total.Subjects += len(h.subjects)
	total.Violations = append(total.Violations, h.violations...)
	return nil
}
