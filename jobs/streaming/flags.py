"""Flags of every job that streams pictures through a pool of workers."""

from pydantic import Field

from cluster.commandline.cli import JobFlags
from cluster.storage import Storage
from osasis.image import MAX_PIXELS, PIXELS_CEILING, FitMode


class StreamFlags(JobFlags):
    """What is read, how, by how many, and where it goes."""

    input: str = Field(
        description="Folder or s3:// prefix of pictures, one file, or a .parquet or .csv file with a column of URIs."
    )
    output: str = Field(description="Where the results go: path or s3:// URI.")
    input_column: str = Field("uri", description="Column of a table input that holds the URIs.")
    fit: FitMode = Field(
        "crop",
        description="crop: the largest centred square; pad: the whole picture, continued by reflection; squash: all of "
        "it, with other proportions, as the official release does.",
    )
    max_pixels: int = Field(MAX_PIXELS, gt=0, le=PIXELS_CEILING, description="Larger pictures are rejected unread.")
    batch_size: int = Field(8, gt=0, description="Pictures a worker takes at once.")
    workers: int | None = Field(None, gt=0, description="Workers; default: as many as the cluster holds.")
    cpus_per_worker: float = Field(0.75, gt=0, description="CPUs of a worker; 0.25 more is set aside for decoding.")
    gpus_per_worker: float = Field(0, ge=0, description="GPUs of a worker; a part of one is possible.")
    limit: int | None = Field(None, gt=0, description="Only the first so many inputs.")
    retry_failed: bool = Field(False, description="Take up again what failed before (rejected stays rejected).")
    dry_run: bool = Field(False, description="Print the resolved plan and touch nothing.")

    @property
    def threads(self) -> int:
        return max(1, round(self.cpus_per_worker))

    @property
    def device(self) -> str:
        return "cuda" if self.gpus_per_worker else "cpu"

    def open_output(self) -> Storage:
        """Reached, and written to unless this is a dry run.

        Raises:
            ValueError: it lies inside the input.
            StorageError: it cannot be reached.
        """
        if f"{Storage.open(self.output)}/".startswith(f"{Storage.open(self.input)}/"):
            raise ValueError("lies inside --input: its pictures would be taken for inputs")
        return reached(self.output, writable=not self.dry_run)


def reached(uri: str, *, writable: bool) -> Storage:
    """The storage, once it has answered."""
    storage = Storage.open(uri)
    if writable:
        storage.check_writable()
    else:
        next(storage.walk(recursive=False), None)
    return storage
