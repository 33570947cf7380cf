// Package scope asks systemd for transient scopes and changes and ends them: the systemd driver of control groups
// (oci-runtime --systemd-cgroup), with which a container's group is a unit below a slice.
//
// Package run calls it between the making of a container's first process, which it hands over, and that process's first steps. It is a
// client of its own for the few messages needed: a start of a container is not to pay for a D-Bus library.
//
// The bus is DBUS_SYSTEM_BUS_ADDRESS or /run/dbus/system_bus_socket; authentication is EXTERNAL. Understood are addresses unix:path= and
// unix:abstract=. Every wait ends after half a minute.
//
// Specification: the D-Bus specification, "Message Protocol" and "Authentication Protocol"; org.freedesktop.systemd1(5).
package scope
