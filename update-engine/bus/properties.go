package bus

import (
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/proa-os/proa/update-engine/state"
)

// introspectProperties declares the properties, all of them read-only:
//
//	State                    the phase: idle, checking, downloading, writing, armed, rebooting, trying, good, failed
//	Progress                 stage, bytes done, bytes in all (0: unknown); an empty stage while nothing works
//	RunningVersion, RunningRootHash, Trying      what runs, and whether this boot decides about it
//	TargetVersion            what is installed, armed or tried; empty if nothing is
//	Why                      in one line: why this machine is or is not updated
//	Channel, Server          as configured
//	LastCheck, LastCheckError        seconds since 1970, 0 for never; empty if it went well
//	Held, PinnedVersion, RolledBackFrom          what people have ordered
//	Quarantined              versions that failed and are not taken again
const introspectProperties = `<property name="State" type="s" access="read"/>
<property name="Progress" type="(stt)" access="read"/>
<property name="RunningVersion" type="s" access="read"/>
<property name="RunningRootHash" type="s" access="read"/>
<property name="Trying" type="b" access="read"/>
<property name="TargetVersion" type="s" access="read"/>
<property name="Why" type="s" access="read"/>
<property name="Channel" type="s" access="read"/>
<property name="Server" type="s" access="read"/>
<property name="LastCheck" type="t" access="read"/>
<property name="LastCheckError" type="s" access="read"/>
<property name="Held" type="b" access="read"/>
<property name="PinnedVersion" type="s" access="read"/>
<property name="RolledBackFrom" type="s" access="read"/>
<property name="Quarantined" type="as" access="read"/>
`

// progress is the value of the property Progress.
type progress struct {
	Stage       string
	Done, Total uint64
}

func progressValue(p *state.Progress) progress {
	if p == nil {
		return progress{}
	}
	return progress{p.Stage, uint64(max(p.Done, 0)), uint64(max(p.Total, 0))}
}

// properties are those of a report.
func properties(r *state.Report) map[string]dbus.Variant {
	var target, checkError, pinned, from string
	var lastCheck uint64
	if r.State.Target != nil {
		target = r.State.Target.Version
	}
	if c := r.State.Check; c != nil {
		lastCheck, checkError = uint64(max(c.Time.Unix(), 0)), c.Error
	}
	if r.Orders.Pin != nil {
		pinned = r.Orders.Pin.Version
	}
	if r.Orders.Back != nil {
		from = r.Orders.Back.From.Version
	}
	phase := r.State.Phase
	if phase == "" {
		phase = state.Idle
	}
	quarantined := []string{}
	for _, q := range r.Quarantine {
		quarantined = append(quarantined, q.Version)
	}
	values := map[string]any{
		"State": string(phase), "Progress": progressValue(r.Progress), "RunningVersion": r.Running.Version, "RunningRootHash": r.Running.Root.String(),
		"Trying": r.Boot.Trying, "TargetVersion": target, "Why": r.Why, "Channel": r.Channel, "Server": r.Server, "LastCheck": lastCheck,
		"LastCheckError": checkError, "Held": r.Orders.Held(time.Now()), "PinnedVersion": pinned, "RolledBackFrom": from, "Quarantined": quarantined,
	}
	all := map[string]dbus.Variant{}
	for name, v := range values {
		all[name] = dbus.MakeVariant(v)
	}
	return all
}

// Changed tells listeners which properties are others than when they were told last.
func (s *Server) Changed() {
	r, err := s.engine.Status()
	if err != nil {
		return // whoever asks is told
	}
	s.tell(properties(r))
}

func (s *Server) tell(now map[string]dbus.Variant) {
	s.known.Lock()
	defer s.known.Unlock()
	first := s.told == nil
	if first {
		s.told = map[string]dbus.Variant{}
	}
	changed := map[string]dbus.Variant{}
	for name, v := range now {
		if !reflect.DeepEqual(s.told[name].Value(), v.Value()) {
			changed[name] = v
		}
	}
	maps.Copy(s.told, changed)
	if !first && len(changed) > 0 {
		_ = s.conn.Emit(Path, propertiesInterface+".PropertiesChanged", Interface, changed, []string{}) // nobody has to listen
	}
}

// getters is org.freedesktop.DBus.Properties. Values are read when they are asked for.
type getters struct{ s *Server }

func (g getters) all(iface string) (map[string]dbus.Variant, *dbus.Error) {
	if iface != Interface && iface != "" {
		return nil, dbus.NewError("org.freedesktop.DBus.Error.UnknownInterface", []any{"no interface " + iface + " here"})
	}
	g.s.begin()
	defer g.s.end()
	r, err := g.s.engine.Status()
	if err != nil {
		return nil, failure(err)
	}
	return properties(r), nil
}

func (g getters) Get(iface, name string) (dbus.Variant, *dbus.Error) {
	all, err := g.all(iface)
	if err != nil {
		return dbus.Variant{}, err
	}
	v, ok := all[name]
	if !ok {
		return v, dbus.NewError("org.freedesktop.DBus.Error.UnknownProperty", []any{"no property " + name + ", there are " + joined(all)})
	}
	return v, nil
}

func (g getters) GetAll(iface string) (map[string]dbus.Variant, *dbus.Error) { return g.all(iface) }

func (g getters) Set(_, name string, _ dbus.Variant) *dbus.Error {
	return dbus.NewError("org.freedesktop.DBus.Error.PropertyReadOnly", []any{name + " cannot be set: call a method"})
}

func joined(all map[string]dbus.Variant) (names string) {
	for _, n := range slices.Sorted(maps.Keys(all)) {
		names += " " + n
	}
	return names
}
