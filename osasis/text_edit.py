"""Text-driven manipulation: z_in moved by the directional CLIP loss between two texts; no weight changes.

Shapes: N pictures (images × prompts), S image size, D width of z_sem, E width of a CLIP embedding.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from osasis.base import Base
from osasis.content import Content
from osasis.diffusion import Schedule, ddim_decode, linear_betas
from osasis.settings import TextConfig
from osasis.stylize import Encoding

_SMOOTH = 0.1
"""Length of a move, as a part of the texts' distance, below which its direction counts less."""

Progress = Callable[[int, int], None]
"""Called with (steps done, steps in all)."""


def edit(
    base: Base,
    content: Content,
    prompts: Sequence[str],
    config: TextConfig,
    encoding: Encoding,
    progress: Progress | None = None,
) -> list[Content]:
    """The photographs with z_in moved towards each prompt: one :class:`Content` a prompt, all optimized in one batch.

    Pictures of a batch are independent: losses are summed, and Adam is elementwise.

    Args:
        content: photographs encoded as ``encoding`` says; their structural codes are kept.

    Raises:
        ValueError: the base's CLIP cannot follow a prompt.
        BaseError: the base has no CLIP, or no perceptual distance where it is needed.
    """
    for prompt in prompts:
        config.check_prompt(prompt, base.spec.clip)
    with torch.inference_mode(False), torch.no_grad():
        texts = base.clip.encode_text([config.source_text, *map(config.target_text, prompts)])
        directions = (texts[1:] - texts[:1]).repeat_interleave(len(content), 0)  # [N, E], prompt by prompt
        # Copies are ordinary tensors, as gradients need, where the caller works in inference mode.
        codes = content.z_in.clone().repeat(len(prompts), 1), content.x_t0.clone().repeat(len(prompts), 1, 1, 1)
        shift = _optimized_shift(base, *codes, directions, config, encoding, progress)
    return [
        Content(content.photos, content.z_in + config.text_strength * part, content.x_t0)
        for part in shift.split(len(content))
    ]


@torch.enable_grad()
def _optimized_shift(
    base: Base,
    z_in: Tensor,
    x_t0: Tensor,
    directions: Tensor,
    config: TextConfig,
    encoding: Encoding,
    progress: Progress | None,
) -> Tensor:
    """What to add to ``z_in`` [N, D]. Works in standard deviations of z_sem, so that rates suit every base."""
    deviation = base.latent_prior[2].clone() if base.spec.latent_prior else torch.ones_like(z_in[:1])
    schedule = few_steps(encoding, config.text_decode_steps, base.spec.unet.beta_end)

    def decode(z: Tensor) -> Tensor:
        steps = ddim_decode(x_t0, lambda x, t: base.eps(x, t, z), schedule, clamp=encoding.clamp)
        return [x for x, _ in steps][-1]

    with torch.no_grad():
        unchanged = decode(z_in)
        embedded = base.clip.encode_image(unchanged)
    u = torch.zeros_like(z_in, requires_grad=True)
    optimizer = torch.optim.Adam([u], lr=config.text_learning_rate)
    for step in range(config.text_steps):
        pictures = decode(z_in + u * deviation)
        loss = text_loss(base.clip.encode_image(pictures) - embedded, directions, config.text_reach)
        loss = loss + config.text_l2 * u.square().mean(1)
        if config.text_identity:
            loss = loss + config.text_identity * base.perceptual(pictures, unchanged)
        if config.text_pixel:
            loss = loss + config.text_pixel * (pictures - unchanged).abs().mean((1, 2, 3))
        (u.grad,) = torch.autograd.grad(loss.sum(), u)
        optimizer.step()
        if progress:
            progress(step + 1, config.text_steps)
    return u.detach() * deviation


def text_loss(moves: Tensor, directions: Tensor, reach: float) -> Tensor:
    """Directional CLIP loss (the form of Eq. 12), and how much of the way is missing. [N, E] twice → [N].

    The cosine ignores the length of a move: a tiny step in the right direction has loss 0. ``reach``
    weighs the part of the texts' own distance that the pictures have not gone yet. Near no move at all the cosine is
    smoothed: its gradient would be without bounds there, where every optimization starts, and Adam would remember it.
    """
    squared = directions.square().sum(-1)
    along = (moves * directions).sum(-1)
    cosine = along / (squared * (moves.square().sum(-1) + _SMOOTH**2 * squared)).sqrt()
    return 1 - cosine + reach * F.relu(1 - along / squared)


def few_steps(encoding: Encoding, count: int, beta_end: float) -> Schedule:
    """``count`` even timesteps from 0 to where encoding ended, or that one alone."""
    schedule = Schedule.ddim(encoding.steps, beta_end)
    top = schedule.timesteps[min(schedule.steps_to(encoding.t0_ratio), len(schedule) - 1)]
    gap = top / max(1, count - 1)
    return Schedule.spaced(linear_betas(beta_end=beta_end), [round(top - gap * i) for i in reversed(range(count))])
