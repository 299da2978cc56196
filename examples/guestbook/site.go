package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"embed"
	"encoding/json"
	"errors"
	"html/template"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"example.com/guestbook/assets"
	"example.com/guestbook/store"
)

//go:embed pages/*.html
var pageFiles embed.FS

const (
	pageSize = 20
	// The largest page that the API gives out at once.
	apiPageMax = 100
	// A form within its limits, with every character of four bytes escaped in
	// twelve, stays well below.
	bodyMax = 64 << 10
	// How long the database may take before this process counts as unhealthy.
	// Below the intervals at which load balancers ask.
	healthTime = time.Second
	// How long anybody may keep the page /about, in seconds.
	aboutMaxAge = 30
)

// entries is what the site needs of the store.
type entries interface {
	Add(context.Context, store.Draft) (store.Entry, error)
	List(ctx context.Context, before int64, limit int) ([]store.Entry, error)
	Check(context.Context) error
}

// site answers requests.
type site struct {
	log     *slog.Logger
	entries entries
	host    string // shown to visitors; may be empty
	pages   map[string]*template.Template
}

func newSite(log *slog.Logger, entries entries, host string) *site {
	paths := assets.Paths()
	functions := template.FuncMap{"asset": func(name string) string { return paths[name] }}
	s := &site{log: log, entries: entries, host: host, pages: map[string]*template.Template{}}
	for _, name := range []string{"entries", "about", "problem"} {
		s.pages[name] = template.Must(template.New("layout").Funcs(functions).
			ParseFS(pageFiles, "pages/layout.html", "pages/"+name+".html"))
	}
	return s
}

// handler routes requests and keeps out what is none of ours.
func (s *site) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.showEntries)
	mux.HandleFunc("POST /entries", s.addEntry)
	mux.HandleFunc("GET /api/entries", s.listEntries)
	mux.HandleFunc("GET /about", s.showAbout)
	mux.HandleFunc("GET /healthz", s.showHealth)
	mux.Handle("GET "+assets.Prefix, assets.Handler())
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.problem(w, r, http.StatusNotFound, "Nothing is here", "The address may have been mistyped.")
	})

	// Another site's page must not write here in a visitor's name: browsers
	// say where a request comes from (Sec-Fetch-Site, else Origin).
	sameOrigin := http.NewCrossOriginProtection()
	sameOrigin.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.problem(w, r, http.StatusForbidden, "Not from this site", "The form has to be sent from this site’s own page.")
	}))
	return s.logged(headers(sameOrigin.Handler(mux)))
}

// headers sets what holds for every answer; handlers may say otherwise.
func headers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Security-Policy", "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("X-Content-Type-Options", "nosniff")
		next.ServeHTTP(w, r)
	})
}

// entriesPage is what pages/entries.html shows.
type entriesPage struct {
	Form                store.Draft
	Invalid             store.InvalidError
	Entries             []store.Entry
	Older               int64 // ID to continue from; zero if there is nothing older
	MaxName, MaxMessage int
	Host                string
}

func (s *site) showEntries(w http.ResponseWriter, r *http.Request) {
	var before int64
	if text := r.URL.Query().Get("before"); text != "" {
		var err error
		if before, err = strconv.ParseInt(text, 10, 64); err != nil || before < 1 {
			s.problem(w, r, http.StatusBadRequest, "Not a place in the book", "“before” is the number of an entry.")
			return
		}
	}
	s.entriesPage(w, r, http.StatusOK, store.Draft{}, nil, before)
}

// entriesPage shows the form, as filled in so far, above the entries.
func (s *site) entriesPage(w http.ResponseWriter, r *http.Request, status int, form store.Draft, invalid store.InvalidError, before int64) {
	list, err := s.entries.List(r.Context(), before, pageSize+1)
	if err != nil {
		s.databaseProblem(w, r, err)
		return
	}
	if form.Token == "" || invalid["token"] != "" {
		form.Token = rand.Text()
	}
	page := entriesPage{
		Form: form, Invalid: invalid, Entries: list, Host: s.host,
		MaxName: store.MaxName, MaxMessage: store.MaxMessage,
	}
	if len(list) > pageSize {
		page.Entries = list[:pageSize]
		page.Older = list[pageSize-1].ID
	}
	s.page(w, r, status, "entries", page)
}

func (s *site) addEntry(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, bodyMax)
	if err := r.ParseForm(); err != nil {
		if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
			s.problem(w, r, http.StatusRequestEntityTooLarge, "Too long", "The message does not fit into the book.")
			return
		}
		s.problem(w, r, http.StatusBadRequest, "Not readable", "The form could not be read.")
		return
	}
	draft := store.Draft{
		Token:   r.PostForm.Get("token"),
		Name:    r.PostForm.Get("name"),
		Message: r.PostForm.Get("message"),
	}
	// A program that repeats requests names its attempt in this header.
	if key := r.Header.Get("Idempotency-Key"); key != "" {
		draft.Token = key
	}
	if draft.Token == "" {
		draft.Token = rand.Text() // nobody wants to repeat it
	}
	_, err := s.entries.Add(r.Context(), draft)
	if invalid := (store.InvalidError)(nil); errors.As(err, &invalid) {
		s.entriesPage(w, r, http.StatusUnprocessableEntity, draft, invalid, 0)
		return
	}
	if err != nil {
		s.databaseProblem(w, r, err)
		return
	}
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

func (s *site) listEntries(w http.ResponseWriter, r *http.Request) {
	number := func(name string, standard, most int64) (int64, bool) {
		text := r.URL.Query().Get(name)
		if text == "" {
			return standard, true
		}
		value, err := strconv.ParseInt(text, 10, 64)
		if err != nil || value < 1 || value > most {
			s.json(w, r, http.StatusBadRequest, map[string]any{
				"error": name + " must be a number from 1 to " + strconv.FormatInt(most, 10),
			})
			return 0, false
		}
		return value, true
	}
	before, ok := number("before", 0, 1<<62)
	if !ok {
		return
	}
	limit, ok := number("limit", pageSize, apiPageMax)
	if !ok {
		return
	}
	list, err := s.entries.List(r.Context(), before, int(limit))
	if err != nil {
		s.log.WarnContext(r.Context(), "the database does not answer", "error", err.Error())
		w.Header().Set("Retry-After", "1")
		s.json(w, r, http.StatusServiceUnavailable, map[string]any{"error": "the database does not answer"})
		return
	}
	if list == nil {
		list = []store.Entry{}
	}
	answer := map[string]any{"entries": list}
	if s.host != "" {
		answer["host"] = s.host
	}
	s.json(w, r, http.StatusOK, answer)
}

func (s *site) showAbout(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "public, max-age="+strconv.Itoa(aboutMaxAge))
	s.page(w, r, http.StatusOK, "about", map[string]any{
		"Host": s.host, "MadeAt": time.Now(), "MaxAge": aboutMaxAge,
	})
}

func (s *site) showHealth(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), healthTime)
	defer cancel()
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if err := s.entries.Check(ctx); err != nil {
		s.log.WarnContext(ctx, "unhealthy", "error", err.Error())
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = w.Write([]byte("the database does not answer\n"))
		return
	}
	_, _ = w.Write([]byte("ok\n"))
}

// databaseProblem is for errors that are not the visitor's.
func (s *site) databaseProblem(w http.ResponseWriter, r *http.Request, err error) {
	s.log.WarnContext(r.Context(), "the database does not answer", "error", err.Error())
	w.Header().Set("Retry-After", "1")
	s.problem(w, r, http.StatusServiceUnavailable, "The book is being fetched",
		"The database does not answer at the moment. Nothing was lost; please try again.")
}

func (s *site) problem(w http.ResponseWriter, r *http.Request, status int, title, text string) {
	s.page(w, r, status, "problem", map[string]any{"Title": title, "Text": text, "Host": s.host})
}

// page sends a page only when it could be made in full.
func (s *site) page(w http.ResponseWriter, r *http.Request, status int, name string, data any) {
	var buffer bytes.Buffer
	if err := s.pages[name].ExecuteTemplate(&buffer, "layout", data); err != nil {
		s.log.ErrorContext(r.Context(), "a page could not be made", "page", name, "error", err.Error())
		http.Error(w, "The page could not be made.", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(buffer.Bytes())
}

func (s *site) json(w http.ResponseWriter, r *http.Request, status int, value any) {
	body, err := json.Marshal(value)
	if err != nil {
		s.log.ErrorContext(r.Context(), "an answer could not be encoded", "error", err.Error())
		http.Error(w, "{}", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n'))
}
