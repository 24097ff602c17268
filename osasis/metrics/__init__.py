"""Measures of a stylized picture: how much structure it kept, and how near it came to the reference's style."""

from osasis.metrics.bundle import style_distance
from osasis.metrics.color_transfer import color_transfer
from osasis.metrics.judge import Judge, Measures, load_judge
from osasis.metrics.pixels import gradient_correlation, structural_similarity

__all__ = [
    "Judge",
    "Measures",
    "color_transfer",
    "gradient_correlation",
    "load_judge",
    "structural_similarity",
    "style_distance",
]
