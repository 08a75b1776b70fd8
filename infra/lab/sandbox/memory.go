package sandbox

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Resident returns the resident memory of each running process of the function in bytes; nil on systems without Linux's /proc.
// https://man7.org/linux/man-pages/man5/proc_pid_statm.5.html
func (f *Function) Resident() []int64 {
	var out []int64
	for _, pid := range f.PIDs() {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
		fields := strings.Fields(string(text))
		if err != nil || len(fields) < 2 {
			continue
		}
		pages, err := strconv.ParseInt(fields[1], 10, 64)
		if err == nil && pages > 0 {
			out = append(out, pages*int64(os.Getpagesize()))
		}
	}
	return out
}

// PIDs returns the process IDs of the running processes of the function.
func (f *Function) PIDs() []int {
	f.mu.Lock()
	all := append([]*Sandbox(nil), f.all...)
	f.mu.Unlock()
	var out []int
	for _, s := range all {
		s.mu.Lock()
		if s.proc != nil {
			out = append(out, s.proc.PID())
		}
		s.mu.Unlock()
	}
	return out
}

// Peak returns the largest resident memory that any running process of the function has had, in bytes, as recorded by the
// kernel; 0 on systems without Linux's /proc.
// https://man7.org/linux/man-pages/man5/proc_pid_status.5.html
func (f *Function) Peak() int64 {
	var most int64
	for _, pid := range f.PIDs() {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			continue
		}
		for lines := bufio.NewScanner(bytes.NewReader(status)); lines.Scan(); {
			value, ok := strings.CutPrefix(lines.Text(), "VmHWM:")
			if !ok {
				continue
			}
			if kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(value, "kB")), 10, 64); err == nil {
				most = max(most, kib<<10)
			}
		}
	}
	return most
}
