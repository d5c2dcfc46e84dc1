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
        self.layers = nn.Sequential(
            nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, width), nn.Dropout(dropout)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as x."""
        change: Tensor = self.layers(self.norm(x))
        return x + change


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
        """Attend to memory [batch, memory_days, width], normalised already, or to x [batch, days, width] itself if it is None."""
        normed = self.norm(x)
        memory = normed if memory is None else memory
        q = self._split(self.query(normed), days)
        k = self._split(self.key(memory), memory_days)
        v = self._split(self.value(memory), memory_days)
        weights = torch.softmax(q @ k.transpose(2, 3) * (1.0 / math.sqrt(self.depth)), dim=3)
        mixed = (weights @ v).transpose(1, 2).reshape(-1, days, self.heads * self.depth)
        change: Tensor = self.dropout(self.output(mixed))
        return x + change

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
        embedded: Tensor = self.tokens(tokens) + self.position + self.static(static).unsqueeze(1)
        return embedded


class EncoderLayer(nn.Module):
    """Attention among the days of the history, then an MLP."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention, self.mlp = Attention(width, heads, dropout), Residual(width, 2 * width, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as x."""
        attended: Tensor = self.attention(x, None, HISTORY_DAYS, HISTORY_DAYS)
        result: Tensor = self.mlp(attended)
        return result


class DecoderLayer(nn.Module):
    """Attention among the days ahead, then to the encoded history, then an MLP."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.own, self.cross = Attention(width, heads, dropout), Attention(width, heads, dropout)
        self.mlp = Residual(width, 2 * width, dropout)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """Same shape as x."""
        x = self.own(x, None, HORIZON_DAYS, HORIZON_DAYS)
        result: Tensor = self.mlp(self.cross(x, memory, HORIZON_DAYS, HISTORY_DAYS))
        return result


class MixerLayer(nn.Module):
    """An MLP over the days, the same for all channels, then one over the channels, the same for all days."""

    def __init__(self, days: int, width: int, dropout: float) -> None:
        super().__init__()
        self.days, self.channels = Residual(days, 2 * days, dropout), Residual(width, 2 * width, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as x."""
        mixed: Tensor = self.days(x.transpose(1, 2))
        result: Tensor = self.channels(mixed.transpose(1, 2))
        return result


class TransformerNetwork(Network):
    """Encoder over the history; decoder over the known future that also attends to the encoded history."""

    def __init__(
        self, channels: tuple[int, int, int], *, width: int, layers: int, heads: int = 4, dropout: float = 0.1
    ) -> None:
        super().__init__()
        history, future, static = channels
        self.width = width
        self.history = Embedding(history, static, HISTORY_DAYS, width)
        self.future = Embedding(future, static, HORIZON_DAYS, width)
        self.encoder = nn.ModuleList([EncoderLayer(width, heads, dropout) for _ in range(layers)])
        self.memory_norm = nn.LayerNorm(width)
        self.decoder = nn.ModuleList([DecoderLayer(width, heads, dropout) for _ in range(layers)])

    def forward(self, tokens: Tokens) -> Tensor:
        """[batch, 14, width]."""
        memory: Tensor = self.history(tokens.history, tokens.static)
        for layer in self.encoder:
            memory = layer(memory)
        memory = self.memory_norm(memory)
        x: Tensor = self.future(tokens.future, tokens.static)
        for layer in self.decoder:
            x = layer(x, memory)
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
        start = (
            torch.tanh(self.start(tokens.static)).reshape(-1, 2 * self.layers, self.width).transpose(0, 1).contiguous()
        )
        first = (start[: self.layers].contiguous(), start[self.layers :].contiguous())
        past = self.dropout(self.history(tokens.history, tokens.static)).transpose(0, 1)
        _, state = self.encoder(past, first)
        ahead = self.future(tokens.future, tokens.static)
        hidden, _ = self.decoder(self.dropout(ahead).transpose(0, 1), state)
        mixed: Tensor = self.mix(ahead + hidden.transpose(0, 1))
        return mixed


class MixerNetwork(Network):
    """TSMixer: multilayer perceptrons over time and over channels in turn, history first, then the horizon."""

    def __init__(self, channels: tuple[int, int, int], *, width: int, layers: int, dropout: float = 0.1) -> None:
        super().__init__()
        history, future, static = channels
        self.width = width
        self.history = Embedding(history, static, HISTORY_DAYS, width)
        self.future = Embedding(future, static, HORIZON_DAYS, width)
        self.past_mixers = nn.ModuleList([MixerLayer(HISTORY_DAYS, width, dropout) for _ in range(layers)])
        self.project = nn.Linear(HISTORY_DAYS, HORIZON_DAYS)
        self.join = nn.Linear(2 * width, width)
        self.next_mixers = nn.ModuleList([MixerLayer(HORIZON_DAYS, width, dropout) for _ in range(layers)])

    def forward(self, tokens: Tokens) -> Tensor:
        """[batch, 14, width]."""
        past: Tensor = self.history(tokens.history, tokens.static)
        for layer in self.past_mixers:
            past = layer(past)
        ahead = self.future(tokens.future, tokens.static)
        joined = torch.cat([self.project(past.transpose(1, 2)).transpose(1, 2), ahead], 2)
        x: Tensor = ahead + self.join(joined)
        for layer in self.next_mixers:
            x = layer(x)
        return x
