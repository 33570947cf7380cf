package guesttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/proa-os/proa/internal/tcg"
	"github.com/proa-os/proa/internal/tooltree"
)

// A Disk is a raw disk image for a guest, as /dev/vda, /dev/vdb and so on, by the driver virtio_blk.
type Disk struct {
	File    string
	Options string // more of QEMU's -drive options, with a leading comma

	SectorSize int // 512 by default
}

// A Boot is one life of a guest: it ends when the guest turns off or restarts.
type Boot struct {
	Initrd  string // file
	Options string // on the kernel command line, after those of Run
	Disks   []Disk

	// Results is a file that gets what the guest writes to its second serial port, /dev/ttyS1.
	Results string

	// Until cuts the power as soon as it returns true for the console so far. It is asked all the time.
	Until func(console string) bool

	MemoryMiB int           // 512 by default
	Deadline  time.Duration // on the clock; 5 minutes by default
}

// Run starts QEMU and returns the text of the guest's console, also with an error.
func (b Boot) Run(ctx context.Context, tools *tooltree.Tree) (string, error) {
	deadline := b.Deadline
	if deadline == 0 {
		deadline = 5 * time.Minute
	}
	ctx, cancel := context.WithTimeoutCause(ctx, deadline, fmt.Errorf("the guest did not end within %s", deadline))
	defer cancel()
	args, err := b.args(tools)
	if err != nil {
		return "", fmt.Errorf("boot guest: %w", err)
	}
	cmd := tools.Command(ctx, "qemu-system-x86_64", args...)
	console := &console{}
	cmd.Stdout, cmd.Stderr = console, console
	if err := tcg.Start(cmd); err != nil {
		return "", fmt.Errorf("boot guest: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	cut := false
	for {
		select {
		case err := <-ended:
			text := strings.ReplaceAll(console.String(), "\r", "")
			switch {
			case ctx.Err() != nil:
				err = context.Cause(ctx)
			case cut:
				err = nil
			}
			if err != nil {
				return text, fmt.Errorf("boot guest: %w", err)
			}
			return text, nil
		case <-tick.C:
			if b.Until != nil && !cut && b.Until(console.String()) {
				cut = true
				if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
					return console.String(), fmt.Errorf("cut power of guest: %w", err)
				}
			}
		}
	}
}

func (b Boot) args(tools *tooltree.Tree) ([]string, error) {
	kernel, err := Kernel(tools)
	if err != nil {
		return nil, err
	}
	memory := b.MemoryMiB
	if memory == 0 {
		memory = 512
	}
	options := strings.Join(append(tcg.KernelArgs(), b.Options), " ")
	// A reboot ends QEMU. A loaded host loses timer interrupts. One processor: with two, QEMU 10 has failed an assertion (iotlb_to_section) while
	// one of them moved the window of a PCI device.
	args := []string{
		"-L", tools.Path("usr/share/qemu"), "-L", tools.Path("usr/share/seabios"),
		"-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot",
		"-machine", "q35,accel=tcg", "-cpu", tcg.CPU, "-m", strconv.Itoa(memory),
		"-kernel", kernel, "-initrd", b.Initrd,
		"-append", "console=ttyS0 panic=-1 no_timer_check " + options,
		"-device", "virtio-rng-pci",
	}
	if b.Results != "" {
		args = append(args, "-serial", "file:"+b.Results)
	}
	for i, d := range b.Disks {
		id := fmt.Sprintf("disk%d", i)
		args = append(args, "-drive", "if=none,id="+id+",format=raw,cache=unsafe,file="+strings.ReplaceAll(d.File, ",", ",,")+d.Options,
			"-device", "virtio-blk-pci,drive="+id+d.sectors())
	}
	return args, nil
}

func (d Disk) sectors() string {
	if d.SectorSize == 0 {
		return ""
	}
	return fmt.Sprintf(",logical_block_size=%d,physical_block_size=%d", d.SectorSize, d.SectorSize)
}

// A console is written by one process and read at the same time.
type console struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.b.Write(p)
}

func (c *console) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.b.String()
}
