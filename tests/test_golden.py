"""The official release's numbers, computed by it on a tiny random model: ours must match them.

Tolerance: relative norm 1e-4; two builds of the release itself differ by up to 7e-6.
"""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from osasis.checkpoint import Style, StyleHeader
from osasis.content import draw_photos, encode_content, sample_z
from osasis.diffae import DiffAE
from osasis.diffusion import (
    Schedule,
    add_noise,
    ddim_decode,
    ddim_encode,
    ddpm_step,
    even_timesteps,
    linear_betas,
)
from osasis.encoder import EncoderConfig
from osasis.finetune import Finetuner, make_reference
from osasis.latent_prior import LatentPrior, LatentPriorConfig
from osasis.settings import LossWeights, TrainConfig
from osasis.spn import PlainSPN, TimeSPN
from osasis.stylize import encode, encoding_for, stylize
from osasis.stylize_config import StylizeConfig
from osasis.unet import UNet, UNetConfig

GOLDEN = Path(__file__).parent / "golden"
META = json.loads((GOLDEN / "meta.json").read_text())
TOLERANCE = 1e-4


def check(ours: Tensor, golden: Tensor) -> None:
    error = (ours - golden).norm() / golden.norm()
    assert error <= TOLERANCE, f"relative norm of the difference: {error:.2e}"


def golden(name: str) -> dict[str, Tensor]:
    return load_file(GOLDEN / f"{name}.safetensors")


def under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


@pytest.fixture(scope="module")
def base() -> Any:
    """The golden networks, in the place of a loaded bundle."""
    c = META["config"]
    weights = golden("diffae_weights")
    shared = {
        "image_size": c["image_size"],
        "model_channels": c["model_channels"],
        "attention_resolutions": c["attention_resolutions"],
        "num_heads": c["num_heads"],
    }
    unet = UNetConfig(
        **shared,
        channel_mult=c["channel_mult"],
        num_res_blocks=c["num_res_blocks"],
        emb_channels=c["embed_channels"],
        cond_channels=c["style_channels"],
        dropout=0.0,
    )
    encoder = EncoderConfig(
        **shared,
        channel_mult=c["enc_channel_mult"],
        num_res_blocks=c["enc_num_res_blocks"],
        out_channels=c["style_channels"],
    )
    diffae = DiffAE(unet, encoder).eval().requires_grad_(False)
    diffae.encoder.load_state_dict(under(weights, "encoder."))
    diffae.unet.load_state_dict(
        {
            name.replace("time_embed.time_embed.", "time_embed."): tensor
            for name, tensor in weights.items()
            if not name.startswith(("encoder.", "latent_net."))
        }
    )
    latent = c["latent"]
    prior = LatentPrior(
        LatentPriorConfig(
            channels=c["style_channels"],
            hidden=latent["hidden"],
            num_layers=latent["num_layers"],
            time_channels=latent["time_emb_channels"],
        )
    ).eval()
    # The release stores the time projection of each layer twice.
    prior.load_state_dict({k: v for k, v in under(weights, "latent_net.").items() if "cond_layers" not in k})
    statistics = golden("samplers")
    return SimpleNamespace(
        diffae=diffae,
        eps=diffae.unet,
        latent_prior=(prior.requires_grad_(False), statistics["conds_mean"], statistics["conds_std"]),
    )


def test_forward_passes(base: Any) -> None:
    g = golden("diffae_forward")
    check(base.diffae.encoder(g["x"]), g["z_sem"])
    check(base.diffae(g["x"], g["x"], g["t"]), g["eps"])
    check(base.latent_prior[0](g["latent_in"], g["t"]), g["latent_eps"])


@pytest.mark.parametrize("levels", [(0,), (0, 1), (0, 1, 2)])
def test_mixed_conditioning(base: Any, levels: tuple[int, ...]) -> None:
    g = golden("diffae_forward")
    ours = base.diffae.unet(g["x"], g["t"], g["z_sem"], z_style=g["z_style"], style_levels=levels)
    check(ours, g["eps_mix_f" + "".join(map(str, levels))])


@pytest.mark.parametrize("steps", [5, 10, 20, 50, 100])
def test_respacing(steps: int) -> None:
    g = golden("samplers")
    schedule = Schedule.ddim(steps)
    assert list(schedule.timesteps) == g[f"timesteps_{steps}"].tolist()
    check(schedule.alpha_bar, g[f"alphas_cumprod_{steps}"])


@torch.no_grad()
def test_forward_trajectory(base: Any) -> None:
    g = golden("samplers")
    xs = list(ddim_encode(g["image"], lambda x, t: base.eps(x, t, g["z_sem"]), Schedule.ddim(50), 25))
    for i in (0, 1, 12, 24):
        check(xs[i], g[f"forward50_after_step{i}"])
    check(xs[-1], g["x_t0"])


@torch.no_grad()
def test_reverse_trajectory(base: Any) -> None:
    g = golden("samplers")
    trajectory = list(ddim_decode(g["x_t0"], lambda x, t: base.eps(x, t, g["z_sem"]), Schedule.ddim(20), 10))
    for i in (9, 8, 5, 1, 0):
        x, x0 = trajectory[9 - i]
        check(x, g[f"reverse20_after_step{i}"])
        check(x0, g[f"reverse20_pred_x0_step{i}"])


@torch.no_grad()
def test_sampling(base: Any) -> None:
    g = golden("samplers")
    *_, (x, _) = ddim_decode(g["noise"], lambda x, t: base.eps(x, t, g["z_sem"]), Schedule.ddim(20))
    check(x, g["sample20"])
    check(sample_z(base, g["latent_noise"]), g["z_from_latent"])


@pytest.mark.parametrize(("form", "network"), [("time", TimeSPN()), ("plain", PlainSPN())])
def test_spn(form: str, network: TimeSPN | PlainSPN) -> None:
    g = golden("spn")
    network.load_state_dict(under(g, f"{form}."))
    check(network(g["image"], g["t"]), g[f"out_{form}"])


@torch.no_grad()
def test_photo_prior() -> None:
    c, g = META["p2"], golden("p2")
    prior = UNet(
        UNetConfig(
            image_size=c["image_size"],
            model_channels=c["num_channels"],
            channel_mult=tuple(map(int, c["channel_mult"].split(","))),
            num_res_blocks=c["num_res_blocks"],
            attention_resolutions=(int(c["attention_resolutions"]),),
            emb_channels=4 * c["num_channels"],
            head_channels=c["num_head_channels"],
            learn_sigma=c["learn_sigma"],
        )
    ).eval()
    prior.load_state_dict(golden("p2_weights"))
    check(prior(g["x"], g["t"]), g["out"])
    schedule = Schedule.spaced(linear_betas(), even_timesteps(10))
    assert list(schedule.timesteps) == g["timesteps_10"].tolist()
    x = add_noise(g["image"], g["q_noise"], schedule.alpha_bar_at(5))
    check(x, g["x_start"])
    for i in reversed(range(5)):
        x = ddpm_step(x, prior(x, schedule.t(i, len(x), x.device)), schedule, i, g[f"p_noise_{i}"])
        check(x, g[f"x_after_{i}"])


def toy_clip(weights: Tensor) -> Any:
    def encode_image(x: Tensor) -> Tensor:
        return torch.tanh(torch.nn.functional.adaptive_avg_pool2d(x, 8).flatten(1) @ weights)

    return encode_image


@pytest.fixture(scope="module")
def finetuned(base: Any) -> tuple[Finetuner, list[dict[str, float]]]:
    """The official trainer's two iterations, every random draw taken from the golden file."""
    args, g = META["training"]["args"], golden("training")
    config = TrainConfig(
        iterations=args["n_iter"],
        batch_size=args["batch_size"],
        learning_rate=args["lr"],
        spn_learning_rate=args["lr"],
        t0_ratio=args["t0_ratio"],
        encode_steps=args["T_train_for"],
        decode_steps=args["T_train_back"],
        lambda_spn=args["lambda_map"],
        weights=LossWeights(
            cross_domain=args["cross_dom"],
            in_domain=args["in_dom"],
            recon_clip=args["recon_clip"],
            recon_l1=args["recon_l1"],
            recon_perceptual=args["recon_lpips"],
        ),
        dropout=False,
    )
    reference = make_reference(base, g["style_image"], g["style_photo"], config)
    unet = UNet(base.diffae.unet.config)
    unet.load_state_dict(base.diffae.unet.state_dict())
    finetuner = Finetuner(unet, reference, config, [toy_clip(g["toy_clip_w"])])
    finetuner.spn.load_state_dict(under(golden("spn"), "time."))
    losses = []
    for i in range(config.iterations):
        photos = draw_photos(
            base,
            g[f"randn_{2 * i}"],
            g[f"randn_{2 * i + 1}"],
            steps=args["T_train_back"],
            latent_steps=args["T_latent"],
        )
        check(photos, g["content_photo_0" if i == 0 else "last_content_photo"])
        losses += finetuner.iteration(encode_content(base, photos, steps=config.encode_steps, t0_ratio=config.t0_ratio))
    return finetuner, losses


def test_training_losses(finetuned: tuple[Finetuner, list[dict[str, float]]]) -> None:
    finetuner, losses = finetuned
    weights = finetuner.config.weights
    assert len(losses) == len(META["training"]["losses"])
    for ours, theirs in zip(losses, META["training"]["losses"], strict=True):
        assert ours["cross_domain"] * weights.cross_domain == pytest.approx(theirs["cross_dom"], rel=TOLERANCE)
        assert ours["in_domain"] * weights.in_domain == pytest.approx(theirs["in_dom"], rel=TOLERANCE)
        assert ours["recon_clip"] * weights.recon_clip == pytest.approx(theirs["recon_clip"], rel=TOLERANCE)
        assert ours["recon_l1"] * weights.recon_l1 == pytest.approx(theirs["recon_l1"], rel=TOLERANCE)
        assert ours["total"] == pytest.approx(theirs["total"], rel=TOLERANCE)


def test_training_weights(finetuned: tuple[Finetuner, list[dict[str, float]]], base: Any) -> None:
    finetuner, _ = finetuned
    g = golden("training")
    for name, tensor in under(g, "final_spn.").items():
        check(finetuner.spn.state_dict()[name], tensor)
    for name, tensor in under(g, "final_diffae_B.").items():
        trained = base.diffae if name.startswith("encoder.") else finetuner.unet  # the encoder is never touched
        check(trained.state_dict()[name], tensor)


def test_inference_on_the_finetuned_model(finetuned: tuple[Finetuner, list[dict[str, float]]], base: Any) -> None:
    finetuner, _ = finetuned
    args, g = META["inference"], golden("inference")
    config = StylizeConfig(
        t0_ratio=args["t0_ratio"],
        encode_steps=args["T_infer_for"],
        decode_steps=args["T_infer_back"],
        lambda_spn=args["lambda_spn"],
        style_levels=tuple(args["ref_cond_scale"]),
    )
    header = StyleHeader(
        style_id="golden", base_name="golden", base_fingerprint="", preset="official", config=finetuner.config
    )
    style = Style(header, finetuner.unet.eval(), finetuner.spn.eval(), g["z_style"], ())
    encoded = encode(base, g["image"], encoding_for(style, config))
    check(encoded.z_in, g["z_in"])
    check(encoded.x_t0, g["x_t0"])
    check(stylize(style, encoded, config), g["stylized"])
