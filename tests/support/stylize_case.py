"""A small stylize command with everything it needs: base, registered styles, inputs."""

import hashlib
import sys
from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

from catalog.manifest import Manifest
from catalog.pictures import read_picture, shard_of
from catalog.schema import NewStyle
from catalog.store import StyleCatalog
from cluster.storage import Storage
from jobs.streaming.command import StylizeFlags, resolve
from jobs.streaming.packing import swept
from jobs.streaming.planning import Tally
from jobs.streaming.run import Executes, run
from jobs.streaming.stylizing import Stylizer
from jobs.stylize import stages
from osasis.base import load_base
from osasis.image import decode_image
from tests.support.hostile import encoded, picture
from tests.support.tiny import SIZE, make_tiny_base, tiny_style_bytes

_RUNS = count()


@dataclass
class Case:
    """``root`` holds the catalog, the inputs (``in``) and the outputs (``out``); the base is a local folder."""

    root: Storage
    base: Path
    flags: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def make(cls, root: Storage, folder: Path, styles: int = 2) -> "Case":
        case = cls(root, make_tiny_base(folder / "base", bank=False))
        case.flags = {
            "storage": root.uri, "input": root.child_uri("in"), "output": root.child_uri("out"), "styles": "all",
            "base": str(case.base), "encode_steps": 10, "decode_steps": 5, "batch_size": 4, "workers": 1,
        }  # fmt: skip
        for i in range(styles):
            case.register(f"style-{i}", seed=i)
        return case

    def register(self, style_id: str, seed: int = 0, reference: str = "none") -> None:
        """Put a random style into the catalog."""
        base = load_base(self.base)
        data = tiny_style_bytes(base, style_id, seed)
        name = f"styles/{style_id}-{seed}.safetensors"
        self.root.write_bytes(name, data)
        digest = hashlib.sha256(data).hexdigest()
        StyleCatalog.open(self.root).register(
            NewStyle(
                style_id=style_id, base_name="tiny", base_fingerprint=base.fingerprint,
                checkpoint_uri=self.root.child_uri(name), checkpoint_sha256=digest, checkpoint_bytes=len(data),
                preset="official", train_config={}, reference_uri=reference, reference_sha256="0" * 64, run_id="test",
                train_seconds=0, device="cpu",
            )
        )  # fmt: skip

    def add(self, files: dict[str, bytes]) -> None:
        """Put inputs in place."""
        for name, data in files.items():
            self.root.write_bytes(f"in/{name}", data)

    def add_pictures(self, count: int) -> None:
        self.add({f"{i:05d}.png": encoded(picture(24, 20, seed=i), "PNG") for i in range(count)})

    def run(self, worker: type[Stylizer] = Stylizer, *, execute: Executes | None = None, **flags: Any) -> Tally:
        """The job in this process."""
        tally = Tally()
        job = resolve(StylizeFlags(**(self.flags | flags)))
        run_id = f"run-{next(_RUNS)}"
        with swept(job.output, Manifest(job.output), run_id, job.labels if job.flags.pack else ()):
            run(replace(stages(job, run_id), worker=worker), job.flags, tally, execute)
        return tally

    def argv(self, **flags: Any) -> list[str]:
        """The command line."""
        options = [f"--{name.replace('_', '-')}={value}" for name, value in (self.flags | flags).items()]
        return [str(Path(__file__).parents[2] / "jobs" / "stylize.py"), *options]

    def command(self, **flags: Any) -> list[str]:
        return [sys.executable, *self.argv(**flags)]

    def manifest(self) -> Manifest:
        return Manifest(self.root.child("out"))

    def rows(self) -> list[dict[str, Any]]:
        """The manifest."""
        table = self.manifest().table()
        return [] if table is None else table.to_pyarrow_table().to_pylist()

    def check_consistent(self, *, killed: bool = False) -> Counter[str]:
        """One row a pair; files and "done" rows are the same, byte for byte, and nothing else lies about. Statuses.

        ``killed``: writers were killed, and so may have left temporary files, which no listing shows.
        """
        rows = self.rows()
        pairs = Counter((row["input_uri"], row["style_id"], row["version"], row["params_hash"]) for row in rows)
        assert not [pair for pair, count in pairs.items() if count > 1]
        done = {row["output_uri"]: row for row in rows if row["status"] == "done"}
        output = self.root.child("out")
        files = [f"{folder}/{name}" for folder in ("images", "packed") for name in output.list_files(folder)]
        assert {output.child_uri(name) for name in files} == {shard_of(uri) for uri in done}
        for row in done.values():
            data = read_picture(row)
            assert hashlib.sha256(data).hexdigest() == row["output_sha256"]
            assert decode_image(data).size == (SIZE, SIZE)
        if self.root.is_local and not killed:
            assert not list(Path(self.root.uri).rglob(".osasis-tmp-*"))
        return Counter(row["status"] for row in rows)
