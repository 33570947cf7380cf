package tang

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Limits of one request. An advertisement of ten keys has 4 KiB.
const (
	maxAnswer  = 256 << 10
	maxHeaders = 16 << 10
	patience   = 10 * time.Second
)

// A StatusError is an answer that is none.
type StatusError struct {
	Status string // the code and the server's words
}

func (e *StatusError) Error() string {
	if strings.HasPrefix(e.Status, "404") {
		return "the server answers " + e.Status + ": it does not have the key, or the URL is not that of a tang server"
	}
	return "the server answers " + e.Status
}

// request is one request of HTTP/1.1 on a connection of its own. net/http would be half of the program.
func request(ctx context.Context, method, address string, body []byte) ([]byte, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, errors.New("parse URL: " + strings.TrimPrefix(err.Error(), "parse "))
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := dial(ctx, u)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return nil, err
		}
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })
	defer stop()
	var head strings.Builder
	fmt.Fprintf(&head, "%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: proa-clevis\r\nAccept: */*\r\nConnection: close\r\n", method, u.RequestURI(), u.Host)
	if u.User != nil {
		password, _ := u.User.Password()
		fmt.Fprintf(&head, "Authorization: Basic %s\r\n", base64.StdEncoding.EncodeToString([]byte(u.User.Username()+":"+password)))
	}
	if body != nil {
		fmt.Fprintf(&head, "Content-Type: application/jwk+json\r\nContent-Length: %d\r\n", len(body))
	}
	if _, err := io.WriteString(conn, head.String()+"\r\n"+string(body)); err != nil {
		return nil, fmt.Errorf("send request: %w", err)
	}
	answer, err := read(conn)
	if err != nil && !errors.As(err, new(*StatusError)) {
		err = fmt.Errorf("read answer: %w", err)
	}
	return answer, err
}

func dial(ctx context.Context, u *url.URL) (net.Conn, error) {
	port := map[string]string{"http": "80", "https": "443"}[u.Scheme]
	if port == "" || u.Hostname() == "" {
		return nil, errors.New("parse URL: expected http://HOST or https://HOST")
	}
	if u.Port() != "" {
		port = u.Port()
	}
	address := net.JoinHostPort(u.Hostname(), port)
	if u.Scheme == "https" {
		return (&tls.Dialer{}).DialContext(ctx, "tcp", address)
	}
	return new(net.Dialer).DialContext(ctx, "tcp", address)
}

// read reads an answer of HTTP/1.1 (RFC 9112).
func read(conn io.Reader) ([]byte, error) {
	r := bufio.NewReader(io.LimitReader(conn, maxAnswer+maxHeaders))
	left := maxHeaders
	h, err := readHead(r, &left)
	for err == nil && h.status[0] == '1' { // informational
		h, err = readHead(r, &left)
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	switch {
	case err != nil:
		return nil, err
	case !strings.HasPrefix(h.status, "200"):
		return nil, &StatusError{printable(h.status)}
	case h.chunked:
		return readChunks(r)
	case h.length >= 0:
		b := make([]byte, h.length)
		_, err := io.ReadFull(r, b)
		return b, err
	}
	return upTo(r)
}

// head is what an answer says of itself.
type head struct {
	status  string // "200 OK"
	length  int    // of the body, -1 if it does not say
	chunked bool
}

func readHead(r *bufio.Reader, left *int) (h head, err error) {
	h.length = -1
	first, err := readLine(r, left)
	if err != nil {
		return h, err
	}
	version, rest, _ := strings.Cut(first, " ")
	h.status = strings.TrimSpace(rest)
	if version != "HTTP/1.1" && version != "HTTP/1.0" || len(h.status) < 3 {
		return h, fmt.Errorf("expected HTTP/1.1 and a status, found %.40q", first)
	}
	for {
		text, err := readLine(r, left)
		if err != nil || text == "" {
			return h, err
		}
		name, value, _ := strings.Cut(text, ":")
		switch value = strings.TrimSpace(value); strings.ToLower(name) {
		case "content-length":
			if h.length, err = strconv.Atoi(value); err != nil || h.length < 0 || h.length > maxAnswer {
				return h, fmt.Errorf("expected an answer of at most %d bytes, found a length of %.40q", maxAnswer, value)
			}
		case "transfer-encoding":
			if h.chunked = strings.EqualFold(value, "chunked"); !h.chunked {
				return h, fmt.Errorf("unknown transfer encoding %.40q", value)
			}
		}
	}
}

// printable keeps a server's words from doing anything to a console.
func printable(s string) string {
	q := strconv.Quote(s[:min(80, len(s))])
	return q[1 : len(q)-1]
}

// upTo reads to the end of the connection.
func upTo(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxAnswer+1))
	if err == nil && len(b) > maxAnswer {
		err = fmt.Errorf("expected an answer of at most %d bytes, found more", maxAnswer)
	}
	return b, err
}

// readLine reads a line of at most *left bytes, and counts them.
func readLine(r *bufio.Reader, left *int) (string, error) {
	var line []byte
	for {
		c, err := r.ReadByte()
		if err != nil {
			return "", err
		}
		if *left--; *left < 0 {
			return "", fmt.Errorf("expected headers of at most %d bytes, found more", maxHeaders)
		}
		if c == '\n' {
			return strings.TrimSuffix(string(line), "\r"), nil
		}
		line = append(line, c)
	}
}

// readChunks reads a body in chunks (RFC 9112, 7.1). What follows the last one does not matter.
func readChunks(r *bufio.Reader) ([]byte, error) {
	var body []byte
	left := maxHeaders
	for {
		text, err := readLine(r, &left)
		if err != nil {
			return nil, err
		}
		number, _, _ := strings.Cut(text, ";")
		size, err := strconv.ParseUint(strings.TrimSpace(number), 16, 32)
		if err != nil || int(size) > maxAnswer-len(body) {
			return nil, fmt.Errorf("expected chunks of %d bytes together, found one of %.20q", maxAnswer, number)
		}
		if size == 0 {
			return body, nil
		}
		chunk := make([]byte, size)
		if _, err := io.ReadFull(r, chunk); err != nil {
			return nil, err
		}
		body = append(body, chunk...)
		if text, err = readLine(r, &left); err != nil || text != "" {
			return nil, errors.Join(errors.New("a chunk does not end where it should"), err)
		}
	}
}
