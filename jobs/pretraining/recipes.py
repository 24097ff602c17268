"""The recipe a command means, and whether its data and workers fit it."""

import json
from dataclasses import replace
from typing import Any

from cluster.commandline.cli import ConfigError, Problem, check, read_yaml
from cluster.storage import Storage
from jobs.pretraining.parts import part_file
from osasis.pretrain.recipe import PARTS, RECIPES, PartName, Recipe, current_fields, current_part

_PLAN = "plan.json"
_NETWORKS = {"image_size", "unet", "encoder", "latent_prior", "photo_prior", "clip"}


def read_recipe(name: str, steps: dict[str, int]) -> Recipe:
    """A recipe by name, or from a YAML or JSON file, which may say ``extends: <name>`` and only what differs.

    Args:
        steps: part → optimizer steps instead of the recipe's.

    Raises:
        ConfigError: no such recipe, unknown keys, sizes that do not agree, no such part.
    """
    if name in RECIPES:
        recipe = RECIPES[name]()
    elif name.endswith((".yaml", ".yml", ".json")):
        file = read_yaml(name)
        data = dict(file.data)
        if (extends := data.pop("extends", None)) is not None:
            if extends not in RECIPES:
                raise ConfigError(
                    file.problem(["extends"], f"no recipe {extends!r}", f"there are: {', '.join(RECIPES)}")
                )
            data = _merged(RECIPES[extends]().model_dump(mode="json"), current_fields(data))
        recipe = check(replace(file, data=data), Recipe)
    else:
        hint = f"there are: {', '.join(RECIPES)}; or give a .yaml or .json file"
        raise ConfigError(Problem("--recipe", f"no recipe {name!r}", hint))
    steps = {current_part(part): count for part, count in steps.items()}
    if unknown := steps.keys() - set(PARTS):
        raise ConfigError(Problem("--steps", f"no part {min(unknown)!r}", f"there are: {', '.join(PARTS)}"))
    if bad := [part for part, count in steps.items() if count <= 0]:
        raise ConfigError(Problem("--steps", f"{bad[0]}: must be above 0"))
    changed = {
        f"{part}_training": recipe.training(part).model_copy(update={"steps": steps[part]})
        for part in PARTS
        if part in steps
    }
    return recipe.model_copy(update=changed)


def check_fit(recipe: Recipe, todo: list[PartName], images: int, workers: int, work: Storage) -> None:
    """Refuse what cannot work before anything starts.

    Raises:
        ConfigError: a batch that cannot be split evenly, fewer images than a batch takes, or a part that another needs.
    """
    problems = []
    for part in todo:
        config = recipe.training(part)
        place = f"{part}_training.batch_size"
        try:
            config.share(workers)
        except ValueError as error:
            problems.append(Problem(place, str(error)))
        if part != "latent_prior" and images < config.batch_size:
            hint = "give more images, or a recipe with smaller batches"
            problems.append(Problem(place, f"a batch of {config.batch_size} of only {images} images", hint))
        if part in ("latent_prior", "photo_prior") and "diffae" not in todo and not work.exists(part_file("diffae")):
            problems.append(Problem("--parts", f"{part} starts from the DiffAE", "train diffae first, or with it"))
    if problems:
        raise ConfigError(problems)


def keep_plan(recipe: Recipe, work: Storage, *, write: bool) -> None:
    """Remember the networks of a working folder, whose checkpoints and parts fit no others.

    Raises:
        ConfigError: the folder holds work on other networks.
    """
    networks = recipe.model_dump(mode="json", include=_NETWORKS)
    if work.exists(_PLAN):
        kept: dict[str, Any] = json.loads(work.read_bytes(_PLAN))
        if changed := sorted(name for name in networks if kept.get(name) != networks[name]):
            hint = "use the recipe it was started with, or another --out"
            raise ConfigError(Problem("--recipe", f"{work} holds work on another {', '.join(changed)}", hint))
    elif write:
        work.write_bytes(_PLAN, json.dumps(networks).encode())


def still_to_train(parts: tuple[PartName, ...], work: Storage) -> list[PartName]:
    """In the order in which they build on each other."""
    return [part for part in PARTS if part in parts and not work.exists(part_file(part))]


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    both = {
        key: _merged(below[key], value) if isinstance(value, dict) and isinstance(below.get(key), dict) else value
        for key, value in above.items()
    }
    return below | both
