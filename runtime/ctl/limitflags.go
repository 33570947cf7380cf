package ctl

import (
	"errors"
	"regexp"
	"strconv"
	"strings"

	"github.com/proa-os/proa/runtime/flagset"
	"github.com/proa-os/proa/runtime/store"
)

// limitFlags are about what the unit may take.
func (r *runFlags) limitFlags(s *flagset.Set) {
	c := &r.c
	s.Func("m,memory", "SIZE", "memory limit, for example 512m", sizeFlag(&c.Memory))
	s.Func("memory-reservation", "SIZE", "memory that is taken from it only when nobody else has any to give", sizeFlag(&c.MemoryLow))
	s.Func("memory-swap", "SIZE", "limit of memory and swap; -1: any (default: twice the memory)", func(v string) error {
		n := int64(-1)
		if v != "-1" {
			var err error
			if n, err = parseSize(v); err != nil {
				return err
			}
		}
		c.MemorySwap = &n
		return nil
	})
	s.Func("oom-score-adj", "NUMBER", "how soon the kernel kills it for want of memory, -1000 to 1000", func(v string) error {
		n, err := strconv.Atoi(v)
		if err != nil || n < -1000 || n > 1000 {
			return errors.New("want -1000 to 1000")
		}
		c.OOMScoreAdj = &n
		return nil
	})
	r.processorFlags(s)
	s.Func("pids-limit", "NUMBER", "limit of processes and threads; -1: none", func(v string) error {
		n, err := strconv.Atoi(v)
		if err != nil || n < -1 || n == 0 {
			return errors.New("want a number of at least 1, or -1")
		}
		c.Pids = max(n, 0)
		return nil
	})
	s.Func("blkio-weight", "WEIGHT", "share of disks beside others, 10 to 1000 (default 500)", func(v string) error {
		n, err := strconv.Atoi(v)
		if err != nil || n < 10 || n > 1000 {
			return errors.New("want 10 to 1000")
		}
		c.BlkioWeight = n
		return nil
	})
	for _, f := range []struct{ name, setting, of string }{{"device-read-bps", "IOReadBandwidthMax", "bytes read"}, {"device-write-bps", "IOWriteBandwidthMax", "bytes written"},
		{"device-read-iops", "IOReadIOPSMax", "reads"}, {"device-write-iops", "IOWriteIOPSMax", "writes"}} {
		s.Func(f.name, "DEVICE:RATE", "limit of "+f.of+" in a second, for example /dev/vda:1m", func(v string) error { return addRate(c, f.setting, v) })
	}
}

func addRate(c *store.Container, setting, v string) error {
	device, rate, _ := strings.Cut(v, ":")
	n, err := parseSize(rate)
	if err != nil || !isDevice(device) {
		return errors.New("want /dev/NAME:RATE, for example /dev/vda:1m")
	}
	c.Rates = append(c.Rates, store.Rate{Setting: setting, Device: device, Most: n})
	return nil
}

// processorFlags are the part of limitFlags about processors.
func (r *runFlags) processorFlags(s *flagset.Set) {
	c := &r.c
	s.Func("cpus", "NUMBER", "processor limit, for example 1.5", func(v string) (err error) {
		if c.CPUs, err = strconv.ParseFloat(v, 64); err != nil || !(c.CPUs >= 0.01 && c.CPUs <= 10000) {
			return errors.New("want a number of at least 0.01")
		}
		return nil
	})
	s.Int(&r.quota, 1000, "cpu-quota", "MICROSECONDS", "processor limit as time in each period, in the place of --cpus")
	s.Int(&r.period, 1000, "cpu-period", "MICROSECONDS", "the period of --cpu-quota (default 100000)")
	s.Int(&c.CPUShares, 2, "c,cpu-shares", "WEIGHT", "share of the processors beside others, 2 to 262144 (default 1024)")
	list := func(p *string) func(string) error {
		return func(v string) error {
			if !regexp.MustCompile(`^\d+(-\d+)?(,\d+(-\d+)?)*$`).MatchString(v) {
				return errors.New("want a list such as 0-2,4")
			}
			*p = v
			return nil
		}
	}
	s.Func("cpuset-cpus", "LIST", "processors to use, for example 0-2,4", list(&c.CPUSet))
	s.Func("cpuset-mems", "LIST", "memory nodes to use, for example 0,1", list(&c.MemSet))
}

// setQuota makes one limit of --cpu-quota and --cpu-period.
func (r *runFlags) setQuota() error {
	switch {
	case r.quota == 0 && r.period != 0:
		return errors.New("--cpu-period needs --cpu-quota")
	case r.quota == 0:
		return nil
	case r.c.CPUs != 0:
		return errors.New("--cpus and --cpu-quota exclude each other")
	case r.period == 0:
		r.period = 100_000
	}
	r.c.CPUs = float64(r.quota) / float64(r.period)
	return nil
}

func parseSize(v string) (int64, error) {
	units := map[byte]int64{'b': 1, 'k': 1 << 10, 'm': 1 << 20, 'g': 1 << 30}
	number, factor := v, int64(1)
	if n := len(v); n > 0 && units[v[n-1]|0x20] != 0 && v[n-1] > '9' {
		number, factor = v[:n-1], units[v[n-1]|0x20]
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 1 || n > 1<<50/factor {
		return 0, errors.New("want a size such as 512m or 2g")
	}
	return n * factor, nil
}
