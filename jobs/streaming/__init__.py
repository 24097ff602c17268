"""The parts of streaming jobs."""
