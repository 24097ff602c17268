"""Folders in the golden format, of any configuration, from the restated release (:mod:`tests.support.restated`)."""

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from tests.support import restated as r

Meta = dict[str, Any]


_KEPT = (
    "input_blocks.0.0.weight",
    "encoder.input_blocks.0.0.weight",
    "out.2.weight",
    "time_embed.time_embed.0.weight",
)
"""Weights of the trained UNet that the golden file keeps."""


class _ToyClip:
    """A linear CLIP of ``weights``, and the release's losses on it."""

    def __init__(self, weights: Tensor) -> None:
        self.weights = weights

    def __call__(self, x: Tensor) -> Tensor:
        nearest = torch.arange(224) * x.shape[-1] // 224  # as the release feeds CLIP
        return torch.tanh(F.avg_pool2d(x[..., nearest, :][..., nearest], 56).flatten(1) @ self.weights)

    def losses(
        self, a: dict[str, Any], photo: Tensor, style: Tensor, content: Tensor, pred_c: Tensor, pred_s: Tensor
    ) -> dict[str, Tensor]:
        cos = F.cosine_similarity
        photo_e, style_e, content_e, pred_c_e, pred_s_e = map(self, (photo, style, content, pred_c, pred_s))
        return {
            "cross_dom": a["cross_dom"] * (1 - cos(style_e - photo_e, pred_c_e - content_e)).mean(),
            "in_dom": a["in_dom"] * (1 - cos(content_e - photo_e, pred_c_e - style_e)).mean(),
            "recon_clip": a["recon_clip"] * (1 - cos(pred_s_e, style_e)).mean(),
            "recon_l1": a["recon_l1"] * (pred_s - style).abs().mean(),
        }


class Maker:
    """Computes every file of a golden folder for the configuration in ``meta``; ``seed`` draws weights and inputs."""

    def __init__(self, meta: Meta, seed: int = 0) -> None:
        self.meta, config = meta, meta["config"]
        self.diffae, self.prior, self.spns = (
            r.Weights(seed),
            r.Weights(seed + 1),
            {n: r.Weights(seed + 2) for n in ("time", "plain")},
        )
        self.rng = torch.Generator().manual_seed(seed + 3)
        self.size, self.z = config["image_size"], config["style_channels"]
        self.c = {
            "size": self.size, "ch": config["model_channels"], "mult": config["channel_mult"], "z": self.z, "out": 3,
            "attention": config["attention_resolutions"], "emb": config["embed_channels"],
            "blocks": config["num_res_blocks"], "enc_blocks": config["enc_num_res_blocks"],
            "heads": config["num_heads"], "head_channels": config.get("num_head_channels", -1),
            "updown": config["resblock_updown"], "enc_mult": config["enc_channel_mult"],
            "time": "time_embed.time_embed",
        }  # fmt: skip
        self.mean, self.std = self.draw(self.z), self.draw(self.z).abs() + 0.5

    def draw(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.rng, dtype=torch.float64).float().double()

    def image(self, count: int) -> Tensor:
        return self.draw(count, 3, self.size, self.size).tanh().float().double()

    def eps(self, x: Tensor, t: int | Tensor, z: Tensor, **mix: Any) -> Tensor:
        t = torch.full((len(x),), t) if isinstance(t, int) else t
        return r.unet(self.diffae, self.c, x, t, z, **mix)

    def enc(self, x: Tensor) -> Tensor:
        return r.encoder(self.diffae, self.c, x)

    def latent(self, noise: Tensor, steps: int) -> Tensor:
        spacing, x = r.ddim_spacing(steps), noise
        a = r.alphas(spacing, torch.full((1000,), 0.008, dtype=torch.float64))
        for i in reversed(range(steps)):
            t = torch.full((len(x),), spacing[i])
            eps = r.latent_net(self.diffae, self.meta["config"]["latent"], x, t)
            x, _ = r.ddim(x, eps, a[i], a[i - 1] if i else 1.0, clamp=False)
        return x

    def forward(self, x: Tensor, z: Tensor, steps: int, count: int) -> list[Tensor]:
        spacing, xs = r.ddim_spacing(steps), []
        a = [*r.alphas(spacing), 0.0]
        for i in range(count):
            x, _ = r.ddim(x, self.eps(x, spacing[i], z), a[i], a[i + 1])
            xs.append(x)
        return xs

    def reverse(self, x: Tensor, z: Tensor, steps: int, count: int) -> list[tuple[Tensor, Tensor]]:
        """Index 0 is the first step made, from ``count`` - 1."""
        spacing, found = r.ddim_spacing(steps), []
        a = r.alphas(spacing)
        for i in reversed(range(count)):
            x, x0 = r.ddim(x, self.eps(x, spacing[i], z), a[i], a[i - 1] if i else 1.0)
            found.append((x, x0))
        return found

    # --- files

    def write(self, folder: Path, steps: dict[str, int]) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        with torch.no_grad():
            files = {
                "diffae_forward": self.forward_file(),
                "samplers": self.samplers_file(**steps),
                "spn": self.spn_file(),
            }
            files |= {"p2": self.p2_file()}
        files["diffae_weights"] = dict(self.diffae.tensors)
        files["p2_weights"] = dict(self.prior.tensors)
        files["training"], trained, trained_spn = self.training_file()
        with torch.no_grad():
            files["inference"] = self.inference_file(trained, trained_spn)
        for name, tensors in files.items():
            stored = {k: _stored(k, v) for k, v in tensors.items()}
            save_file(stored, folder / f"{name}.safetensors")
        (folder / "meta.json").write_text(json.dumps(self.meta))
        return folder

    def forward_file(self) -> dict[str, Tensor]:
        x, t, z_style = self.image(2), torch.tensor([3, 700]), self.draw(2, self.z)
        z = self.enc(x)
        g = {
            "x": x,
            "t": t,
            "z_sem": z,
            "z_style": z_style,
            "eps": self.eps(x, t, z),
            "latent_in": self.draw(2, self.z),
        }
        levels = range(len(self.c["mult"]))
        for mixed in ((0,), tuple(levels)[1:], tuple(levels)):
            g["eps_mix_f" + "".join(map(str, mixed))] = self.eps(x, t, z, ref=z_style, levels=mixed)
        g["latent_eps"] = r.latent_net(self.diffae, self.meta["config"]["latent"], g["latent_in"], t)
        return g

    def samplers_file(self, encode: int, decode: int, sample: int, latent: int) -> dict[str, Tensor]:
        image, noise, latent_noise = self.image(1), self.draw(1, 3, self.size, self.size), self.draw(2, self.z)
        z = self.enc(image)
        g = {
            "image": image,
            "noise": noise,
            "latent_noise": latent_noise,
            "z_sem": z,
            "conds_mean": self.mean,
            "conds_std": self.std,
        }
        for steps in {encode, decode, sample}:
            g[f"timesteps_{steps}"] = torch.tensor(r.ddim_spacing(steps))
            g[f"alphas_cumprod_{steps}"] = torch.tensor(r.alphas(r.ddim_spacing(steps)), dtype=torch.float64)
        xs = self.forward(image, z, encode, encode // 2)
        for i in {0, encode // 2 - 1}:
            g[f"forward{encode}_after_step{i}"] = xs[i]
        g["x_t0"] = xs[-1]
        for i, (x, x0) in zip(reversed(range(decode // 2)), self.reverse(xs[-1], z, decode, decode // 2), strict=True):
            g |= {f"reverse{decode}_after_step{i}": x, f"reverse{decode}_pred_x0_step{i}": x0}
        g[f"sample{sample}"] = self.reverse(noise, z, sample, sample)[-1][0]
        g[f"latent_sample{latent}"] = self.latent(latent_noise, latent)
        g["z_from_latent"] = g[f"latent_sample{latent}"] * self.std + self.mean
        return g

    def spn_file(self) -> dict[str, Tensor]:
        image, t = self.image(2), torch.tensor([0, 7])
        g = {
            "image": image,
            "t": t,
            "out_time": r.spn(self.spns["time"], image, t),
            "out_plain": r.spn(self.spns["plain"], image, None),
        }
        return g | {f"{form}.{k}": v for form, w in self.spns.items() for k, v in w.tensors.items()}

    def p2_file(self) -> dict[str, Tensor]:
        p, size = self.meta["p2"], self.meta["p2"]["image_size"]
        mult = p["channel_mult"] or {"64": "1,2,3,4"}[str(size)]
        c = {
            "size": size, "ch": p["num_channels"], "mult": [int(m) for m in mult.split(",")], "time": "time_embed",
            "blocks": p["num_res_blocks"], "emb": 4 * p["num_channels"], "out": 6 if p["learn_sigma"] else 3,
            "attention": [int(s) for s in p["attention_resolutions"].split(",")], "heads": p["num_heads"],
            "heads_up": p["num_heads"] if p["num_heads_upsample"] == -1 else p["num_heads_upsample"],
            "head_channels": p["num_head_channels"], "new_order": p["use_new_attention_order"],
            "updown": p["resblock_updown"], "scale_shift": p["use_scale_shift_norm"],
        }  # fmt: skip
        net = partial(r.unet, self.prior, c)
        x, image, noise = (self.draw(1, 3, size, size) for _ in range(3))
        t, steps = torch.tensor([400]), int(p["timestep_respacing"])
        stride, position, kept = 999 / (steps - 1), 0.0, []
        for _ in range(steps):
            kept.append(round(position))
            position += stride
        a, start = r.alphas(kept), 3
        g = {
            "x": x,
            "t": t,
            "out": net(x, t),
            "image": image,
            "q_noise": noise,
            f"timesteps_{steps}": torch.tensor(kept),
        }
        x = g["x_start"] = math.sqrt(a[start]) * image + math.sqrt(1 - a[start]) * noise
        for i in reversed(range(start)):
            g[f"p_noise_{i}"] = self.draw(1, 3, size, size)
            out, before = net(x, torch.tensor([kept[i]])), a[i - 1] if i else 1.0
            beta = 1 - a[i] / before
            x0 = ((x - math.sqrt(1 - a[i]) * out[:, :3]) / math.sqrt(a[i])).clamp(-1, 1)
            mean = beta * math.sqrt(before) / (1 - a[i]) * x0 + (1 - before) * math.sqrt(1 - beta) / (1 - a[i]) * x
            low, high = beta * (1 - before) / (1 - a[i]), beta
            log_variance = torch.tensor(high).double().log()
            if p["learn_sigma"] and i:
                fraction = (out[:, 3:] + 1) / 2
                log_variance = fraction * math.log(high) + (1 - fraction) * math.log(low)
            x = g[f"x_after_{i}"] = mean + (torch.exp(log_variance / 2) * g[f"p_noise_{i}"] if i else 0)
        return g

    def training_file(self) -> tuple[dict[str, Tensor], r.Weights, r.Weights]:
        """The release's trainer: two branches, an optimizer step at every reverse step."""
        a, n = self.meta["training"]["args"], self.meta["training"]["args"]["batch_size"]
        style, photo, clip_w = self.image(1), self.image(1), self.draw(3 * 16, 24) * 0.3
        g = {"style_image": style, "style_photo": photo, "toy_clip_w": clip_w}
        g |= {"conds_mean": self.mean, "conds_std": self.std}
        clip = _ToyClip(clip_w.float().double())
        net_b, spn = _copy(self.diffae), _copy(self.spns["time" if a["map_time"] else "plain"])
        optimizers = [
            torch.optim.Adam(
                [t for k, t in net_b.tensors.items() if not k.startswith(("encoder.", "latent_net."))], lr=a["lr"]
            ),
            torch.optim.Adam(list(spn.tensors.values()), lr=1e-4),
        ]

        with torch.no_grad():
            z_photo = self.enc(photo)
        losses, spacing = [], r.ddim_spacing(a["T_train_back"])
        back, half = r.alphas(spacing), int(a["T_train_for"] * a["t0_ratio"])
        for it in range(a["n_iter"]):
            noise, z_noise = self.draw(n, 3, self.size, self.size), self.draw(n, self.z)
            with torch.no_grad():
                z = self.latent(z_noise, a["T_latent"]) * self.std + self.mean
                content = self.reverse(noise, z, a["T_train_back"], a["T_train_back"])[-1][0]
                z_in = self.enc(content)
                x_c, x_s = (
                    self.forward(i, z, a["T_train_for"], half)[-1] for i, z in ((content, z_in), (photo, z_photo))
                )
            g |= {f"randn_{2 * it}": noise, f"randn_{2 * it + 1}": z_noise, f"content_photo_{it}": content}
            for i in list(range(a["T_train_back"]))[::-1][int(a["T_train_back"] * (1 - a["t0_ratio"])) :]:
                step, t = torch.tensor([i] * n), torch.tensor([spacing[i]])
                x_s = x_s + (r.spn(spn, photo, step[:1] if a["map_time"] else None) if a["map_net"] else 0)
                x_c = x_c + (
                    a["lambda_map"] * r.spn(spn, content, step if a["map_time"] else None) if a["map_net"] else 0
                )
                to = back[i - 1] if i else 1.0
                x_s, pred_s = r.ddim(x_s, r.unet(net_b, self.c, x_s, t, z_photo), back[i], to)
                x_c, pred_c = r.ddim(x_c, r.unet(net_b, self.c, x_c, t.expand(n), z_in), back[i], to)
                terms = clip.losses(a, photo, style, content, pred_c, pred_s)
                total = sum(terms.values(), torch.zeros(()))
                for optimizer in optimizers:
                    optimizer.zero_grad()
                total.backward()
                for optimizer in optimizers:
                    optimizer.step()
                losses.append({k: v.item() for k, v in terms.items()} | {"recon_lpips": 0.0, "total": total.item()})
                x_s, x_c, pred_s, pred_c = x_s.detach(), x_c.detach(), pred_s.detach(), pred_c.detach()
                if len(losses) == 1:
                    g |= {"first_pred_content": pred_c, "first_pred_style": pred_s}
        g |= {"last_pred_content": pred_c, "last_pred_style": pred_s, "last_content_photo": content}
        g |= {f"final_spn.{k}": v for k, v in spn.tensors.items()}
        g |= {f"final_diffae_B.{k}": net_b.tensors[k] for k in _KEPT}
        self.meta["training"]["losses"] = losses
        self.style = style
        return g, net_b, spn

    def inference_file(self, net_b: r.Weights, spn: r.Weights) -> dict[str, Tensor]:
        a, image = self.meta["inference"], self.image(1)
        timed, has_spn = (self.meta["training"]["args"][k] for k in ("map_time", "map_net"))
        z_in, z_style = self.enc(image), self.enc(self.style)
        x = x_t0 = self.forward(image, z_in, a["T_infer_for"], int(a["T_infer_for"] * a["t0_ratio"]))[-1]
        spacing = r.ddim_spacing(a["T_infer_back"])
        back = r.alphas(spacing)
        for i in list(range(a["T_infer_back"]))[::-1][int(a["T_infer_back"] * (1 - a["t0_ratio"])) :]:
            if has_spn:
                x = x + a["lambda_spn"] * r.spn(spn, image, torch.tensor([i]) if timed else None)
            eps = r.unet(net_b, self.c, x, torch.tensor([spacing[i]]), z_in, ref=z_style, levels=a["ref_cond_scale"])
            x, _ = r.ddim(x, eps, back[i], back[i - 1] if i else 1.0)
        self.trained = {"diffae_B": net_b.tensors, "model_map": spn.tensors}
        return {"image": image, "z_in": z_in, "z_style": z_style, "x_t0": x_t0, "stylized": x}

    def write_official(self, folder: Path) -> None:
        """The same weights in the release's own file formats; the raw weights differ from the EMA ones on purpose."""
        root, float32 = folder / "official", {k: v.detach().float() for k, v in self.diffae.tensors.items()}
        for name in ("base_autoenc_latent", "base_autoenc", "ckpt"):
            (root / name).mkdir(parents=True, exist_ok=True)
        state = {"x_T": torch.zeros(1, 3, self.size, self.size)}
        state |= {f"model.{k}": v + 1 for k, v in float32.items()} | {f"ema_model.{k}": v for k, v in float32.items()}
        torch.save({"epoch": 1, "state_dict": state, "callbacks": {}}, root / "base_autoenc_latent" / "last.ckpt")
        stats = {"conds": torch.zeros(4, self.z), "conds_mean": self.mean.float(), "conds_std": self.std.float()}
        torch.save(stats, root / "base_autoenc" / "latent.pkl")
        torch.save({k: v.float() for k, v in self.prior.tensors.items()}, root / "base_p2.pt")
        style = {part: {k: v.detach().float() for k, v in tensors.items()} for part, tensors in self.trained.items()}
        torch.save({"iter": 2, **style, "optim_diffae_B": {"state": {}}}, root / "ckpt" / "iter_2.pt")
        self.meta["inference"]["model"] = "official/ckpt/iter_2.pt"
        (folder / "meta.json").write_text(json.dumps(self.meta))


def _copy(weights: r.Weights) -> r.Weights:
    """Weights to train: names that share a tensor share its copy."""
    copied, copies = r.Weights(0), {}
    for name, tensor in weights.tensors.items():
        copied.tensors[name] = copies.setdefault(id(tensor), tensor.clone().requires_grad_())
    return copied


def _stored(name: str, tensor: Tensor) -> Tensor:
    double = name.startswith("alphas_cumprod")
    return (
        tensor.detach()
        .clone()
        .to(tensor.dtype if double or not tensor.is_floating_point() else torch.float32)
        .contiguous()
    )


LATENT = {
    "num_layers": 3, "hidden": 40, "skip_layers": [1], "time_emb_channels": 16, "num_time_layers": 3, "use_norm": False,
    "condition_bias": 0, "activation": "relu",
}  # fmt: skip
TRAINING = {
    "batch_size": 1, "n_iter": 2, "T_train_for": 10, "T_train_back": 5, "T_latent": 10, "t0_ratio": 0.4, "lr": 3e-4,
    "cross_dom": 1.5, "in_dom": 0.25, "recon_clip": 20, "recon_l1": 5, "recon_lpips": 0,
    "map_net": True, "map_time": True, "lambda_map": 0.3, "print_freq": 1, "train_img_freq": 9, "ckpt_freq": 2,
}  # fmt: skip
INFERENCE = {"T_infer_for": 20, "T_infer_back": 10, "t0_ratio": 0.6, "ref_cond_scale": [0], "lambda_spn": 0.2}
P2 = {
    "image_size": 16, "num_channels": 32, "num_res_blocks": 1, "num_heads": 4, "num_heads_upsample": -1,
    "num_head_channels": 16, "attention_resolutions": "8", "channel_mult": "1,2", "dropout": 0.0, "class_cond": False,
    "use_checkpoint": False, "use_scale_shift_norm": True, "resblock_updown": True, "use_fp16": False,
    "use_new_attention_order": False, "learn_sigma": True, "diffusion_steps": 1000, "noise_schedule": "linear",
    "timestep_respacing": "21", "use_kl": False, "predict_xstart": False, "rescale_timesteps": False,
    "rescale_learned_sigmas": False,
}  # fmt: skip

SMALL = {
    "config": {
        "image_size": 16, "model_channels": 32, "channel_mult": [1, 2], "enc_channel_mult": [1, 2, 1],
        "attention_resolutions": [8], "num_res_blocks": 2, "enc_num_res_blocks": 1, "embed_channels": 40,
        "style_channels": 24, "num_heads": 2, "enc_pool": "adaptivenonzero", "resblock_updown": True,
        "resnet_two_cond": True, "latent": LATENT,
    },
    "training": {"args": TRAINING}, "inference": INFERENCE, "p2": P2,
}  # fmt: skip
"""Two heads, two blocks, style channels that are not embed channels, an unusual latent net."""

WIDE = {
    "config": {
        "image_size": 32, "model_channels": 32, "channel_mult": [1, 2, 3], "enc_channel_mult": [1, 2, 2, 3],
        "attention_resolutions": [16, 8], "num_res_blocks": 1, "enc_num_res_blocks": 2, "embed_channels": 32,
        "style_channels": 20, "num_heads": 1, "num_head_channels": 8, "enc_pool": "adaptivenonzero",
        "resblock_updown": False, "resnet_two_cond": True,
        "latent": LATENT | {
            "num_layers": 4, "skip_layers": [1, 2, 3], "use_norm": True, "activation": "silu", "condition_bias": 1,
            "num_time_layers": 2,
        },
    },
    "training": {"args": TRAINING | {"map_time": False, "n_iter": 1, "batch_size": 2, "t0_ratio": 0.5}},
    "inference": INFERENCE | {"ref_cond_scale": [0, 2]},
    "p2": P2 | {
        "image_size": 64, "channel_mult": "", "attention_resolutions": "32,16,8", "num_head_channels": -1,
        "num_heads": 2, "num_heads_upsample": 4, "resblock_updown": False, "use_scale_shift_norm": False,
        "learn_sigma": False, "use_new_attention_order": True, "timestep_respacing": "10",
    },
}  # fmt: skip
"""Heads by width, attention at two sizes, convolutions between levels; a photo prior with everything otherwise."""

LARGE = {
    "config": SMALL["config"] | {
        "image_size": 64, "channel_mult": [1, 1], "enc_channel_mult": [1, 1, 1], "attention_resolutions": [32],
        "num_res_blocks": 1,
    },
    "training": {"args": TRAINING | {"n_iter": 1}}, "inference": INFERENCE, "p2": P2,
}  # fmt: skip
"""64 pixels, of which 224 is no multiple: what CLIP is fed shows."""

STEPS = {
    "large": {"encode": 10, "decode": 10, "sample": 5, "latent": 10},
    "small": {"encode": 20, "decode": 10, "sample": 5, "latent": 20},
    "wide": {"encode": 10, "decode": 20, "sample": 10, "latent": 10},
}


class GoldenFolders(dict[str, Path]):
    """A folder of each configuration above, with its official files, by name; made when it is first asked for."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self._root = root

    def __missing__(self, name: str) -> Path:
        meta = {"small": SMALL, "wide": WIDE, "large": LARGE}[name]
        maker = Maker(json.loads(json.dumps(meta)), seed=len(name))
        self[name] = maker.write(self._root / name, STEPS[name])
        maker.write_official(self[name])
        return self[name]
