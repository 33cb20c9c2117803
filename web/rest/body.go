package rest

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"bulwark/storage"
	"bulwark/storage/table"
)

// maxRecords bounds the rows of one bulk insert.
const maxRecords = table.MaxWriteRows

// maxColumns bounds the names of one record: PostgreSQL's bound of a table's columns. Names cost more memory than their bytes.
const maxColumns = 1600

// readBody reads a request's body within the handler's limit.
func (h *Handler) readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	switch kind = strings.ToLower(strings.TrimSpace(kind)); kind {
	case "", "application/json", "application/vnd.pgrst.object+json", "application/vnd.pgrst.array+json":
	default:
		return nil, bodyFault("Content-Type not acceptable: " + shown(kind)).hint("Send the rows as application/json.")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, h.maxBody))
	var large *http.MaxBytesError
	if err != nil && !errors.As(err, &large) {
		return nil, &storage.Error{Fault: storage.BadInput, Code: codeBody, Cause: err,
			Message: "the body ended early or came too slowly: send it again"}
	}
	return body, err
}

// parseRecords reads one JSON object or an array of them. It checks the nesting before anything else, refuses duplicate
// names and bytes that are not UTF-8, and keeps each value as it was written. list says that the body was an array.
func parseRecords(body []byte, maxDepth int) (records []table.Record, list bool, err error) {
	if len(bytes.TrimSpace(body)) == 0 {
		return nil, false, bodyFault("Empty or invalid json")
	}
	if err := checkDepth(body, maxDepth); err != nil {
		return nil, false, err
	}
	d := jsontext.NewDecoder(bytes.NewReader(body))
	switch d.PeekKind() {
	case '{':
		record, err := parseRecord(d)
		if err != nil {
			return nil, false, err
		}
		records = []table.Record{record}
	case '[':
		list = true
		if records, err = parseList(d); err != nil {
			return nil, false, err
		}
	default:
		return nil, false, bodyFault("Empty or invalid json").details("want a JSON object, or an array of objects")
	}
	if _, err := d.ReadToken(); err != io.EOF {
		return nil, false, bodyFault("Empty or invalid json").details("there is more after the end of the JSON value")
	}
	return records, list, nil
}

func parseList(d *jsontext.Decoder) ([]table.Record, error) {
	if _, err := d.ReadToken(); err != nil {
		return nil, jsonFault(err)
	}
	records := []table.Record{}
	for d.PeekKind() != ']' {
		if d.PeekKind() != '{' {
			if _, err := d.ReadValue(); err != nil {
				return nil, jsonFault(err)
			}
			return nil, bodyFault("Empty or invalid json").details("each element of the array must be an object")
		}
		if len(records) == maxRecords {
			return nil, storage.Errorf(storage.TooLarge, table.CodeTooLarge, "a bulk insert takes at most %d rows: send them in parts", maxRecords)
		}
		record, err := parseRecord(d)
		if err != nil {
			return nil, err
		}
		records = append(records, record)
	}
	_, err := d.ReadToken()
	if err != nil {
		return nil, jsonFault(err)
	}
	return records, nil
}

func parseRecord(d *jsontext.Decoder) (table.Record, error) {
	if _, err := d.ReadToken(); err != nil {
		return nil, jsonFault(err)
	}
	record := table.Record{}
	for d.PeekKind() != '}' {
		name, err := d.ReadToken()
		if err != nil {
			return nil, jsonFault(err)
		}
		key := name.String()
		if len(record) == maxColumns {
			return nil, bodyFault("Empty or invalid json").details("an object has more than 1600 names, and no table so many columns")
		}
		v, err := d.ReadValue()
		if err != nil {
			return nil, jsonFault(err)
		}
		record[key] = bytes.Clone(v)
	}
	_, err := d.ReadToken()
	if err != nil {
		return nil, jsonFault(err)
	}
	return record, nil
}

// jsonFault says what is wrong without quoting the body.
func jsonFault(err error) error {
	what := "the JSON is not well-formed"
	var syntax *jsontext.SyntacticError
	switch {
	case errors.Is(err, jsontext.ErrDuplicateName):
		what = "an object has the same name twice"
	case errors.As(err, &syntax) && syntax.Err != nil && strings.Contains(syntax.Err.Error(), "UTF-8"):
		what = "the JSON is not valid UTF-8"
	}
	return bodyFault("Empty or invalid json").details(what)
}

// checkDepth refuses nesting before a decoder sees it. Brackets in strings do not count.
func checkDepth(body []byte, most int) error {
	depth, quoted := 0, false
	for i := 0; i < len(body); i++ {
		switch c := body[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			if depth++; depth > most {
				return bodyFault("Empty or invalid json").details("the JSON is nested too deeply")
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return nil
}

// sameKeys checks that every record of a bulk insert names the same columns, as PostgREST wants where no columns= says
// which, and returns them.
func sameKeys(records []table.Record) ([]string, error) {
	if len(records) == 0 {
		return []string{}, nil
	}
	names := make([]string, 0, len(records[0]))
	for name := range records[0] {
		names = append(names, name)
	}
	for _, record := range records[1:] {
		if len(record) != len(names) || slices.ContainsFunc(names, func(n string) bool { _, ok := record[n]; return !ok }) {
			return nil, bodyFault("All object keys must match")
		}
	}
	slices.Sort(names)
	return names, nil
}
