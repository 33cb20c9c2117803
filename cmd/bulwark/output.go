package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	jsonv2 "github.com/go-json-experiment/json"
)

// print writes a reply: as one line of JSON, or as human does.
func (a *app) print(reply any, human func() error) error {
	if !a.json {
		return human()
	}
	line, err := jsonv2.Marshal(reply, jsonv2.Deterministic(true))
	if err != nil {
		return fmt.Errorf("encoding the reply: %w", err)
	}
	_, err = fmt.Fprintf(a.stdout, "%s\n", line)
	return err
}

func (a *app) say(format string, args ...any) error {
	_, err := fmt.Fprintf(a.stdout, format+"\n", args...)
	return err
}

// table writes rows below their headers, aligned; or the sentence empty where there are none.
func (a *app) table(empty string, headers []string, rows [][]string) error {
	if len(rows) == 0 {
		return a.say("%s", empty)
	}
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, strings.Join(headers, "\t"))
	for _, row := range rows {
		for i := range row {
			row[i] = clean(row[i])
		}
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	return w.Flush()
}

// fields writes names and values, aligned; values that are empty are left out.
func (a *app) fields(pairs ...string) error {
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			fmt.Fprintf(w, "%s\t%s\n", pairs[i], clean(pairs[i+1]))
		}
	}
	return w.Flush()
}

// clean takes out of s what would steer a terminal: what is shown was typed by somebody.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '�'
		}
		return r
	}, s)
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.DateTime)
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// compact is JSON without spaces, for a cell of a table.
func compact(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return ""
	}
	return string(b)
}
