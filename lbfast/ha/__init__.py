"""The clustered pair: heartbeat, election, takeover, replication, pairing."""
