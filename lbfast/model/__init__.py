"""The shared vocabulary: validated types and enumerations, no I/O."""
