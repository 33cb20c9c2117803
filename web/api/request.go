package api

import (
	"bytes"
	"context"
	"encoding"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"bulwark/storage"
)

// Defaults of a Mux's limits.
const (
	DefaultMaxBody  = 1 << 20 // bytes of a JSON body
	DefaultMaxDepth = 100     // levels of nested arrays and objects
)

// A param is a field of a request that is filled from the path or the query.
type param struct {
	name  string
	index []int
	field reflect.StructField
}

// A plan says where each field of a request type comes from. The body's fields are also a struct type of their own, so
// that a body cannot set what belongs to the path.
type plan struct {
	path, query []param
	body        reflect.Type // nil where there is none
	bodyIndex   [][]int      // of body's fields in the request
}

var textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()

// planOf reads the tags of t. It panics where they contradict the route: that is a mistake in the program, and any start
// of it shows it.
func planOf(t reflect.Type, method, path string) *plan {
	p := &plan{}
	if t.Kind() != reflect.Struct {
		panic(fmt.Sprintf("api: the request of %s %s is %s, not a struct", method, path, t))
	}
	var fields []reflect.StructField
	p.collect(t, nil, &fields, method+" "+path)
	inPath := pathNames(path)
	for _, f := range p.path {
		if !slices.Contains(inPath, f.name) {
			panic(fmt.Sprintf("api: %s %s has no {%s} for the field %s", method, path, f.name, f.field.Name))
		}
	}
	if len(fields) > 0 {
		if method == http.MethodGet || method == http.MethodHead || method == http.MethodDelete {
			panic(fmt.Sprintf("api: %s %s cannot have a body, so %s needs a path or query tag", method, path, fields[0].Name))
		}
		p.body = reflect.StructOf(fields)
	}
	return p
}

func (p *plan) collect(t reflect.Type, prefix []int, fields *[]reflect.StructField, where string) {
	for i := range t.NumField() {
		f := t.Field(i)
		index := append(slices.Clone(prefix), i)
		pathName, isPath := f.Tag.Lookup("path")
		queryName, isQuery := f.Tag.Lookup("query")
		_, isJSON := f.Tag.Lookup("json")
		switch {
		case f.Anonymous && f.Type.Kind() == reflect.Struct && !isPath && !isQuery && !isJSON:
			p.collect(f.Type, index, fields, where)
		case isPath:
			checkScalar(f.Type, where, f.Name)
			p.path = append(p.path, param{pathName, index, f})
		case isQuery:
			elem := f.Type
			if elem.Kind() == reflect.Slice {
				elem = elem.Elem()
			}
			checkScalar(elem, where, f.Name)
			p.query = append(p.query, param{queryName, index, f})
		case isJSON:
			*fields = append(*fields, reflect.StructField{Name: f.Name, Type: f.Type, Tag: f.Tag})
			p.bodyIndex = append(p.bodyIndex, index)
		default:
			panic(fmt.Sprintf("api: the field %s of %s needs a path, query or json tag", f.Name, where))
		}
	}
}

func checkScalar(t reflect.Type, where, field string) {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if reflect.PointerTo(t).Implements(textUnmarshaler) {
		return
	}
	switch t.Kind() {
	case reflect.String, reflect.Bool, reflect.Int, reflect.Int32, reflect.Int64, reflect.Uint, reflect.Uint32, reflect.Uint64:
		return
	}
	panic(fmt.Sprintf("api: the field %s of %s has type %s, which a path or query cannot fill", field, where, t))
}

// pathNames returns the names of a pattern's wildcards.
func pathNames(path string) []string {
	var names []string
	for part := range strings.SplitSeq(path, "/") {
		if len(part) > 2 && part[0] == '{' && part[len(part)-1] == '}' {
			names = append(names, strings.TrimSuffix(part[1:len(part)-1], "..."))
		}
	}
	return names
}

// limits bound a body before it is decoded.
type limits struct {
	body  int64
	depth int
}

// decode fills dst, a pointer to the request, from r.
func (p *plan) decode(r *http.Request, dst reflect.Value, lim limits) error {
	dst = dst.Elem()
	for _, f := range p.path {
		if err := setText(dst.FieldByIndex(f.index), r.PathValue(f.name)); err != nil {
			return badInput("bad_path", f.name, "%s in the path %s", f.name, err)
		}
	}
	if err := p.decodeQuery(r.URL.RawQuery, dst); err != nil {
		return err
	}
	return p.decodeBody(r, dst, lim)
}

func (p *plan) decodeQuery(raw string, dst reflect.Value) error {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return badInput("bad_query", "", "the query is not well-formed: percent-encode its names and values")
	}
	for name, vs := range values {
		i := slices.IndexFunc(p.query, func(f param) bool { return f.name == name })
		if i < 0 {
			return badInput("unknown_parameter", printable(name), "unknown query parameter %q%s", printable(name), p.knownQuery())
		}
		v := dst.FieldByIndex(p.query[i].index)
		if v.Kind() == reflect.Slice {
			v.Set(reflect.MakeSlice(v.Type(), len(vs), len(vs)))
			for j, s := range vs {
				if err := setText(v.Index(j), s); err != nil {
					return badInput("bad_parameter", name, "the query parameter %s %s", name, err)
				}
			}
			continue
		}
		if len(vs) > 1 {
			return badInput("duplicate_parameter", name, "the query parameter %s is given more than once", name)
		}
		if err := setText(v, vs[0]); err != nil {
			return badInput("bad_parameter", name, "the query parameter %s %s", name, err)
		}
	}
	return nil
}

func (p *plan) knownQuery() string {
	if len(p.query) == 0 {
		return ": this endpoint takes none"
	}
	names := make([]string, len(p.query))
	for i, f := range p.query {
		names[i] = f.name
	}
	return ": this endpoint takes " + strings.Join(names, ", ")
}

func (p *plan) decodeBody(r *http.Request, dst reflect.Value, lim limits) error {
	body, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, lim.body))
	if err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			return err
		}
		return &storage.Error{Fault: storage.BadInput, Code: "body_unreadable",
			Message: "the body ended early or came too slowly: send it again", Cause: err}
	}
	if p.body == nil {
		if len(bytes.TrimSpace(body)) > 0 && !bytes.Equal(bytes.TrimSpace(body), []byte("{}")) {
			return badInput("unexpected_body", "", "this endpoint takes no body")
		}
		return nil
	}
	kind, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if cs := params["charset"]; err != nil || kind != "application/json" || cs != "" && !strings.EqualFold(cs, "utf-8") {
		return badInput("content_type", "", "the body must be JSON: send it with Content-Type: application/json")
	}
	if len(bytes.TrimSpace(body)) == 0 {
		return badInput("empty_body", "", "the body is empty: send a JSON object")
	}
	v := reflect.New(p.body)
	if err := DecodeJSON(body, v.Interface(), lim.depth); err != nil {
		return err
	}
	for i, index := range p.bodyIndex {
		dst.FieldByIndex(index).Set(v.Elem().Field(i))
	}
	return nil
}

// DecodeJSON reads one JSON value into dst, strictly: nesting above depth is refused before anything is decoded, and so
// are unknown names, duplicate names, invalid UTF-8 and trailing bytes. Its errors are BadInput and quote no values.
func DecodeJSON(body []byte, dst any, depth int) error {
	if tooDeep(body, depth) {
		return badInput("nesting", "", "the JSON is nested deeper than %d levels: send it flatter", depth)
	}
	err := json.Unmarshal(body, dst, json.RejectUnknownMembers(true))
	if err == nil {
		return nil
	}
	var syn *jsontext.SyntacticError
	var sem *json.SemanticError
	switch {
	case errors.As(err, &syn):
		field := pointer(syn.JSONPointer)
		switch {
		case errors.Is(err, jsontext.ErrDuplicateName):
			return badInput("duplicate_name", field, "the JSON has the name %q twice in one object", field)
		case !utf8.Valid(body):
			return badInput("bad_utf8", field, "the JSON is not valid UTF-8 (near byte %d)", syn.ByteOffset)
		}
		return badInput("bad_json", field, "the body is not well-formed JSON (near byte %d)", syn.ByteOffset)
	case errors.As(err, &sem):
		field := pointer(sem.JSONPointer)
		switch {
		case errors.Is(err, json.ErrUnknownName):
			return badInput("unknown_field", field, "unknown field %q: check its spelling against the API's description", field)
		case field == "":
			return badInput("bad_value", "", "the body is a JSON %s, not what this endpoint takes: send an object", sem.JSONKind)
		}
		return badInput("bad_value", field, "the field %q does not take this JSON %s", field, sem.JSONKind)
	}
	return badInput("bad_json", "", "the body is not JSON that this endpoint takes")
}

// tooDeep reports whether arrays and objects nest deeper than limit. It looks at brackets outside strings only, so it
// works on text that is not well-formed too.
func tooDeep(b []byte, limit int) bool {
	depth, inString := 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '[' || c == '{':
			if depth++; depth > limit {
				return true
			}
		case c == ']' || c == '}':
			depth--
		}
	}
	return false
}

// pointer writes a JSON pointer as a person would: "a.b.0".
func pointer(p jsontext.Pointer) string {
	return printable(strings.Join(slices.Collect(p.Tokens()), "."))
}

// printable cuts a name that came from outside to what can stand in a message.
func printable(s string) string {
	const most = 80
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == utf8.RuneError {
			return '?'
		}
		return r
	}, s)
	if len(s) > most {
		cut := most
		for !utf8.RuneStart(s[cut]) {
			cut--
		}
		s = s[:cut] + "…"
	}
	return s
}

// setText fills v from text. Its errors continue a sentence about the field and do not quote the text.
func setText(v reflect.Value, text string) error {
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	if !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
		return errors.New("is not valid text")
	}
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		if err := u.UnmarshalText([]byte(text)); err != nil {
			if _, isID := v.Interface().(storage.ID); isID {
				return errors.New("is not a UUID")
			}
			return errors.New("has the wrong form")
		}
		return nil
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return errors.New("must be true or false")
		}
		v.SetBool(b)
	case reflect.Int, reflect.Int32, reflect.Int64:
		n, err := strconv.ParseInt(text, 10, v.Type().Bits())
		if err != nil {
			return errors.New("must be a whole number")
		}
		v.SetInt(n)
	default:
		n, err := strconv.ParseUint(text, 10, v.Type().Bits())
		if err != nil {
			return errors.New("must be a whole number, not negative")
		}
		v.SetUint(n)
	}
	return nil
}

func text(v reflect.Value) (string, error) {
	if m, ok := v.Interface().(encoding.TextMarshaler); ok {
		b, err := m.MarshalText()
		return string(b), err
	}
	return fmt.Sprint(v.Interface()), nil
}

// NewRequest makes the HTTP request that calls rt on the server at base ("https://host:port", no slash at the end).
func NewRequest[Req, Resp any](ctx context.Context, base string, rt Route[Req, Resp], req Req) (*http.Request, error) {
	p := planOf(reflect.TypeFor[Req](), rt.Method, rt.Path)
	v := reflect.ValueOf(req)
	path := rt.Path
	for _, f := range p.path {
		s, err := text(v.FieldByIndex(f.index))
		if err != nil {
			return nil, fmt.Errorf("encoding %s: %w", f.name, err)
		}
		// The server refuses "." and ".." and encoded slashes in a path, so say it here, where it can be said well.
		if s == "" || s == "." || s == ".." || strings.ContainsAny(s, "/\\%\x00") {
			return nil, badInput("bad_path", f.name, "%s is not a name that Bulwark uses", f.name)
		}
		path = strings.ReplaceAll(path, "{"+f.name+"}", url.PathEscape(s))
	}
	query := url.Values{}
	for _, f := range p.query {
		fv := v.FieldByIndex(f.index)
		if fv.IsZero() {
			continue
		}
		if fv.Kind() != reflect.Slice {
			fv = reflect.Append(reflect.MakeSlice(reflect.SliceOf(fv.Type()), 0, 1), fv)
		}
		for i := range fv.Len() {
			item := fv.Index(i)
			if item.Kind() == reflect.Pointer {
				item = item.Elem()
			}
			s, err := text(item)
			if err != nil {
				return nil, fmt.Errorf("encoding %s: %w", f.name, err)
			}
			query.Add(f.name, s)
		}
	}
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	var body io.Reader
	if p.body != nil {
		b := reflect.New(p.body).Elem()
		for i, index := range p.bodyIndex {
			b.Field(i).Set(v.FieldByIndex(index))
		}
		j, err := json.Marshal(b.Interface())
		if err != nil {
			return nil, fmt.Errorf("encoding the request: %w", err)
		}
		body = bytes.NewReader(j)
	}
	r, err := http.NewRequestWithContext(ctx, rt.Method, base+path, body)
	if err != nil {
		return nil, fmt.Errorf("making the request: %w", err)
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	return r, nil
}
