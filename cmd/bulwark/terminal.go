package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// maxSecret bounds a passphrase or share, in bytes.
const maxSecret = 4096

func (a *app) onTerminal() bool { return term.IsTerminal(int(a.stdin.Fd())) }

// secret reads a passphrase or share: from file ("-" is standard input), from the terminal without echo, or as the first
// line of standard input. The caller clears it.
func (a *app) secret(file, prompt string) ([]byte, error) {
	switch {
	case file != "" && file != "-":
		f, err := os.Open(file)
		if err != nil {
			return nil, fmt.Errorf("reading the secret: %w", err)
		}
		defer f.Close()
		return firstLine(f)
	case file == "-" || !a.onTerminal():
		return firstLine(a.stdin)
	}
	fmt.Fprint(a.stderr, prompt)
	b, err := term.ReadPassword(int(a.stdin.Fd()))
	fmt.Fprintln(a.stderr)
	if err != nil {
		return nil, fmt.Errorf("reading from the terminal: %w", err)
	}
	return notEmpty(b)
}

func firstLine(r io.Reader) ([]byte, error) {
	line, err := bufio.NewReader(io.LimitReader(r, maxSecret+1)).ReadBytes('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("reading the secret: %w", err)
	}
	if len(line) > maxSecret {
		return nil, usage("the secret is longer than %d bytes", maxSecret)
	}
	return notEmpty(bytes.TrimRight(line, "\r\n"))
}

func notEmpty(b []byte) ([]byte, error) {
	if len(b) == 0 {
		return nil, usage("nothing was given: type it on a terminal, give it on standard input, or name a file")
	}
	return b, nil
}

// confirm asks for name to be typed again before it is destroyed. sure is --yes.
func (a *app) confirm(what, name string, sure bool) error {
	if sure {
		return nil
	}
	if !a.onTerminal() {
		return usage("this destroys the %s %s and all its data for ever: add --yes to do it", what, clean(name))
	}
	fmt.Fprintf(a.stderr, "This destroys the %s %s and all its data for ever. Type its name to go on: ", what, clean(name))
	line, err := bufio.NewReader(io.LimitReader(a.stdin, maxSecret)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("reading from the terminal: %w", err)
	}
	if strings.TrimSpace(line) != name {
		return usage("that is not its name: nothing was destroyed")
	}
	return nil
}

// ask reads one line that is no secret from the terminal.
func (a *app) ask(prompt string) (string, error) {
	fmt.Fprint(a.stderr, prompt)
	line, err := bufio.NewReader(io.LimitReader(a.stdin, maxSecret)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("reading from the terminal: %w", err)
	}
	return strings.TrimSpace(line), nil
}
