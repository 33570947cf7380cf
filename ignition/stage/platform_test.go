package stage

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/proa-os/proa/internal/certtest"
)

// certificate is one for name, and what trusts it.
func certificate(t *testing.T, name string) (*tls.Config, *x509.CertPool) {
	t.Helper()
	ca, pair, err := certtest.Server(name)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}}, certtest.Pool(ca)
}

// A platform that wants to know hears of each stage, one by one, also of those that were run together.
func TestReport(t *testing.T) {
	var told []string
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			b, _ := io.ReadAll(r.Body)
			told = append(told, string(b))
			return
		}
		io.WriteString(w, `{"phone_home_url":"https://metadata.packet.net/phone-home"}`)
	}))
	m, o, _ := machine(t, file("/etc/a", "x"))
	server.TLS, m.Roots = certificate(t, "metadata.packet.net")
	server.StartTLS()
	defer server.Close()
	m.Route = func(string) string { return strings.TrimPrefix(server.URL, "https://") }
	o.Stage = "fetch"
	if err := Run(t.Context(), m, o); err != nil { // from qemu, which does not want to know
		t.Fatal(err)
	}
	o.Platform, o.Stage = "packet", "files,nothing"
	if err := Run(t.Context(), m, o); err == nil {
		t.Error("a stage that does not exist succeeds")
	}
	if len(told) != 2 || !strings.Contains(told[0], "[files] Ignition status: finished successfully") || !strings.Contains(told[1], `"state":"failed"`) || !strings.Contains(told[1], "[nothing] Ignition error") {
		t.Errorf("told %q", told)
	}
}

// User data is deleted, unless the config masks upstream's unit that does it; that it cannot be is a warning.
func TestForget(t *testing.T) {
	m, o, dir := machine(t, "")
	var log bytes.Buffer
	o.Log, o.Platform = slog.New(slog.NewTextHandler(&log, nil)), "vmware" // no backdoor here
	Forget(t.Context(), m, o)
	if !strings.Contains(log.String(), "the platform keeps the config of this machine") {
		t.Errorf("log: %s", &log)
	}
	log.Reset()
	if err := os.MkdirAll(dir+"/root/etc/systemd/system", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/null", dir+"/root/etc/systemd/system/ignition-delete-config.service"); err != nil {
		t.Fatal(err)
	}
	Forget(t.Context(), m, o)
	o.Platform = "qemu" // has no way to
	Forget(t.Context(), m, o)
	if log.Len() > 0 {
		t.Errorf("masked, and says %s", &log)
	}
}
