"""z_sem of a decoded image set, by batched Ray Data actors; one file per shard, so that a second run resumes."""

from typing import Any

import ray.data
import torch
from ray.data import ActorPoolStrategy
from safetensors.torch import load as load_tensors
from safetensors.torch import load_file
from safetensors.torch import save as dump_tensors
from torch import Tensor

from cluster.runtime.resources import Resources
from cluster.storage import Storage
from cluster.storage.cache import fetch
from jobs.pretraining.dataset import open_shard, quiet_data, shard_names
from osasis.networks.diffae import DiffAE
from osasis.pretrain.crops import CropSampler
from osasis.pretrain.recipe import Recipe

_BATCH = 64


def load_diffae(recipe: Recipe, work: Storage, file: str) -> DiffAE:
    """The trained DiffAE of this working folder."""
    network = DiffAE(recipe.unet, recipe.encoder).eval().requires_grad_(False)
    network.load_state_dict({name: tensor.float() for name, tensor in load_tensors(work.read_bytes(file)).items()})
    return network


class ShardEncoder:
    """Actor: encodes whole shards with a DiffAE that it loads once."""

    def __init__(self, recipe: dict[str, Any], work: Storage, diffae_file: str, data: str, out: str, gpu: bool) -> None:
        self.recipe = Recipe.model_validate(recipe)
        self.device = torch.device("cuda" if gpu else "cpu")
        self.encoder = load_diffae(self.recipe, work, diffae_file).encoder.to(self.device)
        self.work, self.data, self.out = work, data, out

    @torch.no_grad()
    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        for shard in batch["shard"]:
            crops = CropSampler(open_shard(self.work, self.data, shard), self.recipe.image_size)
            codes = []
            for start in range(0, len(crops), _BATCH):
                images = torch.stack([crops.whole(i) for i in range(start, min(start + _BATCH, len(crops)))])
                codes += [self.encoder(part.to(self.device)).cpu() for part in (images, images.flip(-1))]
            self.work.write_bytes(f"{self.out}/{shard}.safetensors", dump_tensors({"z": torch.cat(codes)}))
        return batch


def latents_name(work: Storage, data: str, diffae_file: str) -> str:
    """Folder of a set's codes below the working folder: another set or another DiffAE has another."""
    return f"latents/{data.rpartition('/')[2]}-{work.sha256(diffae_file)[:16]}"


def encode_all(recipe: Recipe, work: Storage, data: str, diffae_file: str, workers: int, resources: Resources) -> None:
    """Write z_sem of every image and of its mirror image, in the set's full framing."""
    out = latents_name(work, data, diffae_file)
    todo = [s for s in shard_names(work, data) if not work.exists(f"{out}/{s}.safetensors")]
    if not todo:
        return
    with quiet_data():
        shards = ray.data.from_items([{"shard": shard} for shard in todo], override_num_blocks=len(todo))
        encoded = shards.map_batches(
            ShardEncoder,
            fn_constructor_args=(recipe.model_dump(mode="json"), work, diffae_file, data, out, resources.gpus > 0),
            batch_size=1,
            compute=ActorPoolStrategy(size=min(workers, len(todo))),
            num_cpus=resources.cpus,
            num_gpus=resources.gpus or None,
        )
        for _ in encoded.iter_rows():
            pass


def load_codes(work: Storage, data: str, diffae_file: str) -> Tensor:
    """What :func:`encode_all` has written: [2N, D]."""
    folder = fetch(work.child_uri(latents_name(work, data, diffae_file)))
    return torch.cat([load_file(folder / f"{shard}.safetensors")["z"] for shard in shard_names(work, data)])
