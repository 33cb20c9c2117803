// Package config is what an operator may set: one documented struct, filled from its defaults, then a TOML file, then
// BULWARK_… variables of the environment, then flags; the later wins.
//
// Promise: a name that is not one of the struct's is refused with the nearest that is; a value that cannot work is
// refused in one line, which says where it came from and what to write. No secret is a value here: secrets are in files
// of their own, and the settings name the files.
package config

import (
	"encoding"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
)

// A Config is everything that can be set. The toml tag is a setting's name in the file and as a flag; in the environment
// it is in capitals, with BULWARK_ in front and _ for -.
type Config struct {
	Data             string `toml:"data" doc:"the data folder"`
	Listen           string `toml:"listen" doc:"HOST:PORT for clients, over TLS; port 0 takes a free one"`
	ClusterListen    string `toml:"cluster-listen" doc:"HOST:PORT for the other nodes, over mutual TLS"`
	ClusterAdvertise string `toml:"cluster-advertise" doc:"HOST:PORT at which the other nodes reach this one; default: cluster-listen"`
	Name             string `toml:"name" doc:"what people call the node; default: the host's name"`
	Join             string `toml:"join" doc:"on an empty data folder, join the cluster that made this token (bulwark operator token), or @FILE that holds it"`
	PublicURL        string `toml:"public-url" doc:"the URL that clients use, where it is not that of listen; https, without a path"`
	Demo             bool   `toml:"demo" doc:"on an empty data folder, make a demo tenant and project and print what a client needs"`

	Seal           string `toml:"seal" doc:"how the root key is kept: file, passphrase or shamir; decided when the data folder is made"`
	KeyFile        string `toml:"key-file" doc:"the file that holds the root key, for the seal file; outside the data folder; default: the data folder's name and .key"`
	PassphraseFile string `toml:"passphrase-file" doc:"a file that holds the passphrase, for the seal passphrase; default: none, so the node starts sealed"`

	TLSNames []string `toml:"tls-names" doc:"further host names and addresses for the certificate"`
	HTTP2    bool     `toml:"http2" doc:"offer HTTP/2 to clients"`

	ElectionTimeout time.Duration `toml:"election-timeout" doc:"how long the nodes do without a leader before they elect another; longer where the network is slow"`

	RequestTimeout time.Duration `toml:"request-timeout" doc:"how long one request may take, body and answer included"`
	HeaderTimeout  time.Duration `toml:"header-timeout" doc:"how long the headers of a request may take"`
	IdleTimeout    time.Duration `toml:"idle-timeout" doc:"how long a connection may wait for its next request"`
	StopTimeout    time.Duration `toml:"stop-timeout" doc:"how long running requests may take when the node stops"`
	MaxConnections int           `toml:"max-connections" doc:"open connections at one time"`
	MaxBody        int64         `toml:"max-body" doc:"bytes of a request's body, where an endpoint has no limit of its own"`
	RateLimit      float64       `toml:"rate-limit" doc:"requests a second from one address; 0 is no limit"`
	RateBurst      int           `toml:"rate-burst" doc:"requests at once from one address, beyond the rate"`

	MetricsListen string `toml:"metrics-listen" doc:"HOST:PORT for /healthz, /readyz and /metrics in plain HTTP, for a network of your own; default: none. Clients' port has the first two, and /metrics for operators"`

	SnapshotDir   string        `toml:"snapshot-dir" doc:"a folder for scheduled snapshots, best on another disk; default: none are taken"`
	SnapshotEvery time.Duration `toml:"snapshot-every" doc:"how often a snapshot is taken"`
	SnapshotKeep  int           `toml:"snapshot-keep" doc:"how many scheduled snapshots are kept"`
	SnapshotRate  int           `toml:"snapshot-rate" doc:"MiB a second that a scheduled snapshot reads at most; 0 is no limit"`

	SecurityContact string `toml:"security-contact" doc:"where to report a weakness, a mailto: or https: address; answered at /.well-known/security.txt"`

	BcryptCost int `toml:"bcrypt-cost" doc:"the cost of hashing a password: each step doubles it"`

	LogLevel  string `toml:"log-level" doc:"debug, info, warn or error"`
	LogFormat string `toml:"log-format" doc:"text or json"`
}

// Default returns the defaults.
func Default() Config {
	return Config{
		Data:            "./bulwark-data",
		Listen:          "localhost:8443",
		ClusterListen:   "localhost:8444",
		Seal:            "file",
		ElectionTimeout: 500 * time.Millisecond,
		RequestTimeout:  30 * time.Second,
		HeaderTimeout:   10 * time.Second,
		IdleTimeout:     2 * time.Minute,
		StopTimeout:     10 * time.Second,
		MaxConnections:  4096,
		MaxBody:         8 << 20,
		RateLimit:       500,
		RateBurst:       1000,
		SnapshotEvery:   6 * time.Hour,
		SnapshotKeep:    28,
		SnapshotRate:    64,
		BcryptCost:      10,
		LogLevel:        "info",
		LogFormat:       "text",
	}
}

// A Setting describes one field of Config.
type Setting struct {
	Name    string // in the file and as a flag
	Env     string // in the environment
	Doc     string
	Default string
	Bool    bool
}

// Settings lists what can be set, in the order of the struct.
func Settings() []Setting {
	v := reflect.ValueOf(Default())
	out := make([]Setting, v.NumField())
	for i := range out {
		f := v.Type().Field(i)
		name := f.Tag.Get("toml")
		out[i] = Setting{Name: name, Env: envName(name), Doc: f.Tag.Get("doc"), Bool: f.Type.Kind() == reflect.Bool}
		if !v.Field(i).IsZero() {
			out[i].Default = fmt.Sprint(v.Field(i).Interface())
		}
	}
	return out
}

func envName(name string) string {
	return "BULWARK_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}

// maxFile bounds a configuration file.
const maxFile = 1 << 20

// Load returns the defaults as changed by file (if not ""), environ ("NAME=value", as os.Environ) and flags (name to
// value), and validates the whole. Lists are separated by commas in the environment and in flags.
func Load(file string, environ []string, flags map[string]string) (Config, error) {
	c := Default()
	if file != "" {
		if err := c.readFile(file); err != nil {
			return Config{}, err
		}
	}
	if err := c.readEnv(environ); err != nil {
		return Config{}, err
	}
	names := slices.Sorted(func(yield func(string) bool) {
		for name := range flags {
			if !yield(name) {
				return
			}
		}
	})
	for _, name := range names {
		if err := c.set(name, flags[name]); err != nil {
			return Config{}, fmt.Errorf("--%s: %w", name, err)
		}
	}
	if c.KeyFile == "" && c.Data != "" {
		c.KeyFile = keyFileOf(c.Data)
	}
	return c, c.Validate()
}

// keyFileOf is a file next to the data folder, also for a folder such as "." that does not end in its own name.
func keyFileOf(data string) string {
	data = filepath.Clean(data)
	if base := filepath.Base(data); base == "." || base == ".." {
		if abs, err := filepath.Abs(data); err == nil {
			data = abs
		}
	}
	return data + ".key"
}

func (c *Config) readFile(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("reading the configuration: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return fmt.Errorf("reading the configuration: %w", err)
	}
	if len(text) > maxFile {
		return fmt.Errorf("%s: larger than %d bytes: is it a configuration file?", file, maxFile)
	}
	if err := c.decode(string(text)); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}

// decode reads TOML over what c holds.
func (c *Config) decode(text string) error {
	md, err := toml.Decode(text, c)
	var parse toml.ParseError
	switch {
	case errors.As(err, &parse) && parse.Message != "":
		return fmt.Errorf("line %d: %s", parse.Position.Line, oneLine(parse.Message))
	case errors.As(err, &parse):
		return fmt.Errorf("line %d: not well-formed TOML", parse.Position.Line)
	case err != nil:
		return errors.New(oneLine(err.Error()))
	}
	// Undecoded finds what no field takes; the decoder also takes names in another case, which would hide a second spelling.
	for _, key := range md.Keys() {
		if name := key.String(); !known(name) {
			return unknown("setting", name, "")
		}
	}
	return nil
}

func (c *Config) readEnv(environ []string) error {
	for _, kv := range environ {
		key, value, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(key, "BULWARK_") || foreign(key) {
			continue
		}
		name := strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(key, "BULWARK_")), "_", "-")
		if !known(name) || envName(name) != key {
			return unknown("variable", key, "BULWARK_")
		}
		if err := c.set(name, value); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	return nil
}

// foreign reports variables that are not settings: those of the command, and those that Kubernetes puts into every
// container when a service is called bulwark.
func foreign(key string) bool {
	switch key {
	case "BULWARK_TOKEN", "BULWARK_URL", "BULWARK_CA", "BULWARK_CONFIG", "BULWARK_PORT", "BULWARK_JSON":
		return true
	}
	return strings.HasPrefix(key, "BULWARK_SERVICE_") || strings.HasPrefix(key, "BULWARK_PORT_")
}

func known(name string) bool {
	return slices.ContainsFunc(Settings(), func(s Setting) bool { return s.Name == name })
}

func unknown(what, name, prefix string) error {
	best, at := "", 4
	for _, s := range Settings() {
		candidate := s.Name
		if prefix != "" {
			candidate = s.Env
		}
		if d := distance(strings.ToLower(name), strings.ToLower(candidate)); d < at {
			best, at = candidate, d
		}
	}
	if len(name) > 60 {
		name = name[:60]
	}
	if best == "" {
		return fmt.Errorf("unknown %s %q: see bulwark serve --help for those that there are", what, name)
	}
	return fmt.Errorf("unknown %s %q: did you mean %s?", what, name, best)
}

// distance is the number of characters to insert, remove or change to make b of a (Levenshtein), or more than 60 for
// long ones, which no setting is like.
func distance(a, b string) int {
	if len(a) > 60 {
		return len(a)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := diagonal
			if a[i-1] != b[j-1] {
				change++
			}
			diagonal = row[j]
			row[j] = min(change, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}

// set sets one field from text.
func (c *Config) set(name, text string) error {
	v := reflect.ValueOf(c).Elem()
	for i := range v.NumField() {
		if v.Type().Field(i).Tag.Get("toml") != name {
			continue
		}
		return setField(v.Field(i), text)
	}
	return unknown("setting", name, "")
}

func setField(f reflect.Value, text string) error {
	if u, ok := f.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return u.UnmarshalText([]byte(text))
	}
	switch p := f.Addr().Interface().(type) {
	case *string:
		*p = text
	case *bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return errors.New("must be true or false")
		}
		*p = b
	case *time.Duration:
		d, err := time.ParseDuration(text)
		if err != nil {
			return errors.New("must be a length of time, for example 30s or 2m")
		}
		*p = d
	case *int:
		n, err := strconv.Atoi(text)
		if err != nil {
			return errors.New("must be a whole number")
		}
		*p = n
	case *int64:
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return errors.New("must be a whole number")
		}
		*p = n
	case *float64:
		x, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return errors.New("must be a number")
		}
		*p = x
	case *[]string:
		*p = nil
		for item := range strings.SplitSeq(text, ",") {
			if item = strings.TrimSpace(item); item != "" {
				*p = append(*p, item)
			}
		}
	default:
		return fmt.Errorf("cannot be set from text (%s)", f.Type())
	}
	return nil
}

// Validate returns the first thing that cannot work, in one line.
func (c Config) Validate() error {
	checks := []struct {
		name string
		err  error
	}{
		{"data", notEmpty(c.Data, "name a folder")},
		{"listen", hostPort(c.Listen, "localhost:8443")},
		{"cluster-listen", hostPort(c.ClusterListen, "localhost:8444")},
		{"cluster-listen", c.ownPort()},
		{"metrics-listen", optional(c.MetricsListen, func(s string) error { return hostPort(s, "localhost:8445") })},
		{"cluster-advertise", optional(c.ClusterAdvertise, func(s string) error { return hostPort(s, "node.example:8444") })},
		{"public-url", publicURL(c.PublicURL)},
		{"seal", oneOf(c.Seal, "file", "passphrase", "shamir")},
		{"key-file", c.outside(c.KeyFile)},
		{"passphrase-file", c.outside(c.PassphraseFile)},
		{"tls-names", names(c.TLSNames)},
		{"election-timeout", between(c.ElectionTimeout, 100*time.Millisecond, time.Minute)},
		{"request-timeout", between(c.RequestTimeout, time.Second, time.Hour)},
		{"header-timeout", between(c.HeaderTimeout, 100*time.Millisecond, time.Minute)},
		{"idle-timeout", between(c.IdleTimeout, time.Second, time.Hour)},
		{"stop-timeout", between(c.StopTimeout, 0, time.Hour)},
		{"max-connections", between(c.MaxConnections, 1, 1_000_000)},
		{"max-body", between(c.MaxBody, 1<<10, 1<<30)},
		{"rate-limit", between(c.RateLimit, 0, 1e9)},
		{"rate-burst", between(c.RateBurst, 1, 1_000_000_000)},
		{"snapshot-dir", c.outside(c.SnapshotDir)},
		{"snapshot-every", between(c.SnapshotEvery, time.Minute, 365*24*time.Hour)},
		{"snapshot-keep", between(c.SnapshotKeep, 1, 100_000)},
		{"snapshot-rate", between(c.SnapshotRate, 0, 1_000_000)},
		{"security-contact", contact(c.SecurityContact)},
		{"bcrypt-cost", between(c.BcryptCost, 4, 20)},
		{"log-level", oneOf(c.LogLevel, "debug", "info", "warn", "error")},
		{"log-format", oneOf(c.LogFormat, "text", "json")},
	}
	for _, check := range checks {
		if check.err != nil {
			return fmt.Errorf("%s: %w", check.name, check.err)
		}
	}
	return nil
}

func notEmpty(s, hint string) error {
	if s == "" || strings.ContainsRune(s, 0) {
		return errors.New("must not be empty: " + hint)
	}
	return nil
}

func hostPort(s, example string) error {
	host, port, err := net.SplitHostPort(s)
	if err == nil {
		n, perr := strconv.Atoi(port)
		if perr == nil && n >= 0 && n <= 65535 && !strings.ContainsAny(host, "/ \x00") {
			return nil
		}
	}
	return fmt.Errorf("%q is not HOST:PORT, for example %s", clip(s), example)
}

func (c Config) ownPort() error {
	if _, port, _ := net.SplitHostPort(c.Listen); c.Listen == c.ClusterListen && port != "0" {
		return errors.New("must not be the same as listen: clients and nodes have ports of their own")
	}
	return nil
}

func publicURL(s string) error {
	if s == "" {
		return nil
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || strings.Trim(u.Path, "/") != "" ||
		u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("%q is not of the form https://host or https://host:port", clip(s))
	}
	return nil
}

// contact takes what RFC 9116 calls a contact, on one line.
func contact(s string) error {
	if s == "" {
		return nil
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "mailto" && u.Scheme != "https" || u.Opaque+u.Host == "" {
		return fmt.Errorf("%q is not of the form mailto:name@host or https://host/path", clip(s))
	}
	return nil
}

func oneOf(s string, allowed ...string) error {
	if slices.Contains(allowed, s) {
		return nil
	}
	return fmt.Errorf("%q is not one of %s", clip(s), strings.Join(allowed, ", "))
}

func between[T int | int64 | float64 | time.Duration](v, low, high T) error {
	if v >= low && v <= high {
		return nil
	}
	return fmt.Errorf("%v is not between %v and %v", v, low, high)
}

// outside refuses a secret's file inside the data folder: whoever copies the folder would have the secret too.
func (c Config) outside(file string) error {
	if file == "" {
		return nil
	}
	data, err := filepath.Abs(c.Data)
	if err != nil {
		return err
	}
	abs, err := filepath.Abs(file)
	if err != nil {
		return err
	}
	if rel, err := filepath.Rel(data, abs); err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator)) {
		return fmt.Errorf("%s is inside the data folder, so a copy of the folder would open itself: put it elsewhere", clip(file))
	}
	return nil
}

func names(list []string) error {
	if len(list) > 100 {
		return errors.New("more than 100 names")
	}
	for _, name := range list {
		if net.ParseIP(name) == nil && !dnsName(name) {
			return fmt.Errorf("%q is not a host name or an address", clip(name))
		}
	}
	return nil
}

// dnsName reports whether s is a host name (RFC 1123), in which the first label may be *.
func dnsName(s string) bool {
	if len(s) == 0 || len(s) > 253 {
		return false
	}
	for i, label := range strings.Split(s, ".") {
		if label == "*" && i == 0 && s != "*" {
			continue
		}
		if len(label) == 0 || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			if c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
				return false
			}
		}
	}
	return true
}

func clip(s string) string {
	const most = 80
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}

func oneLine(s string) string { return clip(strings.Join(strings.Fields(s), " ")) }

// optional checks a setting that may be left out.
func optional(value string, check func(string) error) error {
	if value == "" {
		return nil
	}
	return check(value)
}
