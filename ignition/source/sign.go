package source

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// nothing is the SHA-256 of an empty body.
const nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// sign adds the headers of AWS Signature Version 4 for a GET of u: all headers that are there are signed.
func sign(headers http.Header, u *url.URL, keys AWSKeys, region string, now time.Time) {
	date := now.UTC().Format("20060102T150405Z")
	headers.Set("X-Amz-Date", date)
	headers.Set("X-Amz-Content-Sha256", nothing)
	if keys.Token != "" {
		headers.Set("X-Amz-Security-Token", keys.Token)
	}
	lines := map[string]string{"host": u.Host}
	names := []string{"host"}
	for name := range headers {
		lower := strings.ToLower(name)
		lines[lower] = strings.Join(strings.Fields(headers.Get(name)), " ")
		names = append(names, lower)
	}
	slices.Sort(names)
	var canonical strings.Builder
	fmt.Fprintf(&canonical, "GET\n%s\n%s\n", escapePath(u.Path), canonicalQuery(u.Query()))
	for _, n := range names {
		fmt.Fprintf(&canonical, "%s:%s\n", n, lines[n])
	}
	signed := strings.Join(names, ";")
	fmt.Fprintf(&canonical, "\n%s\n%s", signed, nothing)

	scope := strings.Join([]string{date[:8], region, "s3", "aws4_request"}, "/")
	sum := sha256.Sum256([]byte(canonical.String()))
	toSign := strings.Join([]string{"AWS4-HMAC-SHA256", date, scope, hex.EncodeToString(sum[:])}, "\n")
	key := []byte("AWS4" + keys.SecretKey)
	for part := range strings.SplitSeq(scope, "/") {
		key = mac(key, part)
	}
	headers.Set("Authorization", fmt.Sprintf("AWS4-HMAC-SHA256 Credential=%s/%s,SignedHeaders=%s,Signature=%s",
		keys.AccessKey, scope, signed, hex.EncodeToString(mac(key, toSign))))
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

func canonicalQuery(q url.Values) string {
	var all []string
	for name, values := range q {
		for _, v := range values {
			all = append(all, escape(name)+"="+escape(v))
		}
	}
	slices.Sort(all)
	return strings.Join(all, "&")
}

// escape is the percent encoding of the signature: everything but A-Z a-z 0-9 - . _ ~.
func escape(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~", c) >= 0 {
			b.WriteByte(c)
			continue
		}
		fmt.Fprintf(&b, "%%%02X", c)
	}
	return b.String()
}

func escapePath(p string) string {
	parts := strings.Split(p, "/")
	for i := range parts {
		parts[i] = escape(parts[i])
	}
	return strings.Join(parts, "/")
}
