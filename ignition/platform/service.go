package platform

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/proa-os/proa/ignition/retry"
	"github.com/proa-os/proa/ignition/source"
)

// answerTime is how long a metadata service may take for one answer.
const answerTime = 10 * time.Second

// session is one conversation with a platform: its connections, tokens and drives.
type session struct {
	*Machine
	offline bool
	total   time.Duration
	mu      sync.Mutex
	client  map[bool]*http.Client // by whether the local port is low
	tokens  map[string]string     // by URL of the service that gives them
	missing map[string]bool       // drives that were waited for in vain

	loading sync.Mutex      // of drivers, when something is missing
	loaded  map[string]bool // by modalias
	loads   int
}

func newSession(m *Machine, offline bool) *session {
	s := &session{Machine: m, offline: offline, total: m.Total, tokens: map[string]string{}, missing: map[string]bool{}, loaded: map[string]bool{}}
	if s.total == 0 {
		s.total = total
	}
	s.client = map[bool]*http.Client{false: s.newClient(false), true: s.newClient(true)}
	return s
}

func (s *session) close() {
	for _, c := range s.client {
		c.CloseIdleConnections()
	}
}

func (s *session) newClient(lowPort bool) *http.Client {
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		if s.Route != nil {
			address = s.Route(address)
		}
		d := net.Dialer{Timeout: answerTime}
		if !lowPort {
			return d.DialContext(ctx, network, address)
		}
		var err error
		for range 20 { // one that is taken does not matter
			d.LocalAddr = &net.TCPAddr{Port: 512 + rand.N(512)}
			var c net.Conn
			if c, err = d.DialContext(ctx, network, address); err == nil {
				return c, nil
			}
		}
		return nil, err
	}
	return &http.Client{
		Transport: &http.Transport{
			DialContext: dial, TLSClientConfig: &tls.Config{RootCAs: s.Roots}, TLSHandshakeTimeout: answerTime,
			ResponseHeaderTimeout: answerTime, DisableCompression: true, DisableKeepAlives: lowPort,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// service is a place on the network: http://address/path.
type service struct {
	base    string   // "http://169.254.169.254"
	headers []string // "Metadata-Flavor: Google"
	accept  string   // empty: an Ignition config, or anything
	token   *token
	again   []int // statuses below 500 that another try may not have
	lowPort bool  // the service answers privileged ports only
	links   bool  // asked on every link, as %25LINK in base
}

// token is a secret that a service wants to see with every question.
type token struct {
	path     string // PUT
	headers  []string
	header   string // that carries it
	optional bool   // older services have none: 404
}

func (v service) name(_ *session, path string) string { return strings.SplitN(v.base+path, "?", 2)[0] }

func (v service) get(ctx context.Context, s *session, path string) ([]byte, error) {
	if s.offline {
		return nil, source.ErrNeedNetwork
	}
	var raw []byte
	err := retry.Do(ctx, s.total, func(ctx context.Context) (err error) {
		bases := []string{v.base}
		if v.links {
			if bases, err = onLinks(v.base); err != nil {
				return retry.Temporary(err)
			}
		}
		for _, base := range bases {
			if raw, err = v.ask(ctx, s, base, path); err == nil || errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("fetch %s: %w", v.name(s, path), err)
	}
	return raw, nil
}

// ask makes one request, with a token if the service wants one.
func (v service) ask(ctx context.Context, s *session, base, path string) ([]byte, error) {
	headers := append([]string{"Accept: " + source.Accept}, v.headers...)
	if v.accept != "" {
		headers[0] = "Accept: " + v.accept
	}
	fresh := false
	if v.token != nil {
		secret, err := v.secret(ctx, s, base, &fresh)
		if err != nil {
			return nil, err
		}
		if secret != "" {
			headers = append(headers, v.token.header+": "+secret)
		}
	}
	status, body, err := s.request(ctx, v.lowPort, http.MethodGet, base+path, headers, nil)
	switch {
	case err != nil:
		return nil, err
	case status == http.StatusOK:
		return body, nil
	case status == http.StatusNoContent:
		return nil, nil
	case status == http.StatusUnauthorized && v.token != nil && !fresh:
		s.mu.Lock()
		delete(s.tokens, base+v.token.path)
		s.mu.Unlock()
		return nil, retry.Temporary(errors.New("the token has expired"))
	case status >= 500 || slices.Contains(v.again, status):
		return nil, retry.Temporary(&source.StatusError{Code: status})
	case status == http.StatusNotFound:
		return nil, fs.ErrNotExist
	}
	return nil, &source.StatusError{Code: status}
}

// secret returns the session's token, fetching it first if there is none; empty if the service has none to give.
func (v service) secret(ctx context.Context, s *session, base string, fresh *bool) (string, error) {
	url := base + v.token.path
	s.mu.Lock()
	secret, ok := s.tokens[url]
	s.mu.Unlock()
	if ok {
		return secret, nil
	}
	*fresh = true
	status, body, err := s.request(ctx, v.lowPort, http.MethodPut, url, v.token.headers, nil)
	switch {
	case err != nil:
		return "", fmt.Errorf("get a token: %w", err)
	case status == http.StatusNotFound && v.token.optional:
	case status >= 500 || slices.Contains(v.again, status):
		return "", retry.Temporary(fmt.Errorf("get a token: %w", &source.StatusError{Code: status}))
	case status != http.StatusOK:
		return "", fmt.Errorf("get a token: %w", &source.StatusError{Code: status})
	default:
		secret = string(bytes.TrimSpace(body))
		if secret == "" || strings.ContainsAny(secret, "\r\n") {
			return "", errors.New("get a token: expected one line, found something else")
		}
	}
	s.mu.Lock()
	s.tokens[url] = secret
	s.mu.Unlock()
	return secret, nil
}

// request returns status and body. What the network does is temporary.
func (s *session) request(ctx context.Context, lowPort bool, method, url string, headers []string, body []byte) (int, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*answerTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return 0, nil, errors.New("expected a valid URL")
	}
	req.Header.Set("User-Agent", "ignition")
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	resp, err := s.client[lowPort].Do(req)
	if err != nil {
		return 0, nil, retry.Temporary(source.NoAnswer(req.URL.Host, source.WithoutURL(err)))
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 && resp.StatusCode < 400 {
		return 0, nil, errors.New("expected an answer, found a redirect; a metadata service does not send machines elsewhere")
	}
	b, err := limited(resp.Body)
	var large *tooLarge
	if err != nil && !errors.As(err, &large) {
		err = retry.Temporary(err)
	}
	return resp.StatusCode, b, err
}

// onLinks returns base for every link that is up and has an IPv6 address.
func onLinks(base string) (bases []string, err error) {
	links, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	for _, l := range links {
		if l.Flags&net.FlagUp == 0 || l.Flags&net.FlagLoopback != 0 {
			continue
		}
		addresses, err := l.Addrs()
		if err != nil {
			continue
		}
		if slices.ContainsFunc(addresses, func(a net.Addr) bool {
			n, ok := a.(*net.IPNet)
			return ok && n.IP.To4() == nil
		}) {
			bases = append(bases, strings.Replace(base, "LINK", l.Name, 1))
		}
	}
	if len(bases) == 0 {
		return nil, errors.New("no link has an IPv6 address")
	}
	return bases, nil
}
