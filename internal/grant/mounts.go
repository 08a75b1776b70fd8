package grant

import (
	"slices"
	"strings"
)

// Mounts are the mounts whose roles profiles write, base path included, sorted. Under each of them names are claimed.
type Mounts struct {
	PKI []string
	SSH []string
}

// All returns the mounts of both kinds, sorted.
func (m Mounts) All() []string { return sortedOnce(slices.Concat(m.PKI, m.SSH)) }

// Describe returns a mount with the kind of its engine, for texts.
func (m Mounts) Describe(mount string) string {
	if slices.Contains(m.SSH, mount) {
		return "SSH mount " + mount
	}
	return "PKI mount " + mount
}

// below returns the mount at or above a path, and the kind of its roles. ok is false for a path elsewhere.
func (m Mounts) below(path string) (mount string, kind Kind, ok bool) {
	for _, mount := range m.All() {
		if path == mount || strings.HasPrefix(path, mount+"/") {
			return mount, m.kindOfRoles(mount), true
		}
	}
	return "", "", false
}

// kindOfRoles returns the kind of the roles of a mount; KindGeneric for another mount.
func (m Mounts) kindOfRoles(mount string) Kind {
	switch {
	case slices.Contains(m.PKI, mount):
		return KindPKIRole
	case slices.Contains(m.SSH, mount):
		return KindSSHRole
	}
	return KindGeneric
}

// KindOfFolder returns the kind of the objects in an output's folder: that of the mount's roles, or KindGeneric.
func (m Mounts) KindOfFolder(folder string) Kind {
	if mount, isRoles := SplitPKIRoleFolder(folder); isRoles {
		return m.kindOfRoles(mount)
	}
	return KindGeneric
}

// Mounts returns the mounts that the profile writes roles to.
func (p *Profile) Mounts() Mounts {
	var m Mounts
	for _, o := range p.Outputs {
		switch o.Type {
		case KindPKIRole:
			m.PKI = append(m.PKI, o.mount(p.BasePath))
		case KindSSHRole:
			m.SSH = append(m.SSH, o.mount(p.BasePath))
		case KindPolicy, KindGeneric, KindAuthRole:
		}
	}
	return Mounts{PKI: sortedOnce(m.PKI), SSH: sortedOnce(m.SSH)}
}

// Mounts returns the mounts that the profiles write roles to.
func (s *Set) Mounts() Mounts {
	var m Mounts
	for _, p := range s.Profiles {
		of := p.Mounts()
		m.PKI, m.SSH = append(m.PKI, of.PKI...), append(m.SSH, of.SSH...)
	}
	return Mounts{PKI: sortedOnce(m.PKI), SSH: sortedOnce(m.SSH)}
}

// PKIMounts returns the PKI mounts that the profiles write roles to.
func (s *Set) PKIMounts() []string { return s.Mounts().PKI }
