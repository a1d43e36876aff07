"""Probes of real servers and the verdicts drawn from them."""
