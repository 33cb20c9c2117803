//go:build unix

package main

import "syscall"

// private makes whatever the process creates its owner's only, also what libraries create with modes of their own.
func private() { syscall.Umask(0o077) }
