"""Environments that step themselves, in another process or on another host, and ask for actions over a socket."""
