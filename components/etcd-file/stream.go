package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// The stream is a sequence of records, all numbers little-endian:
//
//	record:  length uint32 (of what follows), kind byte, body
//	head:    'H', format uint32, compacted revision int64 (-1: never compacted), consistent index uint64, term uint64,
//	         flags uint8 (1: authentication is enabled in the file that was read)
//	version: 'V', revision int64, sub int64, create revision int64, version int64 (0: a tombstone), lease int64,
//	         key length uint32, key, value
//	lease:   'L', id int64, ttl int64, remaining ttl int64 (0: not known)
//	end:     'E', versions uint64, leases uint64
//
// One head, then the versions in ascending order, then the leases, then one end.
const streamFormat = 1

const (
	kindHead    = 'H'
	kindVersion = 'V'
	kindLease   = 'L'
	kindEnd     = 'E'
)

const (
	headBytes        = 4 + 8 + 8 + 8 + 1
	versionHeadBytes = 5*8 + 4
	leaseBytes       = 3 * 8
	endBytes         = 2 * 8
	// No record is larger: a request of etcd is limited to a few MB, and never to more than this.
	recordLimit = 512 << 20
)

const neverCompacted = -1

type head struct {
	compacted   int64
	index, term uint64
	authEnabled bool
}

type version struct {
	revision, sub, create, version, lease int64
	key, value                            []byte
}

type lease struct{ id, ttl, remaining int64 }

// source hands out the records of a stream in their order; key and value are valid until the next call.
type source struct {
	in     *bufio.Reader
	record []byte
}

func newSource(in io.Reader) *source { return &source{in: bufio.NewReaderSize(in, 1<<20)} }

// next returns the kind and the body of the next record.
func (s *source) next() (byte, []byte, error) {
	var prefix [4]byte
	if _, err := io.ReadFull(s.in, prefix[:]); err != nil {
		return 0, nil, fmt.Errorf("the stream ends before its end record: %w", err)
	}
	length := binary.LittleEndian.Uint32(prefix[:])
	if length < 1 || length > recordLimit {
		return 0, nil, fmt.Errorf("the stream has a record of %d bytes", length)
	}
	if cap(s.record) < int(length) {
		s.record = make([]byte, length)
	}
	s.record = s.record[:length]
	if _, err := io.ReadFull(s.in, s.record); err != nil {
		return 0, nil, fmt.Errorf("the stream ends within a record: %w", err)
	}
	return s.record[0], s.record[1:], nil
}

// ended fails when anything follows the end record.
func (s *source) ended() error {
	if _, err := s.in.ReadByte(); !errors.Is(err, io.EOF) {
		return errors.New("the stream goes on after its end record")
	}
	return nil
}

func parseHead(body []byte) (head, error) {
	if len(body) != headBytes {
		return head{}, fmt.Errorf("the head record has %d bytes, not %d", len(body), headBytes)
	}
	if format := binary.LittleEndian.Uint32(body); format != streamFormat {
		return head{}, fmt.Errorf("the stream has format %d, not %d", format, streamFormat)
	}
	return head{
		compacted: int64At(body, 4),
		index:     uint64(int64At(body, 12)),
		term:      uint64(int64At(body, 20)),
	}, nil
}

func parseVersion(body []byte) (version, error) {
	if len(body) < versionHeadBytes {
		return version{}, fmt.Errorf("a version record has %d bytes", len(body))
	}
	keyLength := int(binary.LittleEndian.Uint32(body[40:]))
	rest := body[versionHeadBytes:]
	if keyLength < 1 || keyLength > len(rest) {
		return version{}, fmt.Errorf("a version record of %d bytes has a key of %d", len(body), keyLength)
	}
	return version{
		revision: int64At(body, 0),
		sub:      int64At(body, 8),
		create:   int64At(body, 16),
		version:  int64At(body, 24),
		lease:    int64At(body, 32),
		key:      rest[:keyLength],
		value:    rest[keyLength:],
	}, nil
}

func parseLease(body []byte) (lease, error) {
	if len(body) != leaseBytes {
		return lease{}, fmt.Errorf("a lease record has %d bytes, not %d", len(body), leaseBytes)
	}
	return lease{id: int64At(body, 0), ttl: int64At(body, 8), remaining: int64At(body, 16)}, nil
}

func parseEnd(body []byte) (versions, leases uint64, err error) {
	if len(body) != endBytes {
		return 0, 0, fmt.Errorf("the end record has %d bytes, not %d", len(body), endBytes)
	}
	return uint64(int64At(body, 0)), uint64(int64At(body, 8)), nil
}

func int64At(body []byte, at int) int64 { return int64(binary.LittleEndian.Uint64(body[at:])) }

// sink writes records.
type sink struct{ out *bufio.Writer }

func newSink(out io.Writer) *sink { return &sink{out: bufio.NewWriterSize(out, 1<<20)} }

func (s *sink) head(h head) error {
	body := binary.LittleEndian.AppendUint32(nil, streamFormat)
	body = appendInts(body, h.compacted, int64(h.index), int64(h.term))
	flags := byte(0)
	if h.authEnabled {
		flags = 1
	}
	return s.record(kindHead, append(body, flags))
}

func (s *sink) version(v version) error {
	body := appendInts(nil, v.revision, v.sub, v.create, v.version, v.lease)
	return s.record(kindVersion, binary.LittleEndian.AppendUint32(body, uint32(len(v.key))), v.key, v.value)
}

func (s *sink) lease(l lease) error {
	return s.record(kindLease, appendInts(nil, l.id, l.ttl, l.remaining))
}

func (s *sink) end(versions, leases uint64) error {
	if err := s.record(kindEnd, appendInts(nil, int64(versions), int64(leases))); err != nil {
		return err
	}
	return s.out.Flush()
}

func (s *sink) record(kind byte, parts ...[]byte) error {
	length := 1
	for _, part := range parts {
		length += len(part)
	}
	prefix := append(binary.LittleEndian.AppendUint32(nil, uint32(length)), kind)
	for _, part := range append([][]byte{prefix}, parts...) {
		if _, err := s.out.Write(part); err != nil {
			return err
		}
	}
	return nil
}

func appendInts(to []byte, numbers ...int64) []byte {
	for _, number := range numbers {
		to = binary.LittleEndian.AppendUint64(to, uint64(number))
	}
	return to
}
