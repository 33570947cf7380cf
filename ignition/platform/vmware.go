package platform

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Registers are what a call of VMware's backdoor takes and gives back (open-vm-tools: lib/include/backdoor_def.h, guest_msg_def.h).
type Registers struct{ AX, BX, CX, DX, SI, DI uint32 }

const (
	backdoorMagic   = 0x564d5868
	backdoorPort    = 0x5658
	backdoorMessage = 0x1e
	rpci            = 0x49435052 | 0x80000000 // the channel's protocol, with cookies

	messageOpen, messageSendSize, messageSend, messageReceiveSize = 0, 1, 2, 3
	messageReceive, messageReceiveStatus, messageClose            = 4, 5, 6

	statusSuccess, statusReceive = 1, 2
)

const (
	guestConfig   = "guestinfo.ignition.config.data"
	guestEncoding = "guestinfo.ignition.config.data.encoding"
	guestOVF      = "guestinfo.ovfenv"
)

// vmwareConfig reads guestinfo, then the properties of the OVF environment.
func vmwareConfig(_ context.Context, s *session) ([]byte, error) {
	var environment map[string]string
	get := func(name string) (string, error) {
		v, err := s.guestInfo(name)
		if err != nil || v != "" {
			return v, err
		}
		if environment == nil {
			text, err := s.guestInfo(guestOVF)
			if err != nil {
				return "", err
			}
			environment = ovfProperties(text)
		}
		return environment[name], nil
	}
	data, err := get(guestConfig)
	if err != nil {
		return nil, err
	}
	if data == "" {
		return nil, fs.ErrNotExist
	}
	encoding, err := get(guestEncoding)
	if err != nil {
		return nil, err
	}
	switch encoding {
	case "", "gz", "gzip": // gzip is recognised
		return []byte(data), nil
	case "b64", "base64", "gz+b64", "gz+base64", "gzip+b64", "gzip+base64":
		return fromBase64([]byte(data))
	}
	return nil, fmt.Errorf("read %s: expected base64, gzip+base64 or nothing, found %.20q", guestEncoding, encoding)
}

// removeVMware overwrites the config: guestinfo cannot be emptied.
func removeVMware(_ context.Context, s *session) error {
	if v, err := s.guestInfo(guestConfig); err != nil || v == "" {
		return err
	}
	for _, set := range []string{guestConfig + " e30K", guestEncoding + " base64"} { // {}
		answer, err := s.rpc("info-set " + set)
		if err != nil {
			return err
		}
		if !strings.HasPrefix(answer, "1") {
			return fmt.Errorf("overwrite %s: the hypervisor refuses", guestConfig)
		}
	}
	return nil
}

// ovfProperties are the properties of an OVF environment (DSP0243, section 11): of each Property element the attributes key and value.
// Nothing else of the document matters, and a whole XML decoder would be a hundredth of this program.
func ovfProperties(text string) map[string]string {
	comment := regexp.MustCompile(`(?s)<!--.*?-->`)
	property := regexp.MustCompile(`<(?:[\w.-]+:)?Property\s((?:[^>"']|"[^"]*"|'[^']*')*)>`)
	attribute := regexp.MustCompile(`(?:^|\s)(?:[\w.-]+:)?(key|value)\s*=\s*(?:"([^"]*)"|'([^']*)')`)
	m := map[string]string{}
	for _, element := range property.FindAllStringSubmatch(comment.ReplaceAllString(text, ""), -1) {
		var key, value string
		for _, a := range attribute.FindAllStringSubmatch(element[1], -1) {
			if text := unescapeXML(a[2] + a[3]); a[1] == "key" {
				key = text
			} else {
				value = text
			}
		}
		m[key] = value
	}
	return m
}

// unescapeXML replaces references to characters (XML 1.0, sections 4.1 and 4.6).
func unescapeXML(s string) string {
	return regexp.MustCompile(`&(?:lt|gt|amp|quot|apos|#[0-9]+|#x[0-9a-fA-F]+);`).ReplaceAllStringFunc(s, func(ref string) string {
		switch name := ref[1 : len(ref)-1]; name {
		case "lt":
			return "<"
		case "gt":
			return ">"
		case "amp":
			return "&"
		case "quot":
			return `"`
		case "apos":
			return "'"
		default:
			n, err := strconv.ParseUint("0"+name[1:], 0, 32)
			if name[1] != 'x' {
				n, err = strconv.ParseUint(name[1:], 10, 32)
			}
			if err != nil || !utf8.ValidRune(rune(n)) {
				return ref
			}
			return string(rune(n))
		}
	})
}

// guestInfo returns a property; empty if there is none.
func (s *session) guestInfo(name string) (string, error) {
	answer, err := s.rpc("info-get " + name)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", name, err)
	}
	value, ok := strings.CutPrefix(answer, "1 ")
	if !ok { // "0 No value found"
		return "", nil
	}
	return value, nil
}

// rpc asks the hypervisor by a channel of its own.
func (s *session) rpc(request string) (string, error) {
	call := s.Guest.Backdoor
	if call == nil {
		vendor, err := s.Sys.ReadFile("class/dmi/id/sys_vendor")
		if err != nil || !strings.HasPrefix(string(vendor), "VMware") { // elsewhere the port kills the process
			return "", errors.New("find the hypervisor: expected VMware in /sys/class/dmi/id/sys_vendor, found something else")
		}
		call = backdoor
	}
	c := channel{call: call}
	if err := c.open(); err != nil {
		return "", err
	}
	answer, err := c.ask(request)
	if cerr := c.message(&Registers{}, messageClose); err == nil {
		err = cerr
	}
	return answer, err
}

// channel is an open conversation: its number and its two cookies.
type channel struct {
	call      func(*Registers) error
	id        uint32
	high, low uint32
}

// message makes one call; the status is in the upper half of CX.
func (c *channel) message(r *Registers, kind uint32) error {
	r.AX, r.CX, r.DX, r.SI, r.DI = backdoorMagic, kind<<16|backdoorMessage, c.id<<16|backdoorPort, c.high, c.low
	if err := c.call(r); err != nil {
		return err
	}
	if r.CX>>16&statusSuccess == 0 {
		return fmt.Errorf("talk to the hypervisor: it refuses message %d with status %#x", kind, r.CX>>16)
	}
	return nil
}

func (c *channel) open() error {
	r := Registers{BX: rpci}
	if err := c.message(&r, messageOpen); err != nil {
		return err
	}
	c.id, c.high, c.low = r.DX>>16, r.SI, r.DI
	return nil
}

func (c *channel) ask(request string) (string, error) {
	if err := c.message(&Registers{BX: uint32(len(request))}, messageSendSize); err != nil {
		return "", err
	}
	for at := 0; at < len(request); at += 4 {
		var word [4]byte
		copy(word[:], request[at:])
		if err := c.message(&Registers{BX: binary.LittleEndian.Uint32(word[:])}, messageSend); err != nil {
			return "", err
		}
	}
	r := Registers{}
	if err := c.message(&r, messageReceiveSize); err != nil {
		return "", err
	}
	if r.CX>>16&statusReceive == 0 || r.DX>>16 != messageSendSize {
		return "", errors.New("talk to the hypervisor: expected an answer, found none")
	}
	size := int(r.BX)
	if size > 64<<20 {
		return "", &tooLarge{}
	}
	answer := make([]byte, 0, size+4)
	for len(answer) < size {
		r = Registers{BX: statusSuccess}
		if err := c.message(&r, messageReceive); err != nil {
			return "", err
		}
		if r.DX>>16 != messageSend {
			return "", errors.New("talk to the hypervisor: expected a part of the answer, found something else")
		}
		answer = binary.LittleEndian.AppendUint32(answer, r.BX)
	}
	return string(answer[:size]), c.message(&Registers{BX: statusSuccess}, messageReceiveStatus)
}
