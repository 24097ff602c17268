"""Every comparison of a golden folder: one function a file. What a tensor holds is read from its name."""

import re
from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor

from osasis.base import Base
from osasis.content import sample_latent, sample_z
from osasis.diffusion import Schedule, add_noise, ddim_decode, ddim_encode, ddpm_step
from osasis.networks.spn import PlainSPN, TimeSPN
from osasis.precision import Precision, computing
from osasis.verify.folder import FolderError, GoldenFolder
from osasis.verify.networks import GoldenBase, PhotoPrior, fill, frozen, golden_base, photo_prior
from osasis.verify.official import compare_official
from osasis.verify.report import Report
from osasis.verify.training import compare_inference, compare_training

FILES = [
    f"{name}.safetensors"
    for name in ("diffae_weights", "diffae_forward", "samplers", "spn", "training", "inference", "p2_weights", "p2")
]
"""What a folder must hold besides ``meta.json``; ``official/`` may be absent."""


def verify(folder: GoldenFolder, precision: Precision, tolerance: float) -> Report:
    """Run every comparison.

    Raises:
        FolderError: a file or value is missing, or something in the folder cannot be computed; names it.
    """
    if missing := folder.missing(FILES):
        raise FolderError(f"{folder.path}: missing: {', '.join(missing)}")
    if strangers := folder.strangers(FILES):
        raise FolderError(f"{folder.path}: no comparison knows {', '.join(strangers)}")
    report = Report(tolerance)
    config, p2 = folder.meta.table("config"), folder.meta.table("p2")
    training, inference = folder.meta.table("training"), folder.meta.table("inference")
    folder.meta.ignore("variant", "seed", "note", "notes")
    base = golden_base(folder, config, precision)
    prior = photo_prior(folder, p2)
    with torch.no_grad():
        compare_forward(folder, base, report)
        compare_samplers(folder, base, report)
        compare_spn(folder, report)
        compare_photo_prior(folder, prior, precision, report)
    trained = compare_training(folder, base, training, precision, report)
    compare_inference(folder, base, inference, trained, report)
    compare_official(folder, base, prior, report)
    if unused := folder.unused():
        raise FolderError(f"{folder.path}: no comparison knows {', '.join(unused)}")
    for settings in (config, p2, training, inference, folder.meta):
        report.notes += [f"meta.json: {name} is not known and was ignored" for name in settings.close()]
    return report


def compare_forward(folder: GoldenFolder, base: GoldenBase, report: Report) -> None:
    """Encoder, UNet, mixed conditioning (``eps_mix_f012``: z_style on levels 0, 1 and 2), latent prior."""
    g = folder.tensors("diffae_forward.safetensors")
    x, t, z = g["x"], g["t"], g["z_sem"]
    report.compare(g.name, "z_sem", base.diffae.encoder(x), z)
    report.compare(g.name, "eps", base.eps(x, t, base.diffae.encoder(x)), g["eps"])
    for name in g:
        if match := re.fullmatch(r"eps_mix_f(\d*)", name):
            levels = tuple(map(int, match.group(1)))
            with computing(base.precision, folder.device):
                ours = base.diffae.unet(x, t, z, z_style=g["z_style"], style_levels=levels)
            report.compare(g.name, name, ours, g[name])
    report.compare(g.name, "latent_eps", base.latent_prior[0](g["latent_in"], t), g["latent_eps"])


def compare_samplers(folder: GoldenFolder, base: GoldenBase, report: Report) -> None:
    """Respacing, both DDIM trajectories step by step, sampling, latent sampling."""
    g = folder.tensors("samplers.safetensors")
    z = g["z_sem"]
    report.compare(g.name, "z_sem", base.diffae.encoder(g["image"]), z)

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        return base.eps(x, t, z)

    for (steps,) in _found(g, r"timesteps_(\d+)"):
        schedule = _ddim(steps, g.name)
        report.compare(g.name, f"timesteps_{steps}", torch.tensor(schedule.timesteps), g[f"timesteps_{steps}"])
        report.compare(g.name, f"alphas_cumprod_{steps}", schedule.alpha_bar, g[f"alphas_cumprod_{steps}"])
    forward = _by_steps(g, r"forward(\d+)_after_step(\d+)")
    for steps, kept in forward.items():
        xs = list(ddim_encode(g["image"], denoise, _ddim(steps, g.name), max(kept) + 1))
        for i in kept:
            report.compare(g.name, f"forward{steps}_after_step{i}", xs[i], g[f"forward{steps}_after_step{i}"])
        if steps == max(forward):
            report.compare(g.name, "x_t0", xs[-1], g["x_t0"])
    for steps, kept in _by_steps(g, r"reverse(\d+)_(?:after|pred_x0)_step(\d+)").items():
        start = max(kept) + 1
        for i, (x, x0) in zip(
            reversed(range(start)), ddim_decode(g["x_t0"], denoise, _ddim(steps, g.name), start), strict=True
        ):
            for name, ours in {f"reverse{steps}_after_step{i}": x, f"reverse{steps}_pred_x0_step{i}": x0}.items():
                if name in g:
                    report.compare(g.name, name, ours, g[name])
    for (steps,) in _found(g, r"sample(\d+)"):
        *_, (x, _) = ddim_decode(g["noise"], denoise, _ddim(steps, g.name))
        report.compare(g.name, f"sample{steps}", x, g[f"sample{steps}"])
    latent = _found(g, r"latent_sample(\d+)")
    for (steps,) in latent:
        ours = sample_latent(cast(Base, base), g["latent_noise"], steps)
        report.compare(g.name, f"latent_sample{steps}", ours, g[f"latent_sample{steps}"])
    if latent:
        steps = max(steps for (steps,) in latent)
        report.compare(
            g.name, "z_from_latent", sample_z(cast(Base, base), g["latent_noise"], steps), g["z_from_latent"]
        )


def compare_spn(folder: GoldenFolder, report: Report) -> None:
    """Both forms of the SPN."""
    g = folder.tensors("spn.safetensors")
    for form, network in {"time": TimeSPN(), "plain": PlainSPN()}.items():
        fill(network, g.under(f"{form}."), g.name)
        report.compare(g.name, f"out_{form}", frozen(network, folder)(g["image"], g["t"]), g[f"out_{form}"])


def compare_photo_prior(folder: GoldenFolder, prior: PhotoPrior, precision: Precision, report: Report) -> None:
    """The unconditional DDPM: forward pass, respacing, noising, and as many steps as there is noise for."""
    g = folder.tensors("p2.safetensors")
    schedule = prior.schedule

    def output(x: Tensor, t: Tensor) -> Tensor:
        with computing(precision, folder.device):
            return prior.network(x, t).to(x.dtype)

    report.compare(g.name, "out", output(g["x"], g["t"]), g["out"])
    for (steps,) in _found(g, r"timesteps_(\d+)"):
        report.compare(g.name, f"timesteps_{steps}", torch.tensor(schedule.timesteps), g[f"timesteps_{steps}"])
    drawn = sorted((i for (i,) in _found(g, r"p_noise_(\d+)")), reverse=True)
    if not drawn or drawn != list(range(drawn[0], drawn[-1] - 1, -1)) or drawn[0] + 1 >= len(schedule):
        raise FolderError(f"{g.name}: p_noise_… are of steps {drawn}, of {len(schedule)}: they must follow one another")
    x = add_noise(g["image"], g["q_noise"], schedule.alpha_bar_at(drawn[0] + 1))
    report.compare(g.name, "x_start", x, g["x_start"])
    for i in drawn:
        t = schedule.t(i, len(x), x.device)
        out = output(x, t if prior.time_scale is None else t * prior.time_scale)
        x = ddpm_step(x, out, schedule, i, g[f"p_noise_{i}"], predicts_x0=prior.predicts_x0)
        if f"x_after_{i}" in g:
            report.compare(g.name, f"x_after_{i}", x, g[f"x_after_{i}"])


def _ddim(steps: int, place: str) -> Schedule:
    try:
        return Schedule.ddim(steps)
    except ValueError as error:
        raise FolderError(f"{place}: {error}") from None


def _found(names: Iterable[str], pattern: str) -> list[tuple[int, ...]]:
    """The numbers in every name of this pattern, sorted."""
    matches = (re.fullmatch(pattern, name) for name in names)
    return sorted(tuple(map(int, match.groups())) for match in matches if match)


def _by_steps(names: Iterable[str], pattern: str) -> dict[int, list[int]]:
    """Step counts with the steps that were kept of each."""
    found: dict[int, list[int]] = {}
    for steps, i in _found(names, pattern):
        if i not in found.setdefault(steps, []):
            found[steps].append(i)
    return found
