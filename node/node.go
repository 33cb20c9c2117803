// Package node builds the program from its configuration, starts it and stops it: the only place where all parts meet.
package node
