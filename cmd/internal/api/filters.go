package api

import "encoding/json"

// parseFilters reads the filters parameter in both its forms: {"label":{"a=b":true}}, and the list form
// {"label":["a=b"]} that docker-py and old clients send. In the first the value's presence counts, not its boolean.
func parseFilters(s string) (Filters, error) {
	if s == "" {
		return nil, nil
	}
	var terms map[string]json.RawMessage
	if err := json.Unmarshal([]byte(s), &terms); err != nil {
		return nil, invalid("invalid filter: %s", clip(err.Error()))
	}
	f := make(Filters, len(terms))
	for term, raw := range terms {
		values := map[string]bool{}
		if err := json.Unmarshal(raw, &values); err != nil {
			var list []string
			if json.Unmarshal(raw, &list) != nil {
				return nil, invalid("invalid filter %s: %s", shown(term), clip(err.Error()))
			}
			values = make(map[string]bool, len(list))
			for _, v := range list {
				values[v] = true
			}
		}
		f[term] = make(map[string]bool, len(values))
		for v := range values {
			f[term][v] = true
		}
	}
	return f, nil
}
