package bus

// What the tests of the package look at from outside.
const Introspection = introspection

// Exported is what is on the bus, by interface.
func Exported() map[string]any {
	return map[string]any{Interface: methods{}, propertiesInterface: getters{}, "org.freedesktop.DBus.Introspectable": introspectable{}}
}

// Properties is properties.
var Properties = properties
