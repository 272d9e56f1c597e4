// Package dns stands in for the list of all that certificates can be proven with by DNS: some 150 providers, whose
// libraries are gigabytes to download and an hour to compile. Certificates from Secrets, and those proven by HTTP or TLS, want none of it.
package dns

import (
	"fmt"

	"github.com/go-acme/lego/v5/challenge"
)

// NewDNSChallengeProviderByName knows none.
func NewDNSChallengeProviderByName(name string) (challenge.Provider, error) {
	return nil, fmt.Errorf("cannot prove a name by DNS at %q: this Traefik was built without such providers; use a challenge of HTTP or TLS, or upstream's image", name)
}
