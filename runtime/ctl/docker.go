package ctl

import (
	"slices"
	"strings"
	"time"

	"github.com/proa-os/proa/runtime/ref"
	"github.com/proa-os/proa/runtime/store"
)

// dockerRow is a container as docker ps names its columns for --format, where the JSON here has another name for them.
func dockerRow(v view) any {
	command := slices.Concat(v.Entrypoint, v.Args)
	var mounts []string
	for _, m := range v.Volumes {
		mounts = append(mounts, m.Name+m.Source)
	}
	return map[string]any{"ID": v.Name, "Names": v.Name, "State": v.Status, "Command": strings.Join(command, " "), "Ports": portList(v.Publish),
		"CreatedAt": v.Created.Local().Format(time.DateTime), "RunningFor": ago(time.Since(v.Created)) + " ago", "Mounts": strings.Join(mounts, ",")}
}

// dockerImage is the same of docker images.
func dockerImage(r *store.Record) any {
	out := map[string]any{"ID": r.Digest.Hex()[:12], "CreatedAt": r.Pulled.Local().Format(time.DateTime), "CreatedSince": ago(time.Since(r.Pulled)) + " ago"}
	if name, err := ref.Parse(r.Name); err == nil {
		out["Repository"], out["Tag"] = name.Repository(), name.Identifier()
	}
	return out
}

// dockerInspect has what scripts ask docker inspect for, at the places where docker has it.
func dockerInspect(v any) any {
	i, ok := v.(inspection)
	if !ok {
		return nil
	}
	k := i.Container
	state := map[string]any{"Status": i.Status, "Running": i.Status == "running" || i.Status == "paused", "Paused": i.Status == "paused", "Restarting": i.Status == "restarting",
		"Pid": i.Pid, "StartedAt": i.Since.Format(time.RFC3339Nano), "FinishedAt": time.Time{}.Format(time.RFC3339Nano), "ExitCode": 0, "OOMKilled": false}
	if x := i.Exit; x != nil {
		state["ExitCode"], state["OOMKilled"], state["FinishedAt"] = x.Code, x.OOM, x.Finished.Format(time.RFC3339Nano)
		if i.over() {
			state["StartedAt"] = x.Started.Format(time.RFC3339Nano)
		}
	}
	if i.State != nil {
		state["Health"] = map[string]any{"Status": i.State.Status, "FailingStreak": i.State.Failing}
	}
	networks, address := map[string]any{}, ""
	for _, a := range k.Networks {
		first := ""
		if len(a.Addresses) > 0 {
			first = a.Addresses[0].String()
		}
		if address == "" {
			address = first
		}
		networks[a.Network] = map[string]any{"IPAddress": first, "Aliases": a.Aliases}
	}
	return map[string]any{"Id": k.Name, "State": state, "Config": map[string]any{"Image": k.Image, "Env": k.Env, "Cmd": k.Args, "Entrypoint": k.Entrypoint, "Labels": k.Labels, "User": k.User, "Hostname": k.Hostname},
		"NetworkSettings": map[string]any{"IPAddress": address, "Networks": networks},
		"HostConfig": map[string]any{"RestartPolicy": map[string]any{"Name": k.Restart, "MaximumRetryCount": k.Restarts}, "NetworkMode": k.Network, "Privileged": k.Privileged, "Memory": k.Memory,
			"NanoCpus": int64(k.CPUs * 1e9), "ReadonlyRootfs": k.ReadOnly}}
}
