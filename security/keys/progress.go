package keys

// Progress returns how many shares were offered, and how many it takes. The nil seal was offered none.
func (s *ShamirSeal) Progress(h *Header) (have, need int) {
	if p, err := readShamirParams(h.Params); err == nil {
		need = p.Threshold
	}
	if s == nil {
		return 0, need
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.got), need
}
