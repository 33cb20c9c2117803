// Command bulwark runs a node, and talks to one: through the unix socket in its data folder, or over the network with an
// operator token.
//
// Promise: a command that succeeds ends with exit code 0 and says what it did on standard output; one that fails says in
// one line on standard error what is wrong and what to do. No secret is ever an argument: it is read from a file, the
// environment or the terminal.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	private()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	a := &app{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, environ: os.Environ()}
	code := a.run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}
