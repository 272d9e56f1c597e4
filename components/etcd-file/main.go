// etcd-file writes and reads the database file of etcd 3.7 (bbolt), as `etcdctl snapshot save` leaves it, from and to
// the stream that stream.go describes. src/datastore/etcd-file is its only user.
//
//	etcd-file write FILE <STREAM
//	etcd-file read FILE >STREAM
//	etcd-file read-without-digest FILE >STREAM
//	etcd-file members FILE >JSON
package main

import (
	"fmt"
	"os"
	"runtime/debug"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) (err error) {
	if len(args) != 2 {
		return fmt.Errorf("usage: etcd-file write|read|read-without-digest|members FILE")
	}
	command, path := args[0], args[1]
	// bbolt maps the file and trusts it: what is damaged shows as a panic, or as a fault beyond the file's end.
	debug.SetPanicOnFault(true)
	defer func() {
		if fault := recover(); fault != nil {
			err = fmt.Errorf("%s is damaged: %v", path, fault)
		}
	}()
	switch command {
	case "write":
		return write(path, os.Stdin)
	case "read":
		return read(path, os.Stdout, true)
	case "read-without-digest":
		return read(path, os.Stdout, false)
	case "members":
		return printMembers(path, os.Stdout)
	}
	return fmt.Errorf("unknown command %q: there are write, read, read-without-digest and members", command)
}
