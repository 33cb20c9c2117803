// Package e2e tests the built binary from outside: as a client, an operator, a disk and a power cut would. Everything in
// it runs behind the build tags e2e and bench; see `make e2e` and `make bench`.
package e2e
