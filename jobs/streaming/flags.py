"""Flags of every job that streams pictures through a pool of workers."""

from contextlib import suppress

from pydantic import Field

from cluster.commandline.cli import ConcurrencyFlags, ElasticFlags, JobFlags, OutputUri, Uri
from cluster.storage import Storage, StorageError
from cluster.storage.cache import default_cache_dir
from jobs.streaming.encoding import Encode
from jobs.streaming.listing import InputFormat
from osasis.image import DECODER, MAX_PIXELS, PIXELS_CEILING, FitMode
from osasis.precision import Precision


class InputFlags(JobFlags):
    """Which pictures are read, and how each becomes a square."""

    input: Uri = Field(
        description="Folder or prefix of pictures, of Parquet files or of WebDataset shards (.tar), or one of these; a "
        ".csv, .jsonl or .txt list of URIs; the manifest.json of an S3 Inventory."
    )
    input_column: str | None = Field(
        None,
        description="Column of a table that holds the URIs or the pictures (default: uri, or the only column of "
        "{bytes, path}); of shards, the extension of the members to take (default: all pictures).",
    )
    input_format: InputFormat = Field(
        "auto",
        description="What to take from a folder; auto: pictures where there are any, else Parquet files or shards.",
    )
    limit: int | None = Field(None, gt=0, description="Only the first N inputs.")
    fit: FitMode = Field(
        "crop",
        description="crop: the largest centred square; pad: the whole picture, extended by reflection; squash: the "
        "whole picture, its proportions changed, as in the official release.",
    )
    max_pixels: int = Field(MAX_PIXELS, gt=0, le=PIXELS_CEILING, description="Larger pictures are rejected unread.")


class OutputFlags(JobFlags):
    """Where results go, and what a second run does."""

    output: OutputUri = Field(description="Where the results go.")
    retry_failed: bool = Field(False, description="Try again what failed before (rejected inputs stay rejected).")
    former_decoding: bool = Field(
        False,
        description="Continue an output begun by a version that ignored colour profiles; right where inputs are sRGB.",
    )

    @property
    def decoder(self) -> int:
        """Version of decoding that results are identified by."""
        return 1 if self.former_decoding else DECODER


class PoolFlags(ElasticFlags):
    cpus_per_worker: float = Field(0.75, gt=0, description="CPUs of each worker; decoding takes 0.25 more.")
    batch_size: int = Field(8, gt=0, description="Pictures per batch of a worker.")

    def encode(self, base_location: str, precision: Precision = "float32") -> Encode:
        """The stage, as each worker runs it; on which device is known once the cluster is."""
        return Encode(
            base_location=base_location,
            cache_dir=default_cache_dir(),
            batch_size=self.batch_size,
            threads=max(1, round(self.cpus_per_worker)),
            precision=precision,
        )


class StreamFlags(InputFlags, PoolFlags, OutputFlags, ConcurrencyFlags):
    """What a streaming job takes beside the settings of its method."""

    def open_output(self) -> Storage:
        """Reached, and written to unless this is a dry run.

        Raises:
            ValueError: it lies inside the input.
            StorageError: it cannot be reached.
        """
        return output_beside(self.output, self.input, "--input", writable=not self.dry_run)


def output_beside(uri: str, inputs_uri: str, flag: str, *, writable: bool) -> Storage:
    """The output, once it has answered; ``flag`` names the inputs.

    Raises:
        ValueError: it lies inside the inputs.
        StorageError: it cannot be reached.
    """
    output, inputs = Storage.open(uri), None
    with suppress(StorageError):  # a wrong input is reported there, not here
        inputs = Storage.open(inputs_uri)
    if inputs and f"{output}/".startswith(f"{inputs}/"):
        raise ValueError(f"lies inside {flag}: its pictures would be taken for inputs")
    return reached(uri, writable=writable)


def reached(uri: str, *, writable: bool) -> Storage:
    """The storage, once it has answered."""
    storage = Storage.open(uri)
    if writable:
        storage.check_writable()
    else:
        next(storage.walk(recursive=False), None)
    return storage
