package main

import (
	"encoding/json"
	"fmt"
	"io"

	bolt "go.etcd.io/bbolt"
)

// member is what etcd keeps of each (server/v3, etcdserver/api/membership/member.go), but for its id, which is the key: no number
// that JSON's readers agree on.
type member struct {
	ID         string   `json:"id"`
	Name       string   `json:"name"`
	PeerURLs   []string `json:"peerURLs"`
	ClientURLs []string `json:"clientURLs"`
	IsLearner  bool     `json:"isLearner"`
}

// printMembers prints whom the data of a member that does not run know as members.
func printMembers(path string, out io.Writer) error {
	return view(path, func(tx *bolt.Tx) error {
		found := []member{}
		if bucket := tx.Bucket(membersBucket); bucket != nil {
			err := bucket.ForEach(func(id, value []byte) error {
				var kept struct {
					member
					ID json.RawMessage `json:"id"`
				}
				if err := json.Unmarshal(value, &kept); err != nil {
					return fmt.Errorf("member %s: %w", id, err)
				}
				kept.member.ID = string(id)
				found = append(found, kept.member)
				return nil
			})
			if err != nil {
				return err
			}
		}
		return json.NewEncoder(out).Encode(found)
	})
}
