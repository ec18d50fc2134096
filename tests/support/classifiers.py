"""Small classifiers as users have them."""

import torch
from torch import nn

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
SIZE = (32, 32)


def net(n: int = 5, channels: int = 3, seed: int = 0) -> nn.Sequential:
    """A convolution, pooling and a linear layer, whose logits depend on the image."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(channels, 8, 5, stride=4),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(32, n),
        )
        nn.init.normal_(model[-1].weight, std=1.0)
    return model.eval()


class Wrapped(nn.Module):
    """`net` with something done to its output."""

    def __init__(self, change, n: int = 5):
        super().__init__()
        self.net, self.change = net(n), change

    def forward(self, x):
        return self.change(self.net(x))
