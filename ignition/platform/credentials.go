package platform

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"strings"
	"sync"

	"github.com/proa-os/proa/ignition/source"
)

// Credentials gives f what the platform gives its machine for reading objects: a role and region on aws, access tokens on gcp and azure.
// They are fetched when they are first needed.
func (p Platform) Credentials(m *Machine, f source.Fetcher) source.Fetcher {
	switch p.ID {
	case "aws":
		f.AWS = once(m, awsKeys)
	case "gcp":
		f.Google = once(m, accessToken(googleService(), "/computeMetadata/v1/instance/service-accounts/default/token"))
	case "azure":
		at := service{base: linkLocal, headers: []string{"Metadata: true"}, again: []int{http.StatusGone, http.StatusTooManyRequests}}
		f.Azure = once(m, accessToken(at, "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fstorage.azure.com%2F"))
	}
	return f
}

// once keeps what get has fetched; an error is not kept.
func once[T any](m *Machine, get func(context.Context, *session) (T, error)) func(context.Context) (T, error) {
	var mu sync.Mutex
	var kept *T
	return func(ctx context.Context) (T, error) {
		mu.Lock()
		defer mu.Unlock()
		if kept != nil {
			return *kept, nil
		}
		s := newSession(m, false)
		defer s.close()
		v, err := get(ctx, s)
		if err == nil {
			kept = &v
		}
		return v, err
	}
}

// awsKeys asks for the instance's role; there may be none.
func awsKeys(ctx context.Context, s *session) (keys source.AWSKeys, err error) {
	const roles = "/latest/meta-data/iam/security-credentials/"
	at := amazonService()
	text := func(path string) (string, error) {
		b, err := at.get(ctx, s, path)
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return strings.TrimSpace(string(b)), err
	}
	if keys.Region, err = text("/latest/meta-data/placement/region"); err != nil {
		return keys, err
	}
	role, err := text(roles)
	role, _, _ = strings.Cut(role, "\n")
	if err != nil || role == "" {
		return keys, err
	}
	raw, err := at.get(ctx, s, roles+role)
	if err != nil {
		return keys, err
	}
	var v struct{ AccessKeyId, SecretAccessKey, Token string }
	if err := json.Unmarshal(raw, &v); err != nil || v.AccessKeyId == "" || v.SecretAccessKey == "" {
		return keys, errors.New("expected AccessKeyId and SecretAccessKey of the role, found something else")
	}
	keys.AccessKey, keys.SecretKey, keys.Token = v.AccessKeyId, v.SecretAccessKey, v.Token
	return keys, nil
}

// accessToken asks for an OAuth token; a machine without an identity has none.
func accessToken(at service, path string) func(context.Context, *session) (string, error) {
	return func(ctx context.Context, s *session) (string, error) {
		raw, err := at.get(ctx, s, path)
		var refused *source.StatusError
		if errors.Is(err, fs.ErrNotExist) || errors.As(err, &refused) && refused.Code == http.StatusBadRequest {
			return "", nil
		}
		if err != nil {
			return "", err
		}
		token, err := jsonAt("access_token")(nil, raw)
		if err != nil || len(token) == 0 || strings.ContainsAny(token[0], "\r\n") {
			return "", errors.New("expected access_token, found something else")
		}
		return token[0], nil
	}
}
