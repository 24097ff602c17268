"""Kinds of inputs: how each is listed and read. :mod:`jobs.streaming.listing` chooses among them."""
