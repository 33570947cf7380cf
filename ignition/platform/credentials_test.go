package platform

import (
	"testing"

	"github.com/proa-os/proa/ignition/source"
)

// What reads objects gets the machine's role and tokens from its platform, once; without any, objects are read as anybody may.
func TestCredentials(t *testing.T) {
	const imds, role = "169.254.169.254", "/latest/meta-data/iam/security-credentials/"
	ec2 := []string{"X-aws-ec2-metadata-token: t0ken"}
	aws := map[string]answer{"PUT /latest/api/token": {body: "t0ken"}, "GET /latest/meta-data/placement/region": {need: ec2, body: "eu-west-1"},
		"GET " + role: {need: ec2, body: "web\n"}, "GET " + role + "web": {need: ec2, body: `{"Code":"Success","AccessKeyId":"AK","SecretAccessKey":"s","Token":"t"}`}}
	t.Run("aws", func(t *testing.T) {
		t.Parallel()
		c := &cloud{host: imds, answers: aws}
		m, _ := serve(t, c)
		f := lookup(t, "aws").Credentials(m, source.Fetcher{})
		for range 2 {
			keys, err := f.AWS(t.Context())
			if want := (source.AWSKeys{AccessKey: "AK", SecretKey: "s", Token: "t", Region: "eu-west-1"}); err != nil || keys != want {
				t.Errorf("got %+v, %v", keys, err)
			}
		}
		if n := c.asked["GET "+role+"web"]; n != 2 { // one failure, one answer
			t.Errorf("asked %d times", n)
		}
	})
	t.Run("aws without a role", func(t *testing.T) {
		t.Parallel()
		m, _ := serve(t, &cloud{host: imds, answers: map[string]answer{"GET /latest/meta-data/placement/region": {body: "eu-west-1"}}})
		if keys, err := lookup(t, "aws").Credentials(m, source.Fetcher{}).AWS(t.Context()); err != nil || keys != (source.AWSKeys{Region: "eu-west-1"}) {
			t.Errorf("got %+v, %v", keys, err)
		}
	})
	t.Run("gcp", func(t *testing.T) {
		t.Parallel()
		m, _ := serve(t, &cloud{host: imds, answers: map[string]answer{
			"GET /computeMetadata/v1/instance/service-accounts/default/token": {need: []string{"Metadata-Flavor: Google"}, body: `{"access_token":"t0ken","expires_in":3599}`}}})
		if token, err := lookup(t, "gcp").Credentials(m, source.Fetcher{}).Google(t.Context()); err != nil || token != "t0ken" {
			t.Errorf("got %q, %v", token, err)
		}
	})
	t.Run("azure without an identity", func(t *testing.T) {
		t.Parallel()
		m, _ := serve(t, &cloud{host: imds, answers: map[string]answer{
			"GET /metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fstorage.azure.com%2F": {need: []string{"Metadata: true"}, status: 400}}})
		if token, err := lookup(t, "azure").Credentials(m, source.Fetcher{}).Azure(t.Context()); err != nil || token != "" {
			t.Errorf("got %q, %v", token, err)
		}
	})
}
