package source

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/coreos/ignition/v2/config/v3_6/types"
)

// proxies returns the proxy for a request as ignition.proxy says, nil if it says nothing: the environment does not configure
// provisioning. noProxy has the meaning that upstream's library (golang.org/x/net/http/httpproxy) gives it: "*", an address, a network, a
// domain with all beneath it, or with a dot in front all beneath it only; each may have a port. This machine itself is never asked by a proxy.
func proxies(p types.Proxy) func(*http.Request) (*url.URL, error) {
	parse := func(s *string) *url.URL {
		if s == nil || *s == "" {
			return nil
		}
		u, err := url.Parse(*s)
		if err != nil {
			return nil // package config has refused it
		}
		return u
	}
	plain, secure := parse(p.HTTPProxy), parse(p.HTTPSProxy)
	if plain == nil && secure == nil {
		return nil
	}
	return func(r *http.Request) (*url.URL, error) {
		proxy := plain
		if r.URL.Scheme == "https" {
			proxy = secure
		}
		if proxy == nil || direct(r.URL, p.NoProxy) {
			return nil, nil
		}
		return proxy, nil
	}
}

func direct(u *url.URL, noProxy []types.NoProxyItem) bool {
	host, port := strings.ToLower(strings.TrimSuffix(u.Hostname(), ".")), u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	address, err := netip.ParseAddr(host)
	isAddress := err == nil
	if host == "localhost" || isAddress && address.IsLoopback() {
		return true
	}
	for _, item := range noProxy {
		pattern := strings.ToLower(strings.TrimSpace(string(item)))
		if network, err := netip.ParsePrefix(pattern); err == nil {
			if isAddress && network.Contains(address) {
				return true
			}
			continue
		}
		if a, err := netip.ParseAddr(pattern); err == nil {
			if isAddress && a == address {
				return true
			}
			continue
		}
		if h, p, err := net.SplitHostPort(pattern); err == nil {
			if p != port {
				continue
			}
			pattern = h
		}
		domain, star := strings.CutPrefix(pattern, "*")
		switch {
		case pattern == "*", domain != "" && !strings.HasPrefix(domain, ".") && !star && host == domain:
			return true
		case isAddress || domain == "":
		case strings.HasPrefix(domain, ".") && strings.HasSuffix(host, domain):
			return true
		case !star && strings.HasSuffix(host, "."+domain):
			return true
		}
	}
	return false
}
