package rest

import (
	"net/http"
	"strconv"
	"strings"
)

// preferences are what Prefer headers asked for and is honoured (RFC 7240).
type preferences struct {
	representation bool
	headersOnly    bool
	count          bool
	missingDefault bool
	rollback       bool
	maxAffected    *int
	applied        []string
}

// parsePreferences reads every Prefer header. Of a preference that is given twice the first counts. What is unknown is
// left aside, or an error where handling=strict asks for that.
func parsePreferences(header http.Header) (*preferences, error) {
	p := &preferences{}
	seen := map[string]bool{}
	strict := false
	var unknown []string
	most, mostText := -1, ""
	for part := range strings.SplitSeq(strings.Join(header.Values("Prefer"), ","), ",") {
		part = strings.TrimSpace(part)
		name, _, _ := strings.Cut(part, "=")
		if part == "" || seen[name] {
			continue
		}
		switch part {
		case "return=minimal":
		case "return=representation":
			p.representation = true
		case "return=headers-only":
			p.headersOnly = true
		case "count=exact", "count=planned", "count=estimated": // we have no planner's guess, so each is exact
			p.count = true
		case "missing=default":
			p.missingDefault = true
		case "missing=null", "tx=commit", "handling=lenient":
		case "tx=rollback":
			p.rollback = true
		case "handling=strict":
			strict = true
		case "resolution=merge-duplicates", "resolution=ignore-duplicates":
			return nil, newFault(http.StatusBadRequest, codeUnsupported, "upsert is not supported").
				hint("Insert without resolution=…, or update the rows by their key.")
		default:
			if n, err := strconv.Atoi(strings.TrimPrefix(part, "max-affected=")); err == nil && name == "max-affected" && n >= 0 {
				most, mostText = n, part
				seen[name] = true
			} else {
				unknown = append(unknown, part)
			}
			continue
		}
		seen[name] = true
		p.applied = append(p.applied, part)
	}
	if strict && len(unknown) > 0 {
		return nil, newFault(http.StatusBadRequest, codePreference, "Invalid preferences given with handling=strict").
			details("Invalid preferences: " + shown(strings.Join(unknown, ", ")))
	}
	if strict && most >= 0 { // the preference is defined for strict handling only
		p.maxAffected = &most
		p.applied = append(p.applied, mostText)
	}
	return p, nil
}
