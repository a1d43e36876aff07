"""The web interface: a process without root that is a client of the control socket and nothing more."""
