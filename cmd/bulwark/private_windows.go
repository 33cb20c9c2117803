package main

// private does nothing on Windows, where a folder's access list decides, and new files inherit it.
func private() {}
