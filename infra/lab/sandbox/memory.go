package sandbox

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Resident is the resident memory of each running process of the function, in bytes, as Linux tells it; none elsewhere.
// https://man7.org/linux/man-pages/man5/proc_pid_statm.5.html
func (f *Function) Resident() []int64 {
	f.mu.Lock()
	all := append([]*Sandbox(nil), f.all...)
	f.mu.Unlock()
	var out []int64
	for _, s := range all {
		s.mu.Lock()
		proc := s.proc
		s.mu.Unlock()
		if proc == nil {
			continue
		}
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", proc.PID()))
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
