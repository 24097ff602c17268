"""Comparing this implementation with numbers of the official release: ``python -m osasis.verify DIR``."""

from osasis.verify.compare import FILES, verify
from osasis.verify.folder import FolderError, GoldenFolder
from osasis.verify.report import Report

__all__ = ["FILES", "FolderError", "GoldenFolder", "Report", "verify"]
