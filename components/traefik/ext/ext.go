// Package ext is a module of Traefik's repository that nobody publishes: where its maker's other product has more settings. Traefik
// itself has none.
package ext

// HTTP is beside routers, services and middlewares.
type HTTP struct{}

// Router is beside what a router has.
type Router struct{}
