"""The command line: a thin skin over lbfast.control.client."""
