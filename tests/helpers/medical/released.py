"""The released models in plain torch, with the names of their files, to compare ours with."""

import itertools
from collections import OrderedDict

import torch
from torch import nn

from tests.helpers.released import attention

DIMS = (4, 6, 8, 10, 16)
KERNELS = (3, 3, 7, 7, 7)
WIDTH = 24
DEPTH = 2
PATCH = (4, 4, 2)
SIZE = (8, 8, 4)


def named_sequence(**parts: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(parts))


def randomized(model: nn.Module) -> nn.Module:
    """Give every tensor random values, those of batch norms too."""
    for tensor in itertools.chain(model.parameters(), model.buffers()):
        if tensor.is_floating_point():
            lowest = 0.8 if tensor.dim() == 1 else -0.2
            tensor.data = torch.rand(tensor.shape) * 0.4 + lowest
    return model.eval()


class Residual(nn.Module):
    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x):
        return self.fn(x) + x


# --------------------------------------------------------------------- CMUNeXt, LLM4Seg
def conv_norm_relu(c, out):
    return nn.Conv2d(c, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU()


def conv_gelu_norm(c, out, k=1, groups=1):
    conv = nn.Conv2d(c, out, k, padding=k // 2, groups=groups)
    return conv, nn.GELU(), nn.BatchNorm2d(out)


def encoder_stage(c, out, k):
    unit = nn.Sequential(
        Residual(nn.Sequential(*conv_gelu_norm(c, c, k, c))),
        *conv_gelu_norm(c, 4 * c),
        *conv_gelu_norm(4 * c, c),
    )
    up = named_sequence(conv=nn.Sequential(*conv_norm_relu(c, out)))
    return named_sequence(block=nn.Sequential(unit), up=up)


def upsampling(c, out):
    up = nn.Upsample(scale_factor=2, mode='bilinear')
    return named_sequence(up=nn.Sequential(up, *conv_norm_relu(c, out)))


def fusion(out):
    conv = nn.Sequential(
        *conv_gelu_norm(2 * out, 2 * out, 3, 2),
        *conv_gelu_norm(2 * out, 4 * out),
        *conv_gelu_norm(4 * out, out),
    )
    return named_sequence(conv=conv)


class CMUNeXt(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = named_sequence(conv=nn.Sequential(*conv_norm_relu(3, DIMS[0])))
        c = DIMS[0]
        for i in range(5):
            setattr(self, f'encoder{i + 1}', encoder_stage(c, DIMS[i], KERNELS[i]))
            c = DIMS[i]
        for i in range(4):
            setattr(self, f'Up{i + 2}', upsampling(DIMS[i + 1], DIMS[i]))
            setattr(self, f'Up_conv{i + 2}', fusion(DIMS[i]))
        self.Conv_1x1 = nn.Conv2d(DIMS[0], 1, 1)
        self.llm4seg = nn.Identity()

    def forward(self, x):
        x = self.encoder1(self.stem(x))
        maps = [x]
        for i in range(2, 6):
            encoder = getattr(self, f'encoder{i}')
            x = encoder(nn.functional.max_pool2d(x, 2))
            maps.append(x)
        x = self.llm4seg(x)
        for i in range(5, 1, -1):
            up = getattr(self, f'Up{i}')
            fuse = getattr(self, f'Up_conv{i}')
            x = fuse(torch.cat((maps[i - 2], up(x)), 1))
        return self.Conv_1x1(x)


class LLM4Seg(nn.Module):
    """A layer of ``transformers`` without a mask, given sine and cosine in the wrong order."""

    def __init__(self, layer: nn.Module, width: int) -> None:
        super().__init__()
        self.adapter1 = nn.Linear(DIMS[-1], width)
        self.adapter2 = nn.Linear(width, DIMS[-1])
        self.llm = layer

    def forward(self, x):
        places = torch.arange(x[0, 0].numel()).view(1, -1, 1).float()
        tables = (places.sin(), places.cos())
        y = self.adapter1(x.flatten(2).mT)
        y = self.llm(hidden_states=y, position_embeddings=tables)
        if isinstance(y, tuple):
            y = y[0]
        return self.adapter2(y).mT.reshape(x.shape)


# --------------------------------------------------------------------------
# MedVisionLlama
class MedVisionLlama(nn.Module):
    """``mapped`` is what stands between embedding and positions."""

    def __init__(self) -> None:
        super().__init__()
        self.pe = named_sequence(embed_layer=nn.Linear(32, WIDTH))
        self.position_embed = nn.Parameter(torch.empty(1, 8, WIDTH))
        self.attention_blocks = nn.ModuleList()
        for _ in range(DEPTH):
            mlp = nn.Sequential(nn.Linear(WIDTH, 96), nn.GELU(), nn.Linear(96, WIDTH))
            layer = named_sequence(
                mha=nn.MultiheadAttention(WIDTH, 4, batch_first=True),
                mlp=named_sequence(layers=mlp),
                ln1=nn.LayerNorm(WIDTH),
                ln2=nn.LayerNorm(WIDTH),
            )
            self.attention_blocks.append(layer)
        self.output_proj = named_sequence(projection=nn.Linear(WIDTH, 32))
        self.vis_output_proj = named_sequence(projection=nn.Linear(WIDTH, 32))
        self.mapped = nn.Identity()

    def forward(self, x):
        # Patches of 4 x 4 x 2 from left to right, depth fastest.
        patches = x.reshape(2, 2, 4, 2, 4, 2, 2).permute(0, 1, 3, 5, 2, 4, 6)
        tokens = self.pe(patches.reshape(2, 8, 32))
        tokens = self.mapped(tokens) + self.position_embed
        for layer in self.attention_blocks:
            normed = layer.ln1(tokens)
            tokens = tokens + layer.mha(normed, normed, normed, need_weights=False)[0]
            tokens = tokens + layer.mlp(layer.ln2(tokens))
        patches = self.output_proj(tokens).reshape(2, 2, 2, 2, 4, 4, 2)
        return patches.permute(0, 1, 4, 2, 5, 3, 6).reshape(2, 1, 8, 8, 4)


# --------------------------------------------------------------- LLMBoostMedical, ViViT
def transformer() -> nn.Module:
    layers = nn.ModuleList()
    for _ in range(DEPTH):
        attend = named_sequence(
            norm=nn.LayerNorm(WIDTH),
            to_qkv=nn.Linear(WIDTH, 48, bias=False),
            to_out=nn.Sequential(nn.Linear(16, WIDTH)),
        )
        net = nn.Sequential(
            nn.LayerNorm(WIDTH),
            nn.Linear(WIDTH, WIDTH),
            nn.GELU(),
            nn.Identity(),
            nn.Linear(WIDTH, WIDTH),
        )
        layers.append(nn.ModuleList([attend, named_sequence(net=net)]))
    return named_sequence(norm=nn.LayerNorm(WIDTH), layers=layers)


def encode(part, x):
    for attend, net in part.layers:
        q, k, v = attend.to_qkv(attend.norm(x)).chunk(3, -1)
        x = attend.to_out(attention(q, k, v, heads=2)) + x
        x = net(x) + x
    return part.norm(x)


class ViViT(nn.Module):
    """Of volumes 3 x 4 x 8 x 8; ``mapped`` is what stands after the second encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.to_patch_embedding = nn.Sequential(
            nn.Identity(),
            nn.LayerNorm(96),
            nn.Linear(96, WIDTH),
            nn.LayerNorm(WIDTH),
        )
        self.pos_embedding = nn.Parameter(torch.empty(1, 2, 4, WIDTH))
        self.spatial_cls_token = nn.Parameter(torch.empty(1, 1, WIDTH))
        self.temporal_cls_token = nn.Parameter(torch.empty(1, 1, WIDTH))
        self.spatial_transformer = transformer()
        self.temporal_transformer = transformer()
        self.mlp_head = nn.Linear(WIDTH, 3)
        self.mapped = nn.Identity()

    def forward(self, x):
        # 'b c (f pf) (h p1) (w p2) -> b f (h w) (p1 p2 pf c)'
        x = x.reshape(2, 3, 2, 2, 2, 4, 2, 4).permute(0, 2, 4, 6, 5, 7, 3, 1)
        x = self.to_patch_embedding(x.reshape(2, 2, 4, 96)) + self.pos_embedding
        x = torch.cat((self.spatial_cls_token.expand(4, 1, -1), x.flatten(0, 1)), 1)
        x = encode(self.spatial_transformer, x)[:, 0].unflatten(0, (2, 2))
        x = torch.cat((self.temporal_cls_token.expand(2, 1, -1), x), 1)
        x = self.mapped(encode(self.temporal_transformer, x))
        return self.mlp_head(x[:, 0])
