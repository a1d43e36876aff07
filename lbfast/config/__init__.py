"""Configuration: TOML in and out, slots, publication to shared memory."""
