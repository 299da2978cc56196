package report

// Good, Warn, Bad, Faint and Strong paint text by what it means.
func (s Style) Good(text string) string   { return s.paint(green, text) }
func (s Style) Warn(text string) string   { return s.paint(yellow, text) }
func (s Style) Bad(text string) string    { return s.paint(red, text) }
func (s Style) Faint(text string) string  { return s.paint(dim, text) }
func (s Style) Strong(text string) string { return s.paint(bold, text) }

// palette tells things of a kind apart. Red and yellow mean something else.
var palette = []string{"36", "32", "35", "34", "96", "92", "95", "94"}

// Nth paints text in the colour of the nth thing of a kind.
func (s Style) Nth(n int, text string) string { return s.paint(palette[n%len(palette)], text) }
