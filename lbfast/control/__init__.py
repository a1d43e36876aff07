"""The brain: owns the configuration, carries out every verb, reads the workers' memory."""
