"""Sockets: AF_UNIX and the loopback network that is the sandbox's own."""
