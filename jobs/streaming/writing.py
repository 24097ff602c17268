"""Stage "write": pixels → a durable file.

Takes [S, S, 3] uint8; gives the file's URI and sha256, once it is stored. Needs the output's storage; runs in the
worker's threads while it computes on. A fault of the storage stops the run: the picture stays undecided.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from catalog.output_names import picture_name
from cluster.storage import Storage
from jobs.streaming.rows import Row
from osasis.image import encode_png


@dataclass(frozen=True)
class Write:
    """Writes pictures below an output."""

    output: Storage

    def __call__(self, label: str, key: str, pixels: npt.NDArray[np.uint8]) -> Row:
        """Where the picture of ``key`` in the variant ``label`` is, and its sha256."""
        name = picture_name(label, key)
        data = encode_png(Image.fromarray(pixels))
        self.output.write_bytes(name, data)
        return {"output_uri": self.output.child_uri(name), "output_sha256": hashlib.sha256(data).hexdigest()}
