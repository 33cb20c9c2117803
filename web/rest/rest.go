// Package rest is the rows surface: PostgREST's grammar over storage/table, as supabase-js speaks it.
//
// Promise: every request is one transaction of one actor, under the row policies of package table and with the intent
// rows.select, rows.insert, rows.update or rows.delete; there is no other way in here. What is not supported is refused
// in PostgREST's own error shape before anything is read or written, and what a request may cost (body, nesting, rows,
// terms) is bounded.
package rest

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"bulwark/storage"
	"bulwark/storage/table"
	"bulwark/web/api"
)

// Config is what the surface needs. Store, Callers and Tables must be there.
type Config struct {
	Store    storage.Store
	Callers  api.Callers
	Tables   *table.Catalog
	Logger   *slog.Logger // nil: nothing is logged
	MaxBody  int64        // bytes of a request's body; 0 is 8 MiB
	MaxDepth int          // levels of nested arrays and objects; 0 is 100
}

// A Handler answers /rest/v1/…, below whatever prefix the project has.
type Handler struct {
	store    storage.Store
	callers  api.Callers
	tables   *table.Catalog
	log      *slog.Logger
	maxBody  int64
	maxDepth int
}

// New returns the surface's handler. It fails without a store, callers or tables.
func New(c Config) (*Handler, error) {
	if c.Store == nil || c.Callers == nil || c.Tables == nil {
		return nil, errors.New("opening the rows surface: it needs a store, callers and tables")
	}
	h := &Handler{store: c.Store, callers: c.Callers, tables: c.Tables, log: c.Logger, maxBody: c.MaxBody, maxDepth: c.MaxDepth}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	if h.maxBody == 0 {
		h.maxBody = 8 << 20
	}
	if h.maxDepth == 0 {
		h.maxDepth = 100
	}
	return h, nil
}

// prefix ends what comes before the surface's own paths.
const prefix = "/rest/v1"

const (
	jsonType   = "application/json; charset=utf-8"
	objectType = "application/vnd.pgrst.object+json; charset=utf-8"
	arrayType  = "application/vnd.pgrst.array+json; charset=utf-8"
)

// maxName is PostgreSQL's bound of a name in bytes.
const maxName = 63

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	by, err := h.callers.Caller(r)
	if err == nil {
		err = h.serve(w, r, by)
	}
	if err != nil {
		h.refuse(w, r, by, err)
	}
}

func (h *Handler) serve(w http.ResponseWriter, r *http.Request, by storage.Actor) error {
	_, path, _ := strings.Cut(r.URL.Path, prefix)
	name := strings.Trim(path, "/")
	switch {
	case name == "":
		return newFault(http.StatusNotFound, codeRoot, "Root endpoint metadata is disabled")
	case strings.HasPrefix(name, "rpc/"):
		return newFault(http.StatusNotFound, codeFunction, "Could not find the function public."+shown(name[4:])+" in the schema cache")
	case strings.Contains(name, "/"):
		return newFault(http.StatusNotFound, codePath, "Invalid path specified in request URL")
	case len(name) > maxName:
		return newFault(http.StatusNotFound, table.CodeNoTable, "Could not find the table 'public."+shown(name)+"' in the schema cache")
	}
	q, err := parseRequest(r, name)
	if err != nil {
		return err
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		return h.read(w, r, by, q)
	case http.MethodPost:
		return h.insert(w, r, by, q)
	case http.MethodPatch:
		return h.update(w, r, by, q)
	}
	return h.remove(w, r, by, q)
}

// A request is what the URL and the headers say.
type request struct {
	table   string
	profile string
	prefer  *preferences
	media   string // of the answer
	where   *table.Expr
	order   []table.Order
	output  []table.Output
	columns []string
	offset  int
	limit   *int
}

// single reports whether the client wants one object instead of an array.
func (q *request) single() bool { return q.media == objectType }

func parseRequest(r *http.Request, name string) (*request, error) {
	q := &request{table: name}
	header := "Content-Profile"
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		header = "Accept-Profile"
	case http.MethodPost, http.MethodPatch, http.MethodDelete:
	default:
		return nil, newFault(http.StatusMethodNotAllowed, codeMethod, "Unsupported HTTP method: "+shown(r.Method))
	}
	if q.profile = r.Header.Get(header); q.profile != "" && q.profile != "public" {
		return nil, newFault(http.StatusNotAcceptable, codeProfile, "Invalid schema: "+shown(q.profile)).
			hint("Only the following schemas are exposed: public")
	}
	var err error
	if q.prefer, err = parsePreferences(r.Header); err != nil {
		return nil, err
	}
	if q.media, err = acceptable(r.Header); err != nil {
		return nil, err
	}
	if err := q.parseQuery(r.URL.RawQuery); err != nil {
		return nil, err
	}
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return q, q.parseRange(r.Header)
	}
	return q, nil
}

// acceptable chooses the answer's media type.
func acceptable(header http.Header) (string, error) {
	accept := strings.Join(header.Values("Accept"), ",")
	if strings.TrimSpace(accept) == "" {
		return jsonType, nil
	}
	for part := range strings.SplitSeq(accept, ",") {
		kind, params, _ := strings.Cut(part, ";")
		if strings.Contains(params, "nulls=stripped") || strings.ReplaceAll(params, " ", "") == "q=0" {
			continue
		}
		switch strings.ToLower(strings.TrimSpace(kind)) {
		case "*/*", "application/*", "application/json":
			return jsonType, nil
		case "application/vnd.pgrst.object+json", "application/vnd.pgrst.object":
			return objectType, nil
		case "application/vnd.pgrst.array+json", "application/vnd.pgrst.array":
			return arrayType, nil
		}
	}
	return "", newFault(http.StatusNotAcceptable, codeMedia, "None of these media types are available: "+shown(accept))
}

func (q *request) parseQuery(raw string) error {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return parseFault("query parameters", raw, "the query is not well-formed: percent-encode names and values")
	}
	where := &table.Expr{Op: table.OpAnd}
	for name, texts := range values {
		for _, text := range texts {
			e, err := q.parameter(name, text)
			if err != nil {
				return err
			}
			if e != nil {
				where.Args = append(where.Args, e)
			}
		}
	}
	if len(where.Args) > 0 {
		q.where = where
	}
	return nil
}

// parameter reads one parameter. It returns a condition where the parameter is a filter.
func (q *request) parameter(name, text string) (_ *table.Expr, err error) {
	switch name {
	case "select":
		q.output, err = parseSelect(text, q.table)
		return nil, err
	case "order":
		if text != "" {
			q.order, err = parseOrder(text)
		}
		return nil, err
	case "columns":
		q.columns, err = parseColumns(text)
		return nil, err
	case "limit":
		n, err := strconv.Atoi(text)
		if err != nil {
			return nil, parseFault("limit parameter", text, "expecting a whole number")
		}
		if n < 0 {
			return nil, rangeFault("Limit should be greater than or equal to zero.")
		}
		q.limit = &n
		return nil, nil
	case "offset":
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			return nil, parseFault("offset parameter", text, "expecting a whole number that is not negative")
		}
		q.offset = n
		return nil, nil
	case "on_conflict":
		return nil, newFault(http.StatusBadRequest, codeUnsupported, "upsert is not supported").
			hint("Insert without on_conflict, or update the rows by their key.")
	case "apikey": // the caller's key, as some clients send it
		return nil, nil
	case "and", "or", "not.and", "not.or":
		return parseTree(name, text)
	}
	for _, suffix := range [...]string{".order", ".limit", ".offset", ".and", ".or", ".not.and", ".not.or"} {
		if embed, ok := strings.CutSuffix(name, suffix); ok && !strings.HasPrefix(name, `"`) {
			return nil, notEmbedded(strings.TrimSuffix(embed, ".not"))
		}
	}
	return parseFilter(name, text)
}

func rangeFault(details string) error {
	return newFault(http.StatusRequestedRangeNotSatisfiable, codeRange, "Requested range not satisfiable").details(details)
}

// parseRange narrows offset and limit to the Range header, which counts rows: "0-9" or "10-".
func (q *request) parseRange(header http.Header) error {
	text := header.Get("Range")
	if text == "" {
		return nil
	}
	first, last, ok := strings.Cut(strings.TrimPrefix(text, "items="), "-")
	from, err := strconv.Atoi(first)
	if !ok || err != nil || from < 0 {
		return nil // a range of another unit is ignored, as RFC 9110 (14.2) says
	}
	end := -1
	if last != "" {
		if end, err = strconv.Atoi(last); err != nil {
			return nil
		}
		if end < from {
			return rangeFault("The lower boundary must be lower than or equal to the upper boundary in the Range header.")
		}
	}
	start := max(q.offset, from)
	if end >= 0 {
		n := min(end, math.MaxInt-1) - start + 1
		if q.limit != nil {
			n = min(n, *q.limit-(start-q.offset))
		}
		n = max(n, 0)
		q.limit = &n
	} else if q.limit != nil {
		n := max(*q.limit-(start-q.offset), 0)
		q.limit = &n
	}
	q.offset = start
	return nil
}

// read answers GET and HEAD.
func (h *Handler) read(w http.ResponseWriter, r *http.Request, by storage.Actor, q *request) error {
	var res *table.Result
	intent := storage.Intent{Action: "rows.select", Object: q.table}
	err := h.store.View(r.Context(), by, intent, func(s storage.Reader) (err error) {
		res, err = h.tables.Select(r.Context(), s, q.table, table.Query{
			Where: q.where, Order: q.order, Limit: q.limit, Offset: q.offset, Columns: q.output, Count: q.prefer.count,
		})
		return err
	})
	if err != nil {
		return err
	}
	if q.single() && len(res.Rows) != 1 {
		return singular(len(res.Rows))
	}
	status := http.StatusOK
	if res.Matched >= 0 {
		if int64(q.offset) > res.Matched {
			w.Header().Set("Content-Range", "*/"+strconv.FormatInt(res.Matched, 10))
			return rangeFault("An offset of " + strconv.Itoa(q.offset) + " was requested, but there are only " + strconv.FormatInt(res.Matched, 10) + " rows.")
		}
		if int64(len(res.Rows)) < res.Matched {
			status = http.StatusPartialContent
		}
	}
	w.Header().Set("Content-Range", contentRange(q.offset, len(res.Rows), res.Matched))
	q.answer(w, r, status, res.Rows)
	return nil
}

func singular(n int) error {
	return newFault(http.StatusNotAcceptable, codeSingular, "Cannot coerce the result to a single JSON object").
		details("The result contains " + strconv.Itoa(n) + " rows")
}

// contentRange is the rows' range and, where it is known, their total.
func contentRange(offset, n int, total int64) string {
	of := "*"
	if total >= 0 {
		of = strconv.FormatInt(total, 10)
	}
	if n == 0 {
		return "*/" + of
	}
	return strconv.Itoa(offset) + "-" + strconv.Itoa(offset+n-1) + "/" + of
}

// answer writes rows as an array, or the one row as an object.
func (q *request) answer(w http.ResponseWriter, r *http.Request, status int, rows [][]byte) {
	size := 2
	for _, row := range rows {
		size += len(row) + 1
	}
	body := make([]byte, 0, size)
	if q.single() {
		body = append(body, rows[0]...)
	} else {
		body = append(body, '[')
		for i, row := range rows {
			if i > 0 {
				body = append(body, ',')
			}
			body = append(body, row...)
		}
		body = append(body, ']')
	}
	head := q.head(w)
	head.Set("Content-Type", q.media)
	head.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // the client may be gone; there is nobody else to tell
	}
}

// head sets what every successful answer has.
func (q *request) head(w http.ResponseWriter) http.Header {
	head := w.Header()
	if len(q.prefer.applied) > 0 {
		head.Set("Preference-Applied", strings.Join(q.prefer.applied, ", "))
	}
	if q.profile != "" {
		head.Set("Content-Profile", q.profile)
	}
	return head
}

// insert answers POST.
func (h *Handler) insert(w http.ResponseWriter, r *http.Request, by storage.Actor, q *request) error {
	body, err := h.readBody(w, r)
	if err != nil {
		return err
	}
	records, list, err := parseRecords(body, h.maxDepth)
	if err != nil {
		return err
	}
	in := table.Insertion{Columns: q.columns, Records: records, MissingDefault: q.prefer.missingDefault, Return: q.returning()}
	if in.Columns == nil && list {
		if in.Columns, err = sameKeys(records); err != nil {
			return err
		}
	}
	res, err := h.write(r.Context(), by, "rows.insert", q, func(tx storage.Tx) (*table.Result, error) {
		return h.tables.Insert(r.Context(), tx, q.table, in)
	})
	if err != nil {
		return err
	}
	w.Header().Set("Content-Range", contentRange(0, 0, q.total(res)))
	if q.prefer.headersOnly && len(res.Keys) > 0 && res.Matched == 1 {
		w.Header().Set("Location", location(q.table, res.Keys))
	}
	h.written(w, r, q, http.StatusCreated, http.StatusCreated, res)
	return nil
}

// location is where the new row can be read: /t?id=eq.1.
func location(name string, keys []table.KeyValue) string {
	parts := make([]string, len(keys))
	for i, k := range keys {
		parts[i] = url.QueryEscape(k.Column) + "=eq." + url.QueryEscape(k.Value)
	}
	return "/" + url.PathEscape(name) + "?" + strings.Join(parts, "&")
}

// update answers PATCH.
func (h *Handler) update(w http.ResponseWriter, r *http.Request, by storage.Actor, q *request) error {
	body, err := h.readBody(w, r)
	if err != nil {
		return err
	}
	records, _, err := parseRecords(body, h.maxDepth)
	if err != nil {
		return err
	}
	if len(records) > 1 {
		return bodyFault("Empty or invalid json").details("an update takes one object")
	}
	set := table.Record{}
	if len(records) == 1 {
		set = records[0]
	}
	if q.columns != nil {
		set = narrowed(set, q.columns)
	}
	res, err := h.write(r.Context(), by, "rows.update", q, func(tx storage.Tx) (*table.Result, error) {
		return h.tables.Update(r.Context(), tx, q.table, table.Change{Where: q.where, Set: set, Return: q.returning(), Max: q.prefer.maxAffected})
	})
	if err != nil {
		return err
	}
	w.Header().Set("Content-Range", contentRange(0, int(res.Matched), q.total(res)))
	h.written(w, r, q, http.StatusNoContent, http.StatusOK, res)
	return nil
}

// narrowed keeps the columns that columns= lists; one that the body lacks is null.
func narrowed(set table.Record, columns []string) table.Record {
	kept := table.Record{}
	for _, name := range columns {
		if raw, ok := set[name]; ok {
			kept[name] = raw
		} else {
			kept[name] = []byte("null")
		}
	}
	return kept
}

// remove answers DELETE.
func (h *Handler) remove(w http.ResponseWriter, r *http.Request, by storage.Actor, q *request) error {
	res, err := h.write(r.Context(), by, "rows.delete", q, func(tx storage.Tx) (*table.Result, error) {
		return h.tables.Delete(r.Context(), tx, q.table, table.Removal{Where: q.where, Return: q.returning(), Max: q.prefer.maxAffected})
	})
	if err != nil {
		return err
	}
	w.Header().Set("Content-Range", contentRange(0, 0, q.total(res)))
	h.written(w, r, q, http.StatusNoContent, http.StatusOK, res)
	return nil
}

// errRollback undoes a transaction whose client asked for that with tx=rollback.
var errRollback = errors.New("the client asked for a rollback")

// write runs one change as a transaction. limit, order and offset do not narrow a change, so they are refused rather than
// ignored: a client that sends them means fewer rows than would be changed.
func (h *Handler) write(ctx context.Context, by storage.Actor, action string, q *request, change func(storage.Tx) (*table.Result, error)) (*table.Result, error) {
	if q.limit != nil || q.offset != 0 {
		return nil, newFault(http.StatusBadRequest, codeUnsupported, "limit and offset on a change are not supported").
			hint("Name the rows with filters.")
	}
	var res *table.Result
	err := h.store.Update(ctx, by, storage.Intent{Action: action, Object: q.table}, func(tx storage.Tx) (err error) {
		if err := h.callers.Alive(tx); err != nil {
			return err
		}
		if res, err = change(tx); err != nil {
			return err
		}
		if q.single() && q.prefer.representation && len(res.Rows) != 1 {
			return singular(len(res.Rows))
		}
		if q.prefer.rollback {
			return errRollback
		}
		if res.Matched > 0 { // what changed nothing leaves no event
			tx.Note("rows", res.Matched)
		}
		return nil
	})
	if errors.Is(err, errRollback) {
		err = h.undone(ctx, by, action, q, res)
	}
	return res, err
}

// undone records a change that was undone: it told of rows, and what tells leaves an event.
func (h *Handler) undone(ctx context.Context, by storage.Actor, action string, q *request, res *table.Result) error {
	if res.Matched == 0 {
		return nil
	}
	return h.store.Update(ctx, by, storage.Intent{Action: action, Object: q.table}, func(tx storage.Tx) error {
		tx.Note("rolled_back", true)
		tx.Note("rows", res.Matched)
		return nil
	})
}

// returning is what a change gives back.
func (q *request) returning() *table.Return {
	switch {
	case q.prefer.representation:
		return &table.Return{Columns: q.output}
	case q.prefer.headersOnly:
		return &table.Return{Columns: []table.Output{}, Keys: true}
	}
	return nil
}

func (q *request) total(res *table.Result) int64 {
	if q.prefer.count {
		return res.Matched
	}
	return -1
}

// written answers a change: with rows where the client asked for them.
func (h *Handler) written(w http.ResponseWriter, r *http.Request, q *request, empty, full int, res *table.Result) {
	if q.prefer.representation {
		q.answer(w, r, full, res.Rows)
		return
	}
	q.head(w)
	w.WriteHeader(empty)
}
