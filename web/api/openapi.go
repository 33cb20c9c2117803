package api

import (
	"encoding"
	"net/http"
	"path"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"bulwark/storage"
)

// object is a JSON object under construction.
type object map[string]any

// A describer turns Go types into the schemas of an OpenAPI 3.1 description, which are those of JSON Schema 2020-12.
type describer struct {
	schemas object
	names   map[variant]string
}

// A variant is a type as it comes in (closed) or goes out.
type variant struct {
	t      reflect.Type
	closed bool
}

// description returns the OpenAPI description of the registered routes.
func (m *Mux) description() []byte {
	d := &describer{schemas: object{}, names: map[variant]string{}}
	paths := map[string]object{}
	for _, info := range m.Routes() {
		where := strings.ReplaceAll(info.Path, "...}", "}")
		if paths[where] == nil {
			paths[where] = object{}
		}
		paths[where][strings.ToLower(info.Method)] = d.operation(info)
	}
	version := m.cfg.Version
	if version == "" {
		version = "devel"
	}
	out := object{
		"openapi": "3.1.0",
		"info": object{"title": "Bulwark management API", "version": version,
			"description": "What an operator may do. Errors are problem details (RFC 9457)."},
		"paths":    paths,
		"security": []object{{"operator": []string{}}},
		"components": object{
			"schemas": d.schemas,
			"securitySchemes": object{"operator": object{"type": "http", "scheme": "bearer",
				"description": "An operator token. The node's own socket needs none."}},
			"responses": object{"problem": object{"description": "What is wrong, and what to do",
				"content": object{ProblemType: object{"schema": d.schema(reflect.TypeFor[Problem](), false)}}}},
		},
	}
	body, err := json.Marshal(out, json.Deterministic(true))
	if err != nil {
		panic("internal error: describing the API: " + err.Error())
	}
	return body
}

func (m *Mux) serveDescription(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	// The client may be gone; there is nobody else to tell.
	_, _ = w.Write(m.describe())
}

func (d *describer) operation(info RouteInfo) object {
	p := planOf(info.Request, info.Method, info.Path)
	op := object{"operationId": operationID(info), "summary": info.Summary}
	params := []object{}
	for _, name := range pathNames(info.Path) {
		// The scope's names may be in no field of the request: the actor has them.
		param := object{"name": name, "in": "path", "required": true, "schema": object{"type": "string"}}
		for _, f := range p.path {
			if f.name == name {
				param = d.param(f, "path")
			}
		}
		params = append(params, param)
	}
	for _, f := range p.query {
		params = append(params, d.param(f, "query"))
	}
	if len(params) > 0 {
		op["parameters"] = params
	}
	if p.body != nil {
		op["requestBody"] = object{"required": true,
			"content": object{"application/json": object{"schema": d.structure(p.body, true)}}}
	}
	success := object{"description": http.StatusText(info.Status)}
	switch {
	case info.Response != nil && info.ContentType != "":
		success["content"] = object{info.ContentType: object{"schema": d.schema(info.Response, false)}}
	case info.ContentType != "":
		success["content"] = object{info.ContentType: object{"schema": object{"type": "string"}}}
	}
	op["responses"] = object{strconv.Itoa(info.Status): success, "default": object{"$ref": "#/components/responses/problem"}}
	return op
}

// operationID is the method and the path's words: post_projects_ref_apikeys.
func operationID(info RouteInfo) string {
	words := strings.FieldsFunc(strings.TrimPrefix(info.Path, "/api/v1/"), func(r rune) bool {
		return strings.ContainsRune("/{}.-", r)
	})
	return strings.ToLower(info.Method) + "_" + strings.Join(words, "_")
}

func (d *describer) param(f param, in string) object {
	out := object{"name": f.name, "in": in, "required": in == "path", "schema": d.schema(f.field.Type, true)}
	if doc := f.field.Tag.Get("doc"); doc != "" {
		out["description"] = doc
	}
	return out
}

var (
	textMarshaler = reflect.TypeFor[encoding.TextMarshaler]()
	jsonMarshaler = reflect.TypeFor[json.Marshaler]()
	jsonWriter    = reflect.TypeFor[json.MarshalerTo]()
)

// schema describes t. A closed schema is that of what comes in: it takes no further names.
func (d *describer) schema(t reflect.Type, closed bool) object {
	switch t {
	case reflect.TypeFor[time.Time]():
		return object{"type": "string", "format": "date-time"}
	case reflect.TypeFor[storage.ID]():
		return object{"type": "string", "format": "uuid"}
	}
	switch {
	case t.Kind() == reflect.Pointer:
		return d.schema(t.Elem(), closed)
	case t.Implements(jsonMarshaler), t.Implements(jsonWriter):
		return object{} // it writes itself, so anything
	case t.Implements(textMarshaler):
		return object{"type": "string"}
	}
	switch t.Kind() {
	case reflect.String:
		return object{"type": "string"}
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return object{"type": "integer"}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return object{"type": "integer", "minimum": 0}
	case reflect.Float32, reflect.Float64:
		return object{"type": "number"}
	case reflect.Slice, reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 {
			return object{"type": "string", "contentEncoding": "base64"}
		}
		return object{"type": "array", "items": d.schema(t.Elem(), closed)}
	case reflect.Map:
		return object{"type": "object", "additionalProperties": d.schema(t.Elem(), closed)}
	case reflect.Struct:
		return d.named(t, closed)
	}
	return object{}
}

// named puts a struct's schema among the components once, and refers to it.
func (d *describer) named(t reflect.Type, closed bool) object {
	name, ok := d.names[variant{t, closed}]
	if !ok {
		name = t.Name()
		if name == "" {
			return d.structure(t, closed)
		}
		if d.names[variant{t, !closed}] != "" {
			name += "Input"
			if !closed {
				name = t.Name() + "Output"
			}
		}
		if _, taken := d.schemas[name]; taken {
			name = path.Base(t.PkgPath()) + "." + name
		}
		d.names[variant{t, closed}] = name
		d.schemas[name] = object{} // for a type that refers to itself
		d.schemas[name] = d.structure(t, closed)
	}
	return object{"$ref": "#/components/schemas/" + name}
}

func (d *describer) structure(t reflect.Type, closed bool) object {
	properties, required := object{}, []string{}
	d.properties(t, closed, properties, &required)
	out := object{"type": "object", "properties": properties}
	if len(required) > 0 {
		out["required"] = required
	}
	if closed {
		out["additionalProperties"] = false
	}
	return out
}

func (d *describer) properties(t reflect.Type, closed bool, properties object, required *[]string) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "" && f.Type.Kind() == reflect.Struct:
			d.properties(f.Type, closed, properties, required)
			continue
		case !f.IsExported() || name == "-":
			continue
		case name == "":
			name = f.Name
		}
		s := d.schema(f.Type, closed)
		if doc := f.Tag.Get("doc"); doc != "" {
			s["description"] = doc
		}
		properties[name] = s
		// What comes in may leave out any field: its zero value stands for it. What goes out always has it.
		if !closed && !strings.Contains(options, "omit") {
			*required = append(*required, name)
		}
	}
}
