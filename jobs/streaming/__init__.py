"""The parts of which jobs are composed."""
