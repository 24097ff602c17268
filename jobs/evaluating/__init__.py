"""The parts of the evaluation job."""
