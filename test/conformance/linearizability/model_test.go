package linearizability

import "github.com/anishathalye/porcupine"

// The keys and leases that clients contend for.
const (
	keyCount   = 5
	leaseCount = 3
)

// A cell is what a key has; version 0 says that it does not exist. Values are unique.
type cell struct {
	value, create, mod, version int64
	lease                       int
}

// A state of the store, comparable with ==. A lease of 0 is none.
type state struct {
	revision int64
	keys     [keyCount]cell
	leases   [leaseCount + 1]bool
}

type kind int

const (
	putKey kind = iota
	getKey
	compareAndSwap
	putTwo // puts two keys and reads a third one, in one transaction
	deleteKey
	listKeys
	grantLease
	revokeLease
)

type request struct {
	kind     kind
	key      int
	value    int64
	lease    int
	expected int64 // mod revision
}

// What was answered. What got no answer has a revision if it is known that it happened, and at which one.
type response struct {
	isUnknown   bool
	revision    int64
	succeeded   bool
	noSuchLease bool
	cells       [keyCount]cell // what was read, or was there before
}

func (s *state) write(key int, value int64, lease int) {
	old := s.keys[key]
	s.keys[key] = cell{value: value, create: old.create, mod: s.revision + 1, version: old.version + 1, lease: lease}
	if old.version == 0 {
		s.keys[key].create = s.revision + 1
	}
}

func (r request) needsLease() bool {
	return r.kind == revokeLease || r.kind == putKey && r.lease != 0
}

// step does a request; what it returns is what must be answered.
func step(s state, r request) (state, response) {
	out := response{succeeded: true}
	before := s
	if r.needsLease() && !s.leases[r.lease] {
		return s, response{noSuchLease: true}
	}
	switch r.kind {
	case putKey:
		out.cells[r.key] = s.keys[r.key]
		s.write(r.key, r.value, r.lease)
	case getKey:
		out.cells[r.key] = s.keys[r.key]
	case compareAndSwap:
		out.succeeded = s.keys[r.key].mod == r.expected
		if out.succeeded {
			s.write(r.key, r.value, 0)
		} else {
			out.cells[r.key] = s.keys[r.key]
		}
	case putTwo:
		second, third := (r.key+1)%keyCount, (r.key+2)%keyCount
		s.write(r.key, r.value, 0)
		s.write(second, r.value, 0)
		out.cells[third] = s.keys[third]
	case deleteKey:
		out.cells[r.key] = s.keys[r.key]
		s.keys[r.key] = cell{}
	case listKeys:
		out.cells = s.keys
	case grantLease:
		out.succeeded = !s.leases[r.lease]
		s.leases[r.lease] = true
	case revokeLease:
		for key := range s.keys {
			if s.keys[key].lease == r.lease {
				s.keys[key] = cell{}
			}
		}
		s.leases[r.lease] = false
	}
	if s.keys != before.keys {
		s.revision++
	}
	out.revision = s.revision
	return s, out
}

// A lease's requests are answered with the newest revision that is on disk; it may be that of a later write.
func revisionIsExact(r request) bool { return r.kind != grantLease }

// steps returns the states that a request with this answer can have led to.
func steps(before state, r request, got response) []any {
	after, want := step(before, r)
	switch {
	case got.isUnknown && got.revision == 0:
		return []any{before, after}
	case got.isUnknown && got.revision == want.revision:
		return []any{after}
	case !revisionIsExact(r):
		want.revision = got.revision
	}
	if got == want {
		return []any{after}
	}
	return nil
}

var nondeterministic = porcupine.NondeterministicModel{
	Init: func() []any { return []any{state{revision: 1}} },
	Step: func(before, input, output any) []any {
		return steps(before.(state), input.(request), output.(response))
	},
	Equal: func(one, other any) bool { return one.(state) == other.(state) },
}

var model = nondeterministic.ToModel()
