"""Castable jewellery models made from numbers: sound ones whose volume is known without measuring, and broken ones.

For the demo, the tests and the benchmarks; owns nothing and speaks to nobody. `shapes` computes surfaces, `files`
and `indexed` write them, `broken` spoils them.
"""

from lostwax.samples.broken import BrokenSample, broken
from lostwax.samples.files import Sample, generate, write_ascii, write_binary
from lostwax.samples.indexed import write_3mf, write_obj
from lostwax.samples.shapes import Shape, band, pendant, signet, solitaire

__all__ = [
    "BrokenSample",
    "Sample",
    "Shape",
    "band",
    "broken",
    "generate",
    "pendant",
    "signet",
    "solitaire",
    "write_3mf",
    "write_ascii",
    "write_binary",
    "write_obj",
]
