package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/coreos/ignition/v2/config/v3_6/types"

	"github.com/proa-os/proa/ignition/retry"
)

// AWSKeys are the temporary keys of a machine's role. Without AccessKey requests are not signed.
type AWSKeys struct {
	AccessKey, SecretKey, Token string
	Region                      string // of the machine
}

// object is where something is in S3.
type object struct {
	bucket, key, version string
	account              string // of an access point, whose name bucket is then
	region, partition    string
}

// s3 opens objects: s3://bucket/key and ARNs of objects and access points (Ignition spec 3.4.0), each with ?versionId=.
func (f *Fetcher) s3(u *url.URL) (opener, error) {
	o := object{bucket: u.Host, key: strings.TrimLeft(u.Path, "/"), version: u.Query().Get("versionId")}
	if u.Scheme == "arn" {
		var ok bool
		if o, ok = parseARN(u); !ok {
			return nil, errors.New("expected arn:PARTITION:s3:::BUCKET/KEY or arn:PARTITION:s3:REGION:ACCOUNT:accesspoint/NAME/object/KEY")
		}
	}
	return func(ctx context.Context) (io.ReadCloser, error) {
		var keys AWSKeys
		if f.AWS != nil {
			var err error
			if keys, err = f.AWS(ctx); err != nil {
				return nil, fmt.Errorf("get the machine's role: %w", err)
			}
		}
		region, err := f.region(ctx, o, keys)
		if err != nil {
			return nil, err
		}
		headers := http.Header{}
		address := o.url(region)
		if keys.AccessKey != "" {
			sign(headers, address, keys, region, time.Now())
		}
		return f.get(ctx, address.String(), headers)
	}, nil
}

// parseARN reads the URL arn:partition:s3:region:account:resource.
func parseARN(u *url.URL) (o object, ok bool) {
	parts := strings.SplitN(u.Opaque, ":", 5)
	if len(parts) != 5 || parts[1] != "s3" {
		return o, false
	}
	o = object{partition: parts[0], version: u.Query().Get("versionId")}
	resource, err := url.PathUnescape(parts[4])
	if err != nil {
		return o, false
	}
	if point, ok := strings.CutPrefix(resource, "accesspoint/"); ok {
		var rest string
		o.region, o.account = parts[2], parts[3]
		o.bucket, rest, _ = strings.Cut(point, "/")
		o.key, ok = strings.CutPrefix(rest, "object/")
		return o, ok && o.key != "" && o.region != "" && o.account != ""
	}
	o.bucket, o.key, ok = strings.Cut(resource, "/")
	return o, ok && o.bucket != "" && o.key != ""
}

// amazon is the domain of a region.
func amazon(region string) string {
	if strings.HasPrefix(region, "cn-") {
		return region + ".amazonaws.com.cn"
	}
	return region + ".amazonaws.com"
}

func (o object) url(region string) *url.URL {
	u := &url.URL{Scheme: "https"}
	switch {
	case o.account != "":
		u.Host, u.Path = o.bucket+"-"+o.account+".s3-accesspoint.dualstack."+amazon(region), "/"+o.key
	case strings.Contains(o.bucket, "."): // the certificate is for one label
		u.Host, u.Path = "s3.dualstack."+amazon(region), "/"+o.bucket+"/"+o.key
	default:
		u.Host, u.Path = o.bucket+".s3.dualstack."+amazon(region), "/"+o.key
	}
	u.RawPath = escapePath(u.Path)
	if o.version != "" {
		u.RawQuery = "versionId=" + escape(o.version)
	}
	return u
}

// region returns where a bucket is. Any region of its partition tells, in a header, whether or not the question is allowed.
func (f *Fetcher) region(ctx context.Context, o object, keys AWSKeys) (string, error) {
	if o.region != "" {
		return o.region, nil
	}
	hint := map[string]string{"aws": "us-east-1", "aws-cn": "cn-north-1", "aws-us-gov": "us-gov-west-1"}[o.partition]
	if hint == "" {
		hint = keys.Region
	}
	if hint == "" {
		hint = "us-east-1"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, "https://s3."+amazon(hint)+"/"+o.bucket, nil)
	if err != nil {
		return "", errors.New("expected a bucket's name")
	}
	client := *f.client
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	resp, err := client.Do(req)
	if err != nil {
		return "", retry.Temporary(fmt.Errorf("find the bucket's region: %w", WithoutURL(err)))
	}
	defer resp.Body.Close()
	region := resp.Header.Get("X-Amz-Bucket-Region")
	switch {
	case region != "" && !strings.ContainsAny(region, "./:@ "):
		return region, nil
	case resp.StatusCode == http.StatusNotFound:
		return "", errors.New("find the bucket's region: no such bucket")
	case resp.StatusCode >= 500:
		return "", retry.Temporary(fmt.Errorf("find the bucket's region: %w", &StatusError{Code: resp.StatusCode}))
	}
	return "", fmt.Errorf("find the bucket's region: expected it in a header, found status %d without it", resp.StatusCode)
}

// bucket opens gs://bucket/object.
func (f *Fetcher) bucket(u *url.URL) opener {
	address := &url.URL{Scheme: "https", Host: "storage.googleapis.com", Path: "/" + u.Host + u.Path}
	return func(ctx context.Context) (io.ReadCloser, error) {
		return f.bearer(ctx, address.String(), http.Header{}, f.Google)
	}
}

// blob opens an object of Azure's storage; one that is public needs no token.
func (f *Fetcher) blob(u *url.URL, r types.Resource) opener {
	return func(ctx context.Context) (io.ReadCloser, error) {
		headers := configHeaders(r)
		headers.Set("X-Ms-Version", "2021-08-06")
		return f.bearer(ctx, u.String(), headers, f.Azure)
	}
}

// bearer opens a URL with an access token, if the machine has one.
func (f *Fetcher) bearer(ctx context.Context, address string, headers http.Header, token func(context.Context) (string, error)) (io.ReadCloser, error) {
	if token != nil && headers.Get("Authorization") == "" {
		secret, err := token(ctx)
		if err != nil {
			return nil, fmt.Errorf("get the machine's access token: %w", err)
		}
		if secret != "" {
			headers.Set("Authorization", "Bearer "+secret)
		}
	}
	return f.get(ctx, address, headers)
}
