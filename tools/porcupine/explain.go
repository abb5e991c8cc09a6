package main

import (
	"fmt"
	"strings"
)

// explainID names the promise that an id breaks.
func explainID(accesses []access) string {
	writes, isMissing, isVoid := 0, false, false
	for _, one := range accesses {
		switch {
		case one.isWrite:
			writes++
		case one.key == absent:
			isMissing = true
		case one.key == void:
			isVoid = true
		}
	}
	switch {
	case writes > 1:
		return "doubled-id"
	case isVoid && writes == 1:
		return "lost"
	case isMissing:
		return "stale-read"
	}
	return "one-payload"
}

const describedMax = 8

func describe(accesses []access) string {
	words := []string{}
	for index, one := range accesses {
		if index == describedMax {
			words = append(words, "…")
			break
		}
		verb := "read as"
		if one.isWrite {
			verb = "written as"
		}
		words = append(words, fmt.Sprintf("%s %s [%d, %s]", verb, nameOf(one.key), one.start, endOf(one.end)))
	}
	return strings.Join(words, ", ")
}

func nameOf(key int64) string {
	switch key {
	case void:
		return "void"
	case absent:
		return "absent"
	}
	return fmt.Sprintf("message %d", key)
}

func endOf(end int64) string {
	if end == never {
		return "…"
	}
	return fmt.Sprint(end)
}
