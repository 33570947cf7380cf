// Guest is /init of the boot that configures the Debian disk (package debian): it mounts the file system on the second partition and
// runs /configure.sh in it, as root of a whole machine, which nobody has to be on the build host.
//
// It loads the modules that its initramfs lists. It says on the console what it does, on lines that begin
// with "debian: ", the last of which is "debian: done" or "debian: failed: ...", and powers the machine off.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/init/kmod"
)

const (
	device = "/dev/vda2"
	root   = "/debian"
)

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "guest: runs as the first process of a machine only")
		os.Exit(1)
	}
	say := "done"
	if err := run(); err != nil {
		say = "failed: " + strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	unix.Sync()
	if err := unix.Unmount(root, 0); err != nil && say == "done" {
		say = fmt.Sprintf("failed: unmount %s: %v", root, err)
	}
	fmt.Println("debian: " + say)
	unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

func run() error {
	if err := mount("proc", "/proc", "proc"); err != nil {
		return err
	}
	if err := loadModules(); err != nil {
		return err
	}
	if err := mount("devtmpfs", "/dev", "devtmpfs"); err != nil {
		return err
	}
	for range 100 {
		if _, err := os.Stat(device); err == nil {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if err := mount(device, root, "ext4"); err != nil {
		return err
	}
	if err := ownAll(); err != nil {
		return err
	}
	return errors.Join(configure(), leave())
}

func mount(source, target, kind string) error {
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(source, target, kind, 0, ""); err != nil {
		return fmt.Errorf("mount %s on %s: %w", source, target, err)
	}
	return nil
}

func loadModules() error {
	text, err := os.ReadFile(kmod.ListFile)
	if err != nil {
		return err
	}
	list, err := kmod.ParseList(string(text))
	if err != nil {
		return err
	}
	for _, file := range list {
		if err := kmod.Load(file, ""); err != nil {
			return err
		}
	}
	return nil
}

// ownAll gives every file to root: on the build host they belonged to whoever built. dpkg sets the other owners.
func ownAll() error {
	return filepath.WalkDir(root, func(name string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(name, &st); err != nil || st.Uid == 0 && st.Gid == 0 {
			return err
		}
		if err := os.Lchown(name, 0, 0); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT == unix.S_IFLNK {
			return nil
		}
		return unix.Chmod(name, st.Mode&0o7777) // chown has taken the set-id bits.
	})
}

// kernelMounts are mounted in the new root while packages are configured, in this order.
func kernelMounts() [][2]string {
	return [][2]string{{"proc", "proc"}, {"sysfs", "sys"}, {"devtmpfs", "dev"}, {"devpts", "dev/pts"}, {"tmpfs", "run"}}
}

// configure runs the script and puts its lines on the console.
func configure() error {
	for _, m := range kernelMounts() {
		if err := mount(m[0], filepath.Join(root, m[1]), m[0]); err != nil {
			return err
		}
	}
	cmd := exec.Command("/bin/bash", "/configure.sh")
	cmd.Dir = "/"
	cmd.SysProcAttr = &unix.SysProcAttr{Chroot: root}
	cmd.Env = os.Environ() // ROOT_UUID, from the kernel command line.
	key, err := os.ReadFile(filepath.Join(root, "authorized_key"))
	if err != nil {
		return err
	}
	cmd.Env = append(cmd.Env, "AUTHORIZED_KEY="+strings.TrimSpace(string(key)))
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		return err
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		fmt.Println("debian: " + lines.Text())
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("configure.sh: %w", err)
	}
	return os.Remove(filepath.Join(root, "authorized_key"))
}

// leave unmounts what configure has mounted.
func leave() error {
	var errs []error
	list := kernelMounts()
	for i := range list {
		target := filepath.Join(root, list[len(list)-1-i][1])
		if err := unix.Unmount(target, 0); err != nil {
			errs = append(errs, fmt.Errorf("unmount %s: %w", target, err))
		}
	}
	return errors.Join(errs...)
}
