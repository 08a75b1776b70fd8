package reconcile

import "context"

// addUnknown sends one failed sighting to found for each instance that no place shows and that its own place could not describe. An
// instance is in one place only, so that the outage of another place says nothing about it.
func (s *survey) addUnknown(ctx context.Context, found chan<- sighted) {
	for _, i := range s.unknown {
		id := i.Facts.ID
		home, isHomeKnown := s.inventory.placeOf(id)
		s.mu.Lock()
		_, seen := s.states[id]
		counts := !seen && (!isHomeKnown || home == i.place)
		if counts {
			s.states[id] = ""
		}
		s.mu.Unlock()
		if !counts || !s.inventory.inStretch(id) {
			continue
		}
		select {
		case found <- i:
		case <-ctx.Done():
			return // the caller looks at the time
		}
	}
}
