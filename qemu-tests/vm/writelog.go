package vm

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/proa-os/proa/qemu-tests/vm/blklog"
)

// LogWrites keeps the disk of a machine that is off as it is, and logs every write, discard and flush from here on, in
// order, over all boots. See OpenWriteLog.
func (m *Machine) LogWrites() error {
	if m.whyOff() == nil || m.hw.disk == "" {
		return errors.New("log writes: the machine is on, or has no disk")
	}
	return m.logWrites()
}

func (m *Machine) logWrites() error {
	if err := CopySparse(m.writeBase(), m.hw.disk, 0); err != nil {
		return fmt.Errorf("log writes: %w", err)
	}
	log := filepath.Join(m.cfg.Dir, "writes.log")
	if err := os.WriteFile(log, blklog.Header(m.hw.sectorSize), 0o644); err != nil {
		return fmt.Errorf("log writes: %w", err)
	}
	m.hw.writeLog = log
	return nil
}

func (m *Machine) writeBase() string { return filepath.Join(m.cfg.Dir, "writes.base") }

// A WriteLog is what a machine has written to its disk since LogWrites.
type WriteLog struct {
	*blklog.Log
	Base string // the disk image before the first entry

	file *os.File
}

// OpenWriteLog opens the log of a machine that is off. Close it.
func (m *Machine) OpenWriteLog() (*WriteLog, error) {
	if m.whyOff() == nil || m.hw.writeLog == "" {
		return nil, errors.New("open write log: the machine is on, or nothing was logged")
	}
	f, err := os.Open(m.hw.writeLog)
	if err != nil {
		return nil, fmt.Errorf("open write log: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open write log: %w", err)
	}
	log, err := blklog.Open(f, info.Size())
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", m.hw.writeLog, err)
	}
	return &WriteLog{Log: log, Base: m.writeBase(), file: f}, nil
}

// Close ends the work on it.
func (l *WriteLog) Close() error { return l.file.Close() }

// DiskAfter makes the file name: the disk as it was after the first n entries.
func (l *WriteLog) DiskAfter(name string, n int) error {
	if err := CopySparse(name, l.Base, 0); err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("make disk after %d writes: %w", n, err)
	}
	return errors.Join(l.Replay(blklog.File{File: f}, 0, n), f.Close())
}

// backendArgs are the block backend "disk". No flush reaches the host's disk: faster, and it only matters when the host
// itself crashes. The log sees them.
func (h hardware) backendArgs() []string {
	if h.writeLog == "" {
		drive := "if=none,id=disk,format=raw,cache=unsafe,discard=unmap,file=" + value(h.disk)
		if h.snapshot {
			drive += ",snapshot=on"
		}
		return []string{"-drive", drive}
	}
	type object = map[string]any
	file := func(name string) object {
		return object{"driver": "file", "filename": name, "discard": "unmap", "cache": object{"no-flush": true}}
	}
	node, err := json.Marshal(object{
		"driver": "blklogwrites", "node-name": "disk", "discard": "unmap",
		"file": object{"driver": "raw", "discard": "unmap", "file": file(h.disk), "cache": object{"no-flush": true}},
		// A cut ends QEMU without a word: the number of entries is written with each of them.
		"log": file(h.writeLog), "log-append": true, "log-super-update-interval": 1,
	})
	if err != nil {
		panic(err) // Strings, booleans and numbers can always be written.
	}
	return []string{"-blockdev", string(node)}
}
