"""The released models in plain torch, with the names of their files, to compare ours with."""

import itertools
from collections import OrderedDict

import torch
from torch import nn

from tests.helpers.released import attention

DIMS, KERNELS = (4, 6, 8, 10, 16), (3, 3, 7, 7, 7)
WIDTH, DEPTH, PATCH, SIZE = 24, 2, (4, 4, 2), (8, 8, 4)


def seq(*parts: nn.Module, **named: nn.Module) -> nn.Sequential:
    return nn.Sequential(*parts) if parts else nn.Sequential(OrderedDict(named))


def randomized(model: nn.Module) -> nn.Module:
    """Give every tensor random values, those of batch norms too."""
    for tensor in itertools.chain(model.parameters(), model.buffers()):
        if tensor.is_floating_point():
            tensor.data = torch.rand(tensor.shape) * 0.4 + (
                0.8 if tensor.dim() == 1 else -0.2
            )
    return model.eval()


class Residual(nn.Module):
    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x):
        return self.fn(x) + x


# --------------------------------------------------------------------- CMUNeXt, LLM4Seg
def cbr(c, out):
    return nn.Conv2d(c, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU()


def cgb(c, out, k=1, groups=1):
    conv = nn.Conv2d(c, out, k, padding=k // 2, groups=groups)
    return conv, nn.GELU(), nn.BatchNorm2d(out)


class CMUNeXt(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = seq(conv=seq(*cbr(3, DIMS[0])))
        for i, (c, out, k) in enumerate(
            zip((DIMS[0], *DIMS), DIMS, KERNELS, strict=False), 1
        ):
            unit = seq(Residual(seq(*cgb(c, c, k, c))), *cgb(c, 4 * c), *cgb(4 * c, c))
            setattr(
                self,
                f'encoder{i}',
                seq(block=seq(unit), up=seq(conv=seq(*cbr(c, out)))),
            )
        for n, (out, c) in enumerate(zip(DIMS, DIMS[1:], strict=False), 2):
            up = seq(nn.Upsample(scale_factor=2, mode='bilinear'), *cbr(c, out))
            fusion = seq(
                *cgb(2 * out, 2 * out, 3, 2), *cgb(2 * out, 4 * out), *cgb(4 * out, out)
            )
            setattr(self, f'Up{n}', seq(up=up))
            setattr(self, f'Up_conv{n}', seq(conv=fusion))
        self.Conv_1x1 = nn.Conv2d(DIMS[0], 1, 1)
        self.llm4seg = nn.Identity()

    def forward(self, x):
        maps, x = [], self.stem(x)
        for i in range(1, 6):
            x = getattr(self, f'encoder{i}')(
                nn.functional.max_pool2d(x, 2) if i > 1 else x
            )
            maps.append(x)
        x = self.llm4seg(x)
        for n in range(5, 1, -1):
            x = torch.cat((maps[n - 2], getattr(self, f'Up{n}')(x)), 1)
            x = getattr(self, f'Up_conv{n}')(x)
        return self.Conv_1x1(x)


class LLM4Seg(nn.Module):
    """A layer of ``transformers`` without a mask, given sine and cosine in the wrong order."""

    def __init__(self, layer: nn.Module, width: int) -> None:
        super().__init__()
        self.adapter1, self.adapter2 = (
            nn.Linear(DIMS[-1], width),
            nn.Linear(width, DIMS[-1]),
        )
        self.llm = layer

    def forward(self, x):
        places = torch.arange(x[0, 0].numel()).view(1, -1, 1).float()
        y, tables = self.adapter1(x.flatten(2).mT), (places.sin(), places.cos())
        y = self.llm(hidden_states=y, position_embeddings=tables)
        y = self.adapter2(y[0] if isinstance(y, tuple) else y)
        return y.mT.reshape(x.shape)


# --------------------------------------------------------------------------
# MedVisionLlama
class MedVisionLlama(nn.Module):
    """``mapped`` is what stands between embedding and positions."""

    def __init__(self) -> None:
        super().__init__()
        self.pe = seq(embed_layer=nn.Linear(32, WIDTH))
        self.position_embed = nn.Parameter(torch.empty(1, 8, WIDTH))
        self.attention_blocks = nn.ModuleList()
        for _ in range(DEPTH):
            mha = nn.MultiheadAttention(WIDTH, 4, batch_first=True)
            mlp = seq(layers=seq(nn.Linear(WIDTH, 96), nn.GELU(), nn.Linear(96, WIDTH)))
            norms = dict(ln1=nn.LayerNorm(WIDTH), ln2=nn.LayerNorm(WIDTH))
            self.attention_blocks.append(seq(mha=mha, mlp=mlp, **norms))
        self.output_proj = seq(projection=nn.Linear(WIDTH, 32))
        self.vis_output_proj = seq(projection=nn.Linear(WIDTH, 32))
        self.mapped = nn.Identity()

    def forward(self, x):
        # Patches of 4 x 4 x 2 from left to right, depth fastest.
        patches = x.reshape(2, 2, 4, 2, 4, 2, 2).permute(0, 1, 3, 5, 2, 4, 6)
        tokens = self.pe(patches.reshape(2, 8, 32))
        tokens = self.mapped(tokens) + self.position_embed
        for mha, mlp, ln1, ln2 in self.attention_blocks:
            tokens = tokens + mha(*[ln1(tokens)] * 3, need_weights=False)[0]
            tokens = tokens + mlp(ln2(tokens))
        patches = self.output_proj(tokens).reshape(2, 2, 2, 2, 4, 4, 2)
        return patches.permute(0, 1, 4, 2, 5, 3, 6).reshape(2, 1, 8, 8, 4)


# --------------------------------------------------------------- LLMBoostMedical, ViViT
def transformer() -> nn.Module:
    layers = nn.ModuleList()
    for _ in range(DEPTH):
        named = dict(
            to_qkv=nn.Linear(WIDTH, 48, bias=False), to_out=seq(nn.Linear(16, WIDTH))
        )
        a, b = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        net = seq(nn.LayerNorm(WIDTH), a, nn.GELU(), nn.Identity(), b)
        layers.append(
            nn.ModuleList([seq(norm=nn.LayerNorm(WIDTH), **named), seq(net=net)])
        )
    return seq(norm=nn.LayerNorm(WIDTH), layers=layers)


def encode(part, x):
    for (norm, to_qkv, to_out), net in part.layers:
        x = to_out(attention(*to_qkv(norm(x)).chunk(3, -1), heads=2)) + x
        x = net(x) + x
    return part.norm(x)


class ViViT(nn.Module):
    """Of volumes 3 x 4 x 8 x 8; ``mapped`` is what stands after the second encoder."""

    def __init__(self) -> None:
        super().__init__()
        embed = nn.LayerNorm(96), nn.Linear(96, WIDTH), nn.LayerNorm(WIDTH)
        self.to_patch_embedding = seq(nn.Identity(), *embed)
        self.pos_embedding = nn.Parameter(torch.empty(1, 2, 4, WIDTH))
        self.spatial_cls_token = nn.Parameter(torch.empty(1, 1, WIDTH))
        self.temporal_cls_token = nn.Parameter(torch.empty(1, 1, WIDTH))
        self.spatial_transformer, self.temporal_transformer = (
            transformer(),
            transformer(),
        )
        self.mlp_head, self.mapped = nn.Linear(WIDTH, 3), nn.Identity()

    def forward(self, x):
        # 'b c (f pf) (h p1) (w p2) -> b f (h w) (p1 p2 pf c)'
        x = x.reshape(2, 3, 2, 2, 2, 4, 2, 4).permute(0, 2, 4, 6, 5, 7, 3, 1)
        x = self.to_patch_embedding(x.reshape(2, 2, 4, 96)) + self.pos_embedding
        x = torch.cat((self.spatial_cls_token.expand(4, 1, -1), x.flatten(0, 1)), 1)
        x = encode(self.spatial_transformer, x)[:, 0].unflatten(0, (2, 2))
        x = torch.cat((self.temporal_cls_token.expand(2, 1, -1), x), 1)
        return self.mlp_head(self.mapped(encode(self.temporal_transformer, x))[:, 0])
