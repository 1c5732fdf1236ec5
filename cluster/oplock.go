package cluster

// opLock is a mutex made of a channel. It is held while other hosts are asked, and a test's virtual time goes on only past
// goroutines that wait for channels (testing/synctest).
type opLock chan struct{}

func newOpLock() opLock { return make(opLock, 1) }

// Lock waits until it is this caller's.
func (l opLock) Lock() { l <- struct{}{} }

// Unlock gives it back.
func (l opLock) Unlock() { <-l }

// TryLock takes it if nobody has it.
func (l opLock) TryLock() bool {
	select {
	case l <- struct{}{}:
		return true
	default:
		return false
	}
}
