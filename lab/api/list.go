package api

import (
	"cmp"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/hetznercloud/hcloud-go/v2/hcloud/schema"
)

// pagination is the API's, whose absent pages are null.
type pagination struct {
	Page         int  `json:"page"`
	PerPage      int  `json:"per_page"`
	PreviousPage *int `json:"previous_page"`
	NextPage     *int `json:"next_page"`
	LastPage     *int `json:"last_page"`
	TotalEntries *int `json:"total_entries"`
}

const (
	defaultPerPage = 25
	maxPerPage     = 50
)

// oneOf filters by a query parameter, which may be there several times. An
// absent parameter lets all through.
func (c *call) oneOf(parameter, value string) bool {
	wanted, there := c.query[parameter]
	return !there || slices.Contains(wanted, value)
}

// baseOrder are the orders that resources can be listed in.
func baseOrder[T record]() map[string]func(a, b T) int {
	return map[string]func(a, b T) int{
		"id":      func(a, b T) int { return cmp.Compare(a.meta().ID, b.meta().ID) },
		"name":    func(a, b T) int { return strings.Compare(a.meta().Name, b.meta().Name) },
		"created": func(a, b T) int { return a.meta().Created.Compare(b.meta().Created) },
	}
}

// listRecords answers a list of resources: those of the name and the labels
// asked for that keep (nil: all) lets through.
func listRecords[T record](c *call, plural string, m map[int64]T, keep func(r T) bool, view func(r T) any) (reply, error) {
	selector, err := parseSelector(c.query.Get("label_selector"))
	if err != nil {
		return reply{}, invalid("label_selector", "%v", err)
	}
	var out []T
	for _, r := range byID(m) {
		b := r.meta()
		if c.oneOf("name", b.Name) && selector.matches(b.Labels) && (keep == nil || keep(r)) {
			out = append(out, r)
		}
	}
	return answerPage(c, plural, out, baseOrder[T](), view)
}

// answerPage sorts what was found as the request asks and answers one page.
func answerPage[T any](c *call, plural string, found []T, orders map[string]func(a, b T) int, view func(T) any) (reply, error) {
	order, err := sortOrder(c, orders)
	if err != nil {
		return reply{}, err
	}
	if order != nil {
		slices.SortStableFunc(found, order)
	}
	page, err := c.positive("page", 1)
	if err != nil {
		return reply{}, err
	}
	per, err := c.positive("per_page", defaultPerPage)
	if err != nil {
		return reply{}, err
	}
	per = min(per, maxPerPage)

	total := len(found)
	last := max(1, (total+per-1)/per)
	p := pagination{Page: page, PerPage: per, LastPage: &last, TotalEntries: &total}
	if page > 1 {
		previous := min(page-1, last)
		p.PreviousPage = &previous
	}
	if page < last {
		next := page + 1
		p.NextPage = &next
	}
	// The pages are compared before they are multiplied: page may be huge.
	from := total
	if page <= last {
		from = min((page-1)*per, total)
	}
	shown := []any{}
	for _, r := range found[from:min(from+per, total)] {
		shown = append(shown, view(r))
	}
	return reply{http.StatusOK, map[string]any{plural: shown, "meta": map[string]any{"pagination": p}}}, nil
}

func (c *call) positive(parameter string, fallback int) (int, error) {
	raw := c.query.Get(parameter)
	if raw == "" {
		return fallback, nil
	}
	n, err := strconv.Atoi(raw)
	if err != nil || n < 1 {
		return 0, invalid(parameter, "must be a whole number of at least 1")
	}
	return n, nil
}

// sortOrder reads sort parameters such as "name" and "created:desc".
func sortOrder[T any](c *call, orders map[string]func(a, b T) int) (func(a, b T) int, error) {
	var chain []func(a, b T) int
	for _, s := range c.query["sort"] {
		key, direction, _ := strings.Cut(s, ":")
		order, ok := orders[key]
		if !ok || (direction != "" && direction != "asc" && direction != "desc") {
			return nil, invalid("sort", "'%s' is not a valid order", s)
		}
		if direction == "desc" {
			chain = append(chain, func(a, b T) int { return order(b, a) })
		} else {
			chain = append(chain, order)
		}
	}
	if len(chain) == 0 {
		return nil, nil
	}
	return func(a, b T) int {
		for _, order := range chain {
			if n := order(a, b); n != 0 {
				return n
			}
		}
		return 0
	}, nil
}

// idOrName is schema.IDOrName for a field that may also be null.
type idOrName struct{ schema.IDOrName }

func (o *idOrName) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		return nil
	}
	return o.IDOrName.UnmarshalJSON(b)
}

func (o idOrName) empty() bool { return o.ID == 0 && o.Name == "" }

// is says whether it means the thing with an ID and a name.
func (o idOrName) is(id int64, name string) bool {
	return !o.empty() && (o.ID == id || (o.Name != "" && o.Name == name))
}

func (o idOrName) String() string {
	if o.Name != "" {
		return o.Name
	}
	return strconv.FormatInt(o.ID, 10)
}
