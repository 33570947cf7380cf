package platform

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"
)

// KVPChannel is /dev/vmbus/hv_kvp: messages of the host's key-value pairs (kernel: include/uapi/linux/hyperv.h).
//
//	offset  size  what
//	     0     1  operation; in an answer, 0 to 3 are an error
//	     1     1  pool
//	     4     4  type of the value: 1 is text
//	     8     4  size of the key, with its NUL
//	    12     4  size of the value, with its NUL
//	    16   512  key
//	   528  2048  value
//	  2576        padding up to 7432
type KVPChannel interface {
	io.ReadWriteCloser
	SetReadDeadline(time.Time) error
}

const (
	kvpMessage  = 7432
	kvpSet      = 1
	kvpRegister = 100        // KVP_OP_REGISTER1
	kvpContinue = 0x80070103 // HV_S_CONT: that is all
	kvpFirst    = 10 * time.Second
	kvpQuiet    = time.Second // after that, the host has sent everything
)

// hypervConfig registers for key-value pairs, takes those that the host sends, and joins ignition.config.0, .1 ..., as a value is
// at most 2 KiB. hv_kvp_daemon, which would take them otherwise, is not in the image.
func hypervConfig(ctx context.Context, s *session) ([]byte, error) {
	open := s.Guest.KVP
	if open == nil {
		if err := s.Load(ctx, "hv_utils"); err != nil {
			return nil, err
		}
		open = func() (KVPChannel, error) {
			return os.OpenFile("/dev/vmbus/hv_kvp", os.O_RDWR, 0)
		}
	}
	c, err := open()
	if err != nil {
		return nil, fmt.Errorf("open Hyper-V's key-value pairs: %w; is this machine Hyper-V?", err)
	}
	defer c.Close()
	pairs, err := readPairs(c)
	if err != nil {
		return nil, fmt.Errorf("read Hyper-V's key-value pairs: %w", err)
	}
	if v := pairs["ignition.config"]; v != "" {
		return []byte(v), nil
	}
	var all strings.Builder
	for n := 0; ; n++ {
		v, ok := pairs["ignition.config."+strconv.Itoa(n)]
		if !ok {
			break
		}
		all.WriteString(v)
	}
	if all.Len() == 0 {
		return nil, fs.ErrNotExist
	}
	return []byte(all.String()), nil
}

// readPairs returns pool 0, the one that administrators of the host write to.
func readPairs(c KVPChannel) (map[string]string, error) {
	message := make([]byte, kvpMessage)
	message[0] = kvpRegister
	if _, err := c.Write(message); err != nil {
		return nil, err
	}
	pairs := map[string]string{}
	for wait := kvpFirst; ; wait = kvpQuiet {
		if err := c.SetReadDeadline(time.Now().Add(wait)); err != nil {
			return nil, err
		}
		n, err := io.ReadAtLeast(c, message, kvpMessage)
		if errors.Is(err, os.ErrDeadlineExceeded) && n == 0 {
			return pairs, nil
		}
		if err != nil {
			return nil, err
		}
		answer := uint32(0)
		switch message[0] {
		case kvpRegister: // the kernel's own answer wants none
			continue
		case kvpSet:
			if key, value, ok := pair(message); ok && message[1] == 0 {
				pairs[key] = value
			}
		default:
			answer = kvpContinue
		}
		binary.LittleEndian.PutUint32(message, answer)
		if _, err := c.Write(message); err != nil {
			return nil, err
		}
	}
}

func pair(message []byte) (key, value string, ok bool) {
	keySize, valueSize := binary.LittleEndian.Uint32(message[8:]), binary.LittleEndian.Uint32(message[12:])
	if binary.LittleEndian.Uint32(message[4:]) != 1 || keySize > 512 || valueSize > 2048 {
		return "", "", false
	}
	return strings.TrimRight(string(message[16:16+keySize]), "\x00"), strings.TrimRight(string(message[528:528+valueSize]), "\x00"), true
}
