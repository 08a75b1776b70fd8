package sandbox

import "github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts"

// Freeze stops every running process of the function, as Lambda may do at any time: connections stay open, clocks advance,
// and no code runs until Thaw.
func (f *Function) Freeze() error { return f.eachProcess((*parts.Process).Suspend) }

// Thaw resumes the processes after Freeze.
func (f *Function) Thaw() error { return f.eachProcess((*parts.Process).Continue) }

func (f *Function) eachProcess(do func(*parts.Process) error) error {
	return f.each(func(s *Sandbox) error {
		s.mu.Lock()
		proc := s.proc
		s.mu.Unlock()
		if proc == nil {
			return nil
		}
		return do(proc)
	})
}
