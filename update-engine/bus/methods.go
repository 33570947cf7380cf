package bus

import (
	"cmp"
	"fmt"
	"math"
	"os"
	"os/user"
	"strconv"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/proa-os/proa/update-engine/state"
)

const introspection = `<node><interface name="io.proa.Update1">
<method name="Check"><arg name="result" type="s" direction="out"/></method>
<method name="Apply"><arg name="reboot" type="b" direction="in"/><arg name="result" type="s" direction="out"/></method>
<method name="Auto"><arg name="result" type="s" direction="out"/></method>
<method name="Rollback"><arg name="version" type="s" direction="in"/><arg name="reason" type="s" direction="in"/><arg name="reboot" type="b" direction="in"/><arg name="result" type="s" direction="out"/></method>
<method name="Resume"><arg name="reason" type="s" direction="in"/><arg name="result" type="s" direction="out"/></method>
<method name="Hold"><arg name="until" type="t" direction="in"/><arg name="reason" type="s" direction="in"/><arg name="result" type="s" direction="out"/></method>
<method name="Unhold"><arg name="reason" type="s" direction="in"/><arg name="result" type="s" direction="out"/></method>
<method name="Pin"><arg name="version" type="s" direction="in"/><arg name="reason" type="s" direction="in"/><arg name="result" type="s" direction="out"/></method>
<method name="Unpin"><arg name="reason" type="s" direction="in"/><arg name="result" type="s" direction="out"/></method>
<method name="ClearQuarantine"><arg name="version" type="s" direction="in"/><arg name="reason" type="s" direction="in"/><arg name="result" type="s" direction="out"/></method>
<method name="Status"><arg name="report" type="s" direction="out"/></method>
<method name="History"><arg name="entries" type="s" direction="out"/></method>
<method name="Metrics"><arg name="text" type="s" direction="out"/></method>
<signal name="Progress"><arg name="stage" type="s"/><arg name="done" type="t"/><arg name="total" type="t"/></signal>
` + introspectProperties + `</interface><interface name="org.freedesktop.DBus.Properties">
<method name="Get"><arg name="interface" type="s" direction="in"/><arg name="property" type="s" direction="in"/><arg name="value" type="v" direction="out"/></method>
<method name="GetAll"><arg name="interface" type="s" direction="in"/><arg name="properties" type="a{sv}" direction="out"/></method>
<method name="Set"><arg name="interface" type="s" direction="in"/><arg name="property" type="s" direction="in"/><arg name="value" type="v" direction="in"/></method>
<signal name="PropertiesChanged"><arg name="interface" type="s"/><arg name="changed" type="a{sv}"/><arg name="invalidated" type="as"/></signal>
</interface><interface name="org.freedesktop.DBus.Introspectable">
<method name="Introspect"><arg name="xml" type="s" direction="out"/></method>
</interface></node>`

// introspectable is org.freedesktop.DBus.Introspectable.
type introspectable struct{}

func (introspectable) Introspect() (string, *dbus.Error) { return introspection, nil }

// methods is what the bus sees; godbus exports every exported method.
type methods struct{ s *Server }

func (m methods) Check(sender dbus.Sender) (string, *dbus.Error) {
	return m.s.act(sender, "Check", "", func(state.Given) (*state.Result, error) { return m.s.engine.Check(m.s.ctx) })
}

func (m methods) Apply(sender dbus.Sender, reboot bool) (string, *dbus.Error) {
	return m.s.act(sender, "Apply", "", func(state.Given) (*state.Result, error) { return m.s.engine.Apply(m.s.ctx, reboot) })
}

func (m methods) Auto(sender dbus.Sender) (string, *dbus.Error) {
	return m.s.act(sender, "Auto", "", func(state.Given) (*state.Result, error) { return m.s.engine.Auto(m.s.ctx) })
}

func (m methods) Rollback(sender dbus.Sender, version, reason string, reboot bool) (string, *dbus.Error) {
	return m.s.act(sender, "Rollback", reason, func(g state.Given) (*state.Result, error) {
		return m.s.engine.Rollback(m.s.ctx, version, g, reboot)
	})
}

func (m methods) Resume(sender dbus.Sender, reason string) (string, *dbus.Error) {
	return m.s.act(sender, "Resume", reason, m.s.engine.Resume)
}

func (m methods) Hold(sender dbus.Sender, until uint64, reason string) (string, *dbus.Error) {
	return m.s.act(sender, "Hold", reason, func(g state.Given) (*state.Result, error) {
		if until == 0 {
			return m.s.engine.Hold(nil, g)
		}
		if until > math.MaxInt32*100 {
			return nil, fmt.Errorf("hold until %d seconds since 1970: that is not a time", until)
		}
		t := time.Unix(int64(until), 0).UTC()
		return m.s.engine.Hold(&t, g)
	})
}

func (m methods) Unhold(sender dbus.Sender, reason string) (string, *dbus.Error) {
	return m.s.act(sender, "Unhold", reason, m.s.engine.Unhold)
}

func (m methods) Pin(sender dbus.Sender, version, reason string) (string, *dbus.Error) {
	return m.s.act(sender, "Pin", reason, func(g state.Given) (*state.Result, error) { return m.s.engine.Pin(version, g) })
}

func (m methods) Unpin(sender dbus.Sender, reason string) (string, *dbus.Error) {
	return m.s.act(sender, "Unpin", reason, m.s.engine.Unpin)
}

func (m methods) ClearQuarantine(sender dbus.Sender, version, reason string) (string, *dbus.Error) {
	return m.s.act(sender, "ClearQuarantine", reason, func(g state.Given) (*state.Result, error) {
		return m.s.engine.ClearQuarantine(version, g)
	})
}

func (m methods) Status() (string, *dbus.Error) {
	return m.s.call(func() (any, error) { return m.s.engine.Status() })
}

func (m methods) History() (string, *dbus.Error) {
	return m.s.call(func() (any, error) { return m.s.engine.History() })
}

func (m methods) Metrics() (string, *dbus.Error) {
	return m.s.call(func() (any, error) { return m.s.engine.Metrics() })
}

// act frames what only root may ask for. The properties may be others behind it.
func (s *Server) act(sender dbus.Sender, method, reason string, work func(state.Given) (*state.Result, error)) (string, *dbus.Error) {
	by, denied := s.rootOnly(sender, method)
	if denied != nil {
		return "", denied
	}
	return s.call(func() (any, error) {
		defer s.Changed()
		return work(state.Given{By: by, Reason: strings.Join(strings.Fields(reason), " ")})
	})
}

// rootOnly asks the bus who the sender is, and names the person behind it.
func (s *Server) rootOnly(sender dbus.Sender, method string) (by string, denied *dbus.Error) {
	var uid, pid uint32
	err := s.conn.BusObject().Call("org.freedesktop.DBus.GetConnectionUnixUser", 0, string(sender)).Store(&uid)
	if err != nil || uid != 0 {
		return "", dbus.NewError(errDenied, []any{fmt.Sprintf("%s is for root only", method)})
	}
	if s.conn.BusObject().Call("org.freedesktop.DBus.GetConnectionUnixProcessID", 0, string(sender)).Store(&pid) != nil {
		return "root", nil
	}
	return cmp.Or(login("/proc/"+strconv.Itoa(int(pid))+"/loginuid"), "root"), nil
}

// login is the account that logged in and has become root since; empty if nobody has, as in a service.
func login(loginuid string) string {
	b, err := os.ReadFile(loginuid)
	uid, numErr := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 32)
	if err != nil || numErr != nil || uid == math.MaxUint32 {
		return ""
	}
	if u, err := user.LookupId(strconv.FormatUint(uid, 10)); err == nil {
		return u.Username
	}
	return fmt.Sprintf("user %d", uid)
}
