"""The diffusion autoencoder: semantic encoder and conditional UNet, side by side."""

from torch import Tensor, nn

from osasis.networks.encoder import EncoderConfig, SemanticEncoder
from osasis.networks.unet import UNet, UNetConfig


class DiffAE(nn.Module):
    """Enc and eps_A of the paper."""

    def __init__(self, unet: UNetConfig, encoder: EncoderConfig) -> None:
        super().__init__()
        if unet.cond_channels != encoder.out_channels:
            raise ValueError(f"the UNet takes z of {unet.cond_channels}, the encoder gives {encoder.out_channels}")
        self.unet = UNet(unet)
        self.encoder = SemanticEncoder(encoder)

    def forward(self, image: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """Predicted noise of x_t [B, 3, S, S] at t [B], conditioned on Enc(image)."""
        return self.unet(x_t, t, self.encoder(image))
