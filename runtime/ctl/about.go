package ctl

import (
	"context"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// aboutVerbs tell of the machine.
func aboutVerbs() []verb {
	return []verb{
		{name: "version", what: "print the release of the OS", closed: true, json: true, setup: plain(func(_ context.Context, c *call) error {
			if c.asJSON {
				return c.json(map[string]string{"release": c.release(), "arch": runtime.GOARCH})
			}
			fmt.Fprintf(c.Out, "containerctl (%s)\n", c.release())
			return nil
		})},
		{name: "info", what: "tell about the machine and the store", json: true, setup: plain(about)},
	}
}

func about(ctx context.Context, c *call) error {
	var u unix.Utsname
	var st unix.Statfs_t
	if err := unix.Uname(&u); err != nil {
		return err
	}
	if err := unix.Statfs(c.Store, &st); err != nil {
		return err
	}
	ks, err := c.store.Containers()
	if err != nil {
		return err
	}
	vs, err := c.views(ctx, ks)
	if err != nil {
		return err
	}
	running := 0
	for _, v := range vs {
		if !v.over() {
			running++
		}
	}
	images, err := c.store.Images()
	if err != nil {
		return err
	}
	info := struct {
		Release    string `json:"release"`
		Kernel     string `json:"kernel"`
		Arch       string `json:"arch"`
		Processors int    `json:"processors"`
		Store      string `json:"store"`
		Free       uint64 `json:"free"` // bytes
		Containers int    `json:"containers"`
		Running    int    `json:"running"`
		Images     int    `json:"images"`
	}{c.release(), unix.ByteSliceToString(u.Release[:]), runtime.GOARCH, runtime.NumCPU(), c.Store, st.Bavail * uint64(st.Bsize), len(ks), running, len(images)}
	if c.asJSON {
		return c.json(info)
	}
	fmt.Fprintf(c.Out, "release     %s\nkernel      %s\nprocessors  %d (%s)\nstore       %s, %s free\ncontainers  %d, %d of them running\nimages      %d\n",
		info.Release, info.Kernel, info.Processors, info.Arch, info.Store, size(int64(info.Free)), info.Containers, info.Running, info.Images)
	return nil
}
