"""The three networks behind one interface: tokens in, one hidden vector per day of the horizon out."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from demo.series import HISTORY_DAYS, HORIZON_DAYS
from demo.training.features import Tokens


class Network(nn.Module):
    """Tokens -> [batch, 14, width]."""

    width: int

    def forward(self, tokens: Tokens) -> Tensor:
        """The hidden state of each day ahead."""
        raise NotImplementedError


class Residual(nn.Module):
    """x + MLP(norm(x)) over the last axis."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.layers = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, width), nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as x."""
        return x + self.layers(self.norm(x))


class Attention(nn.Module):
    """x + attention(norm(x) to memory). Plain matrix products and a softmax, which every engine fuses."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.depth = heads, width // heads
        self.norm = nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.output = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, memory: Tensor | None, days: int, memory_days: int) -> Tensor:
        """x [batch, days, width], memory [batch, memory_days, width] normalised already, or None for x itself."""
        normed = self.norm(x)
        memory = normed if memory is None else memory
        q = self._split(self.query(normed), days)
        k = self._split(self.key(memory), memory_days)
        v = self._split(self.value(memory), memory_days)
        weights = torch.softmax(q @ k.transpose(2, 3) * (1.0 / math.sqrt(self.depth)), dim=3)
        mixed = (weights @ v).transpose(1, 2).reshape(-1, days, self.heads * self.depth)
        return x + self.dropout(self.output(mixed))

    def _split(self, x: Tensor, days: int) -> Tensor:
        return x.reshape(-1, days, self.heads, self.depth).transpose(1, 2)


class Embedding(nn.Module):
    """Tokens of one side plus the static context plus the position, as width-wide vectors."""

    def __init__(self, channels: int, static: int, days: int, width: int) -> None:
        super().__init__()
        self.tokens, self.static = nn.Linear(channels, width), nn.Linear(static, width, bias=False)
        self.position = nn.Parameter(torch.randn(days, width) * 0.02)

    def forward(self, tokens: Tensor, static: Tensor) -> Tensor:
        """[batch, days, width]."""
        return self.tokens(tokens) + self.position + self.static(static).unsqueeze(1)


class TransformerNetwork(Network):
    """Encoder over the history; decoder over the known future that also attends to the encoded history."""

    def __init__(self, channels: tuple[int, int, int], *, width: int, layers: int, heads: int = 4, dropout: float = 0.1) -> None:
        super().__init__()
        history, future, static = channels
        self.width = width
        self.history = Embedding(history, static, HISTORY_DAYS, width)
        self.future = Embedding(future, static, HORIZON_DAYS, width)
        self.encoder = nn.ModuleList([_encoder_layer(width, heads, dropout) for _ in range(layers)])
        self.memory_norm = nn.LayerNorm(width)
        self.decoder = nn.ModuleList([_decoder_layer(width, heads, dropout) for _ in range(layers)])

    def forward(self, tokens: Tokens) -> Tensor:
        """[batch, 14, width]."""
        memory = self.history(tokens.history, tokens.static)
        for attention, mlp in self.encoder:
            memory = mlp(attention(memory, None, HISTORY_DAYS, HISTORY_DAYS))
        memory = self.memory_norm(memory)
        x = self.future(tokens.future, tokens.static)
        for own, cross, mlp in self.decoder:
            x = own(x, None, HORIZON_DAYS, HORIZON_DAYS)
            x = mlp(cross(x, memory, HORIZON_DAYS, HISTORY_DAYS))
        return x


class LstmNetwork(Network):
    """Sequence to sequence: one LSTM reads the history, another goes over the known future from where it stopped."""

    def __init__(self, channels: tuple[int, int, int], *, width: int, layers: int = 1, dropout: float = 0.1) -> None:
        super().__init__()
        history, future, static = channels
        self.width, self.layers = width, layers
        self.history = Embedding(history, static, HISTORY_DAYS, width)
        self.future = Embedding(future, static, HORIZON_DAYS, width)
        self.start = nn.Linear(static, 2 * layers * width)
        self.encoder = nn.LSTM(width, width, layers, batch_first=False)
        self.decoder = nn.LSTM(width, width, layers, batch_first=False)
        self.dropout = nn.Dropout(dropout)
        self.mix = Residual(width, 2 * width, dropout)

    def forward(self, tokens: Tokens) -> Tensor:
        """[batch, 14, width]."""
        # The first state comes from the static context; that also spares the graph a shape operator for zeros.
        start = torch.tanh(self.start(tokens.static)).reshape(-1, 2 * self.layers, self.width).transpose(0, 1).contiguous()
        first = (start[: self.layers].contiguous(), start[self.layers :].contiguous())
        past = self.dropout(self.history(tokens.history, tokens.static)).transpose(0, 1)
        _, state = self.encoder(past, first)
        ahead = self.future(tokens.future, tokens.static)
        hidden, _ = self.decoder(self.dropout(ahead).transpose(0, 1), state)
        return self.mix(ahead + hidden.transpose(0, 1))


class MixerNetwork(Network):
    """TSMixer: multilayer perceptrons over time and over channels in turn, history first, then the horizon."""

    def __init__(self, channels: tuple[int, int, int], *, width: int, layers: int, dropout: float = 0.1) -> None:
        super().__init__()
        history, future, static = channels
        self.width = width
        self.history = Embedding(history, static, HISTORY_DAYS, width)
        self.future = Embedding(future, static, HORIZON_DAYS, width)
        self.past_mixers = nn.ModuleList([_mixer(HISTORY_DAYS, width, dropout) for _ in range(layers)])
        self.project = nn.Linear(HISTORY_DAYS, HORIZON_DAYS)
        self.join = nn.Linear(2 * width, width)
        self.next_mixers = nn.ModuleList([_mixer(HORIZON_DAYS, width, dropout) for _ in range(layers)])

    def forward(self, tokens: Tokens) -> Tensor:
        """[batch, 14, width]."""
        past = self.history(tokens.history, tokens.static)
        for over_time, over_channels in self.past_mixers:
            past = over_channels(_time_mixed(over_time, past))
        ahead = self.future(tokens.future, tokens.static)
        joined = torch.cat([self.project(past.transpose(1, 2)).transpose(1, 2), ahead], 2)
        x = ahead + self.join(joined)
        for over_time, over_channels in self.next_mixers:
            x = over_channels(_time_mixed(over_time, x))
        return x


def _encoder_layer(width: int, heads: int, dropout: float) -> nn.ModuleList:
    return nn.ModuleList([Attention(width, heads, dropout), Residual(width, 2 * width, dropout)])


def _decoder_layer(width: int, heads: int, dropout: float) -> nn.ModuleList:
    attentions = [Attention(width, heads, dropout) for _ in range(2)]
    return nn.ModuleList([*attentions, Residual(width, 2 * width, dropout)])


def _mixer(days: int, width: int, dropout: float) -> nn.ModuleList:
    return nn.ModuleList([Residual(days, 2 * days, dropout), Residual(width, 2 * width, dropout)])


def _time_mixed(mixer: nn.Module, x: Tensor) -> Tensor:
    mixed: Tensor = mixer(x.transpose(1, 2))
    return mixed.transpose(1, 2)
