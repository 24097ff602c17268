"""Networks and settings as ``meta.json`` describes them, in the release's words."""

from types import SimpleNamespace
from typing import Any, NamedTuple

from pydantic import ValidationError
from torch import Tensor, nn

from osasis.diffusion import Schedule, cosine_betas, linear_betas, respaced_timesteps
from osasis.errors import ForeignFile
from osasis.importers.diffae import check_fit, split_weights
from osasis.networks.diffae import DiffAE
from osasis.networks.encoder import EncoderConfig
from osasis.networks.latent_prior import LatentPrior, LatentPriorConfig
from osasis.networks.unet import UNet, UNetConfig
from osasis.precision import Precision, computing
from osasis.settings import LossWeights, TrainConfig
from osasis.verify.folder import FolderError, GoldenFolder, Settings

_DEFAULT_MULT = {512: (0.5, 1, 1, 2, 2, 4, 4), 256: (1, 1, 2, 2, 4, 4), 128: (1, 1, 2, 3, 4), 64: (1, 2, 3, 4)}
"""guided-diffusion's multipliers where none are given."""


class GoldenBase:
    """The golden networks in the place of a loaded bundle: frozen, in evaluation mode."""

    def __init__(self, diffae: DiffAE, prior: LatentPrior, mean: Tensor, std: Tensor, precision: Precision) -> None:
        self.diffae, self.precision = diffae, precision
        self.device = mean.device
        self.spec = SimpleNamespace(name="golden", unet=diffae.unet.config)
        self.latent_prior = (prior, mean, std)

    def eps(self, x: Tensor, t: Tensor, z: Tensor) -> Tensor:
        with computing(self.precision, x.device):
            return self.diffae.unet(x, t, z).to(x.dtype)

    def ddim(self, steps: int) -> Schedule:
        return Schedule.ddim(steps)


class PhotoPrior(NamedTuple):
    network: UNet
    schedule: Schedule
    time_scale: float | None
    """What timesteps are multiplied by before the network sees them; None: they stay integers."""
    predicts_x0: bool


def frozen(network: nn.Module, folder: GoldenFolder) -> Any:
    return network.eval().requires_grad_(False).to(folder.device, folder.dtype)


def fill(network: nn.Module, tensors: dict[str, Tensor], file: str) -> None:
    """Load weights.

    Raises:
        FolderError: they are not those of the network that ``meta.json`` describes.
    """
    try:
        check_fit(network, tensors, f"{file} does not fit meta.json")
    except ForeignFile as error:
        raise FolderError(str(error)) from None
    network.load_state_dict(tensors)


def diffae_configs(c: Settings) -> tuple[UNetConfig, EncoderConfig, LatentPriorConfig]:
    """From the table ``config``."""
    resampled = c.take("resblock_updown", True)
    if not resampled:
        c.expect("conv_resample", True)
    shared = {
        "image_size": c.take("image_size"),
        "model_channels": c.take("model_channels"),
        "num_heads": c.take("num_heads", 1),
        "head_channels": _set(c.take("num_head_channels", -1)),
        "qkv_first": c.take("use_new_attention_order", False),
        "conv_resample": not resampled,
    }
    mult, blocks, attention = c.take("channel_mult"), c.take("num_res_blocks"), c.take("attention_resolutions")
    z_channels = c.take("style_channels")
    enc_mult, enc_blocks = c.take("enc_channel_mult", None) or mult, c.take("enc_num_res_blocks", blocks)
    enc_attention = c.take("enc_attention_resolutions", None) or c.take("enc_attn_resolutions", None) or attention
    for name, value in {"enc_pool": "adaptivenonzero", "resnet_two_cond": True, "num_input_res_blocks": None}.items():
        c.expect(name, value)
    c.expect("dropout_during_generation", 0, None)
    c.expect("resnet_cond_channels", None, z_channels)
    c.expect("num_heads_upsample", -1)
    c.ignore("dropout", "conv_resample", "dims", "use_checkpoint", "resnet_use_zero_module")
    try:
        unet = UNetConfig(
            **shared,
            channel_mult=mult,
            num_res_blocks=blocks,
            attention_resolutions=attention,
            emb_channels=c.take("embed_channels"),
            cond_channels=z_channels,
            dropout=0.0,
        )
        encoder = EncoderConfig(
            **shared,
            channel_mult=enc_mult,
            num_res_blocks=enc_blocks,
            attention_resolutions=enc_attention,
            out_channels=z_channels,
        )
        return unet, encoder, _latent_config(c.table("latent"), z_channels)
    except ValidationError as error:
        raise FolderError(f"meta.json: config: {error}") from None


def _latent_config(c: Settings, channels: int) -> LatentPriorConfig:
    c.expect("dropout", 0)
    c.expect("last_act", "none")
    fields = {
        "channels": channels,
        "hidden": c.take("hidden"),
        "num_layers": c.take("num_layers"),
        "skip_layers": c.take("skip_layers"),
        "time_channels": c.take("time_emb_channels", 64),
        "num_time_layers": c.take("num_time_layers", 2),
        "time_last_act": c.take("time_last_act", False),
        "use_norm": c.take("use_norm", True),
        "condition_bias": c.take("condition_bias", 1),
        "activation": c.take("activation", "silu"),
        "beta": c.take("beta", 0.008),
    }
    return LatentPriorConfig.model_validate(fields)


def golden_base(folder: GoldenFolder, config: Settings, precision: Precision) -> GoldenBase:
    """DiffAE and latent prior with the folder's weights."""
    unet, encoder, latent = diffae_configs(config)
    file = folder.tensors("diffae_weights.safetensors")
    try:
        diffae, prior = DiffAE(unet, encoder), LatentPrior(latent)
        weights = split_weights(file.under(""))
    except (ForeignFile, ValueError) as error:
        raise FolderError(f"{file.name}: {error}") from None
    for network, tensors in zip((diffae.unet, diffae.encoder, prior), weights, strict=True):
        fill(network, tensors, file.name)
    stats = folder.tensors("samplers.safetensors")
    return GoldenBase(frozen(diffae, folder), frozen(prior, folder), stats["conds_mean"], stats["conds_std"], precision)


def photo_prior(folder: GoldenFolder, c: Settings) -> PhotoPrior:
    """The guided-diffusion network of the table ``p2``, with the folder's weights."""
    size, steps = c.take("image_size"), c.take("diffusion_steps", 1000)
    mult = c.take("channel_mult", "")
    if mult == "" and size not in _DEFAULT_MULT:
        raise FolderError(f"meta.json: p2.channel_mult is empty, and {size} px has no default")
    for name in ("class_cond", "use_fp16"):
        c.expect(name, False)
    c.ignore("dropout", "use_checkpoint", "p2_gamma", "p2_k", "use_kl", "rescale_learned_sigmas", "resample")
    channels = c.take("num_channels")
    scales = c.take("noise_schedule", "linear")
    if scales not in ("linear", "cosine"):
        raise FolderError(f"meta.json: p2.noise_schedule is {scales!r}, which cannot be computed")
    try:
        config = UNetConfig(
            image_size=size,
            model_channels=channels,
            channel_mult=_DEFAULT_MULT[size] if mult == "" else tuple(int(part) for part in mult.split(",")),
            num_res_blocks=c.take("num_res_blocks"),
            attention_resolutions=_attention_sizes(size, c.take("attention_resolutions")),
            emb_channels=4 * channels,
            num_heads=c.take("num_heads", 4),
            num_heads_up=_set(c.take("num_heads_upsample", -1)),
            head_channels=_set(c.take("num_head_channels", -1)),
            learn_sigma=c.take("learn_sigma", False),
            add_time=not c.take("use_scale_shift_norm", True),
            conv_resample=not c.take("resblock_updown", False),
            qkv_first=c.take("use_new_attention_order", False),
            dropout=0.0,
        )
        network = UNet(config)
        timesteps = respaced_timesteps(str(c.take("timestep_respacing", "")), steps)
    except ValueError as error:
        raise FolderError(f"meta.json: p2: {error}") from None
    file = folder.tensors("p2_weights.safetensors")
    fill(network, file.under(""), file.name)
    betas = linear_betas(steps) if scales == "linear" else cosine_betas(steps)
    time_scale = 1000 / steps if c.take("rescale_timesteps", False) else None
    return PhotoPrior(
        frozen(network, folder), Schedule.spaced(betas, timesteps), time_scale, c.take("predict_xstart", False)
    )


def _attention_sizes(size: int, resolutions: str) -> tuple[int, ...]:
    """guided-diffusion says by what the size was divided, in whole numbers; 0 never comes."""
    divisors = [size // int(resolution) for resolution in str(resolutions).split(",")]
    return tuple(size // divisor for divisor in divisors if divisor)


def train_settings(args: Settings, precision: Precision) -> TrainConfig:
    """The release's trainer arguments as settings; its SPN takes a rate of its own, which the arguments may name."""
    if args.take("recon_lpips", 0):
        raise FolderError(
            "meta.json: training.args.recon_lpips is not 0; LPIPS needs weights that no golden folder holds"
        )
    args.ignore("print_freq", "train_img_freq", "ckpt_freq", "seed", "device")
    has_spn = args.take("map_net", True)
    lambda_spn = args.take("lambda_map", 0.1)
    try:
        return TrainConfig(
            iterations=args.take("n_iter"),
            batch_size=args.take("batch_size"),
            learning_rate=args.take("lr"),
            spn_learning_rate=args.take("lr_map", 1e-4),
            t0_ratio=args.take("t0_ratio"),
            encode_steps=args.take("T_train_for"),
            decode_steps=args.take("T_train_back"),
            # Without an SPN is with one of weight 0.
            lambda_spn=lambda_spn if has_spn else 0.0,
            spn_style="one" if has_spn else "lambda",
            spn="time" if args.take("map_time", True) else "plain",
            weights=LossWeights(
                cross_domain=args.take("cross_dom"),
                in_domain=args.take("in_dom"),
                recon_clip=args.take("recon_clip"),
                recon_l1=args.take("recon_l1"),
                recon_perceptual=0,
            ),
            dropout=False,
            precision="bf16" if precision == "bf16" else "float32",
        )
    except ValidationError as error:
        raise FolderError(f"meta.json: training.args: {error}") from None


def _set(value: int | None) -> int | None:
    """guided-diffusion writes -1 for a number that is not given."""
    return None if value is None or value < 0 else value
