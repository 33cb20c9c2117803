package table

// Limits of this package. They are PostgREST's db-max-rows, and bounds of memory.
const (
	MaxRows      = 1000     // rows that one read returns; more are left out silently
	MaxRowBytes  = 1 << 20  // of a row's JSON
	MaxBodyBytes = 32 << 20 // of all the rows of one answer
	MaxSortBytes = 64 << 20 // of the sort keys that one read holds
)

// Nulls says where null sorts.
type Nulls uint8

// The places of null. By default it is last in ascending order and first in descending order, as in PostgreSQL.
const (
	NullsDefault Nulls = iota
	NullsFirst
	NullsLast
)

// An Order is one term of ORDER BY. Text sorts bytewise (PostgreSQL's C collation). Rows that are equal in every term
// keep the order of an unordered read: that of their last write.
type Order struct {
	Column string
	Desc   bool
	Nulls  Nulls
}

// Star as the Column of an Output stands for every column, in declared order.
const Star = "*"

// An Output is one column of an answer. As is its name there; "" is the column's own.
type Output struct {
	Column string
	As     string
}

// A Query is a read. The zero Query returns the first MaxRows rows, whole.
type Query struct {
	Where   *Expr // nil: every row that the policies show
	Order   []Order
	Limit   *int // nil: MaxRows. It is never more than that.
	Offset  int
	Columns []Output // nil: every column, in declared order
	Count   bool     // count every row that matches, not only those returned
}

// A Record is what a client gave for one row: for each column that it named, the JSON value as it was written.
type Record map[string][]byte

// An Insertion adds rows.
type Insertion struct {
	// Columns are those that are set from Records; nil stands for the names in the Records. A column that is not among
	// them gets its default. One that is among them and absent from a Record is null, or its default where
	// MissingDefault is set.
	Columns        []string
	Records        []Record
	MissingDefault bool
	Return         *Return
}

// A Change sets columns of the rows that match.
type Change struct {
	Where  *Expr
	Set    Record
	Return *Return
	Max    *int // the greatest number of rows that may change; more is an error
}

// A Removal deletes the rows that match.
type Removal struct {
	Where  *Expr
	Return *Return
	Max    *int
}

// A Return asks for the rows that were written. It needs the policies of SELECT to show them, as RETURNING does.
type Return struct {
	Columns []Output // nil: every column
	Keys    bool     // also fill Result.Keys
}

// A Result is what a read or write did.
type Result struct {
	Rows    [][]byte // each a JSON object, in the order asked for
	Matched int64    // rows that matched (a read: only if asked to count, else -1) or were written
	Keys    []KeyValue
}

// A KeyValue is one column of the primary key of the first row that was written, as text.
type KeyValue struct {
	Column, Value string
}
