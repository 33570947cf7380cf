// Package apply carries out a plan on a file tree: the edge where provisioning touches the disk.
//
// It works through an os.Root: every path is resolved inside the tree as after chroot(2), so a symbolic link, absolute or
// full of "..", leads nowhere outside (spec: links in a path are followed, the last name is not).
//
// Invariants:
//   - What is made is complete when it gets its name: files, directories and links are made beside it, given owner
//     and mode, synced, and renamed. Nobody sees half a file, and a power cut leaves none.
//   - Run may stop anywhere and be run again: the second run ends where an uninterrupted one would have. For files
//     this needs a memory, since "append" is no idempotent operation and "overwrite": false forbids to touch a file that exists:
//     the journal says which file was there before provisioning and what provisioning makes of it (journal.go).
//   - When Run returns nil, all is on disk (syncfs(2)).
//
// Users and groups are edited natively (passwd(5), shadow(5), group(5), gshadow(5)): ids are chosen from what the files say, no date
// enters them. Not done: moving the home directory or changing the id of a user that exists, /etc/skel, subordinate ids.
package apply

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"

	"github.com/coreos/ignition/v2/config/v3_6/types"

	"github.com/proa-os/proa/ignition/config"
	"github.com/proa-os/proa/ignition/plan"
	"github.com/proa-os/proa/ignition/source"
)

// Owners sets and reads owners: InodeOwners in the inodes, a test without root in a map.
type Owners interface {
	// Lchown changes the owner of name itself, not of what it points to.
	Lchown(root *os.Root, name string, uid, gid int) error
	// Owner returns the owner of what info describes.
	Owner(info fs.FileInfo) (uid, gid int)
}

// InodeOwners is the real thing.
type InodeOwners struct{}

// Lchown is lchown(2).
func (InodeOwners) Lchown(root *os.Root, name string, uid, gid int) error {
	return root.Lchown(name, uid, gid)
}

// Owner reads the ids of stat(2).
func (InodeOwners) Owner(info fs.FileInfo) (uid, gid int) {
	st := info.Sys().(*syscall.Stat_t)
	return int(st.Uid), int(st.Gid)
}

// Options are what Run needs besides tree and plan.
type Options struct {
	// Fetch writes a verified resource, source.Fetcher.Fetch for example.
	Fetch func(ctx context.Context, r types.Resource, sink source.Sink) error
	// Owners is InodeOwners when nil.
	Owners Owners
	// Fault is asked before every change of the tree and stops Run with the error it returns; nil never does.
	Fault     func(step string) error
	PlainKeys bool // ssh keys go into ~/.ssh/authorized_keys, not into a file of their own
	// Done is told after each operation; nil is fine.
	Done func(op plan.Op)
}

// A Problem is an error of an operation, in the parts that a person needs. NewProblem makes one.
type Problem struct{ What, Expected, Found, Next string }

// NewProblem takes every part, as nobody can act on half an error: what is wrong, what would be right, what is there, what to do.
func NewProblem(what, expected, found, next string) error {
	return &Problem{What: what, Expected: expected, Found: found, Next: next}
}

func (p *Problem) Error() string { return p.Issue().Text() }

// Issue is the problem without a place in a config.
func (p *Problem) Issue() config.Issue {
	return config.Issue{Problem: p.What, Expected: p.Expected, Found: p.Found, Next: p.Next}
}

// Run applies ops to root in their order. An error that an operation met is config.Issues with the place of the
// config that asked for it.
func Run(ctx context.Context, root *os.Root, ops []plan.Op, o Options) error {
	if o.Owners == nil {
		o.Owners = InodeOwners{}
	}
	d := &disk{root: root, owners: o.Owners, fault: o.Fault, touched: map[string]bool{}}
	j, err := openJournal(d)
	if err != nil {
		return fmt.Errorf("open journal: %w", err)
	}
	r := &run{ctx: ctx, disk: d, journal: j, fetch: o.Fetch, plainKeys: o.PlainKeys}
	for _, op := range ops {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := r.do(op); err != nil {
			return Explain(op, err)
		}
		if o.Done != nil {
			o.Done(op)
		}
	}
	if err := d.sync(); err != nil {
		return fmt.Errorf("write the changes to disk: %w", err)
	}
	return nil
}

type run struct {
	*disk
	ctx     context.Context
	journal *journal
	fetch   func(ctx context.Context, r types.Resource, sink source.Sink) error
	homes   map[string]entry // resolved path -> user; nil: read passwd again

	plainKeys bool
	machine   Look // of drift
	brief     bool // contents and passwords are not looked at: not everybody may read them
}

func (r *run) do(op plan.Op) error {
	switch op := op.(type) {
	case plan.Group:
		return r.editAccounts(func(a *accounts) error { return a.group(op) })
	case plan.User:
		return r.user(op)
	case plan.Keys:
		return r.keys(op)
	case plan.Directory:
		return r.directory(op)
	case plan.File:
		return r.file(op)
	case plan.Link:
		if op.Hard {
			return r.hardLink(op)
		}
		return r.symlink(op)
	case plan.Unmask:
		return r.unmask(op)
	case plan.Enable:
		return r.enable(op.Unit, 0)
	case plan.Disable:
		return r.disable(op.Unit)
	}
	return fmt.Errorf("unknown operation %T", op)
}

// Explain makes issues of an operation's error.
func Explain(op plan.Op, err error) error {
	var p *Problem
	switch {
	case errors.As(err, &p):
		i := p.Issue()
		i.Place, i.Problem = op.At(), op.String()+": "+p.What
		return config.Issues{i}
	case errors.Is(err, context.Canceled):
		return err
	}
	return config.Issues{config.Of(op.At(), op.String(), err, NextStep(err))}
}

const moreRoom = "make room or use a larger disk: the next run goes on from here"

// NextStep is what to do about an error that does not say it itself.
func NextStep(err error) string {
	var n *net.OpError
	switch {
	case errors.Is(err, source.ErrNeedNetwork):
		return "put the contents into the config as a data: URL"
	case errors.As(err, &n):
		return "check the address, the server and the network"
	case errors.Is(err, syscall.EROFS):
		return "the root image is read-only: use /etc, /var, /opt or /usr/local"
	case errors.Is(err, syscall.ENOSPC):
		return moreRoom
	case errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0:
		return "run as root"
	}
	return "correct what is named here, and run it again"
}
