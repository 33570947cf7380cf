package platform

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/proa-os/proa/ignition/source"
)

// phoneHome tells the timeline of Equinix Metal how a stage has ended.
func phoneHome(at service) func(context.Context, *session, string, error) error {
	return func(ctx context.Context, s *session, stage string, failure error) error {
		raw, err := at.get(ctx, s, "/metadata")
		if err != nil {
			return err
		}
		urls, err := jsonAt("phone_home_url")(nil, raw)
		if err != nil || len(urls) == 0 {
			return errors.New("report to the platform: expected phone_home_url in its metadata, found none")
		}
		message := map[string]string{"state": "running", "message": "[" + stage + "] Ignition status: finished successfully"}
		if failure != nil {
			message = map[string]string{"state": "failed", "message": "[" + stage + "] Ignition error: " + failure.Error()}
		}
		body, err := json.Marshal(message)
		if err != nil {
			return err
		}
		url := strings.TrimSuffix(urls[0], "/phone-home") + "/events"
		status, _, err := s.request(ctx, false, http.MethodPost, url, []string{"Content-Type: application/json"}, body)
		if err == nil && status >= 300 {
			err = &source.StatusError{Code: status}
		}
		if err != nil {
			return fmt.Errorf("report to the platform: %w", err)
		}
		return nil
	}
}
