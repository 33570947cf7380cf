package vm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
)

// QMP is a client of the QEMU Machine Protocol (qemu/docs/interop/qmp-spec): commands one at a time or at once,
// answers by id, events to a callback. It knows no schema; names and arguments are in QEMU's QMP reference.
type QMP struct {
	conn io.ReadWriteCloser
	out  sync.Mutex // one command on the wire at a time

	mu      sync.Mutex
	last    int
	waiting map[int]chan answer
	err     error // set when no more answers will come
}

// An Event is an asynchronous message of QEMU.
type Event struct {
	Name string          `json:"event"`
	Data json.RawMessage `json:"data"`
}

type answer struct {
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	} `json:"error"`
}

type message struct {
	Greeting json.RawMessage `json:"QMP"`
	ID       *int            `json:"id"`
	Event
	answer
}

// errQMPClosed is what commands return once QEMU has hung up.
var errQMPClosed = errors.New("QEMU has closed its monitor")

// NewQMP greets QEMU on conn, which it owns from then on. Every event goes to onEvent, from one goroutine, in
// order; onEvent may not wait for a command's answer.
func NewQMP(ctx context.Context, conn io.ReadWriteCloser, onEvent func(Event)) (*QMP, error) {
	q := &QMP{conn: conn, waiting: map[int]chan answer{}}
	dec := json.NewDecoder(conn)
	greeted := make(chan error, 1)
	go func() {
		var m message
		err := dec.Decode(&m)
		if err == nil && m.Greeting == nil {
			err = errors.New("the first message is not a greeting")
		}
		greeted <- err
		if err == nil {
			q.read(dec, onEvent)
		}
	}()
	select {
	case err := <-greeted:
		if err != nil {
			conn.Close()
			return nil, fmt.Errorf("greet QEMU: %w", err)
		}
	case <-ctx.Done():
		conn.Close()
		return nil, fmt.Errorf("greet QEMU: %w", context.Cause(ctx))
	}
	if err := q.Execute(ctx, "qmp_capabilities", nil, nil); err != nil {
		conn.Close()
		return nil, err
	}
	return q, nil
}

func (q *QMP) read(dec *json.Decoder, onEvent func(Event)) {
	var err error
	for {
		var m message
		if err = dec.Decode(&m); err != nil {
			break
		}
		switch {
		case m.Event.Name != "":
			onEvent(m.Event)
		case m.ID != nil:
			q.mu.Lock()
			ch := q.waiting[*m.ID]
			delete(q.waiting, *m.ID)
			q.mu.Unlock()
			if ch != nil {
				ch <- m.answer
			}
		}
	}
	if errors.Is(err, io.EOF) {
		err = errQMPClosed
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.err = err
	for id, ch := range q.waiting {
		delete(q.waiting, id)
		close(ch)
	}
}

// Execute runs a command. args is marshalled to its arguments object, result is unmarshalled from what it returns;
// both may be nil.
func (q *QMP) Execute(ctx context.Context, command string, args, result any) error {
	ch, id, err := q.register()
	if err == nil {
		err = q.send(command, id, args)
	}
	if err != nil {
		return fmt.Errorf("execute %s: %w", command, err)
	}
	select {
	case <-ctx.Done():
		q.mu.Lock()
		delete(q.waiting, id)
		q.mu.Unlock()
		return fmt.Errorf("execute %s: %w", command, context.Cause(ctx))
	case a, ok := <-ch:
		switch {
		case !ok:
			return fmt.Errorf("execute %s: %w", command, q.lost())
		case a.Error != nil:
			return fmt.Errorf("execute %s: QEMU says %s: %s", command, a.Error.Class, a.Error.Desc)
		case result == nil:
			return nil
		}
		if err := json.Unmarshal(a.Return, result); err != nil {
			return fmt.Errorf("execute %s: read %.200q: %w", command, a.Return, err)
		}
		return nil
	}
}

func (q *QMP) register() (chan answer, int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err != nil {
		return nil, 0, q.err
	}
	q.last++
	ch := make(chan answer, 1)
	q.waiting[q.last] = ch
	return ch, q.last, nil
}

func (q *QMP) send(command string, id int, args any) error {
	b, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
		ID        int    `json:"id"`
	}{command, args, id})
	if err != nil {
		return err
	}
	q.out.Lock()
	defer q.out.Unlock()
	_, err = q.conn.Write(append(b, '\n'))
	return err
}

func (q *QMP) lost() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.err
}

// Close hangs up; commands that wait for an answer return with an error.
func (q *QMP) Close() error { return q.conn.Close() }
