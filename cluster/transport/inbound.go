package transport

// DropInbound closes the connections that other nodes have opened. They open them again when they need them. It ends the
// wait for a message whose sender has gone away in the middle of it, for which raft sets no limit.
func (t *Transport) DropInbound() {
	t.layer.mu.Lock()
	var open []*trackedConn
	for c := range t.layer.conns {
		if tracked, ok := c.(*trackedConn); ok && tracked.inbound {
			open = append(open, tracked)
		}
	}
	t.layer.mu.Unlock()
	for _, c := range open {
		c.Close()
	}
}
