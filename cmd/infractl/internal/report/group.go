package report

// Group is one or several hosts on which the very same changes.
type Group struct {
	// Hosts are their names, in order.
	Hosts []string
	// Changes are their changes, of which the first stands for all.
	Changes []Change
}

// cloud are the changes that are not on hosts.
func (p *Plan) cloud() []Change {
	var out []Change
	for _, c := range p.Changes {
		if c.typ != ConfigurationType {
			out = append(out, c)
		}
	}
	return out
}

// Groups are the changes on hosts. Hosts with the very same change are in one
// group.
func (p *Plan) Groups() []Group {
	var out []Group
	at := map[string]int{}
	for _, c := range p.Changes {
		if c.typ != ConfigurationType {
			continue
		}
		key := c.content()
		i, known := at[key]
		if !known {
			i = len(out)
			at[key] = i
			out = append(out, Group{})
		}
		out[i].Hosts = append(out[i].Hosts, c.Name)
		out[i].Changes = append(out[i].Changes, c)
	}
	return out
}

// content identifies what is to be seen of a change on a host, wherever it is.
func (c Change) content() string {
	var files []string
	for _, f := range c.Files {
		files = append(files, f.content())
	}
	return hash([]any{c.Operation, files, c.Packages, c.Users, c.Trees, c.Units, c.Actions, c.Notes})
}

// content identifies what is to be seen of a file's change, wherever it is.
func (f FileChange) content() string {
	return hash([]any{f.Path, f.Operation, f.Diff, f.Content, f.Attributes})
}

// body is what is shown below a file's line: a diff without its head, or the
// text of a new file with signs before its lines.
func (f FileChange) body() []string {
	text := f.Diff
	if f.Operation == "create" {
		text = prefixed(f.Content, "+")
	}
	var out []string
	for i, l := range lines(text) {
		if i < 2 && f.Diff != "" {
			continue // which files they are is in the line above
		}
		out = append(out, visible(l))
	}
	return out
}

// shown remembers which changes of files were shown already, by path.
type shown map[string][]shownFile

type shownFile struct {
	host    string
	content string
	body    []string
}

// mostDiffering is how many lines of a file's change may differ from another
// host's for only these to be shown.
const mostDiffering = 4

// before looks for a host on which the change of a file was shown already: the
// very same one, or one that differs in a few lines, such as the digest of its
// own configuration that a host tells. It returns the host, or "", and the
// lines that differ. A change without a body is not looked for: it takes one
// line too.
func (s shown) before(f FileChange) (host string, differing []string) {
	body := f.body()
	if len(body) == 0 {
		return "", nil
	}
	content := f.content()
	for _, e := range s[f.Path] {
		if e.content == content {
			return e.host, nil
		}
	}
	for _, e := range s[f.Path] {
		if len(e.body) != len(body) || len(f.Attributes) > 0 {
			continue
		}
		differing = nil
		for i, l := range body {
			if l != e.body[i] {
				differing = append(differing, l)
			}
		}
		// Lines with no difference that is to be seen belong to something else
		// that differs, such as the operation.
		if n := len(differing); n > 0 && n <= mostDiffering && 2*n < len(body) {
			return e.host, differing
		}
	}
	return "", nil
}

// add remembers that a change of a file was shown in full.
func (s shown) add(f FileChange, host string) {
	s[f.Path] = append(s[f.Path], shownFile{host, f.content(), f.body()})
}
