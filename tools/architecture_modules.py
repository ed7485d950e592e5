"""Modules of architectures.py that are written out here, since no package has them in a size that suits."""
import torch


class CompactUpscaler(torch.nn.Module):
    """The layers of Real-ESRGAN's compact generator: convolutions with PReLU, a pixel shuffle, and the picture enlarged by repetition."""

    def __init__(self, width=24, depth=4, factor=4):
        super().__init__()
        layers = [torch.nn.Conv2d(3, width, 3, padding=1), torch.nn.PReLU(width)]
        for _ in range(depth):
            layers += [torch.nn.Conv2d(width, width, 3, padding=1), torch.nn.PReLU(width)]
        self.body = torch.nn.Sequential(*layers, torch.nn.Conv2d(width, 3 * factor**2, 3, padding=1))
        self.shuffle, self.factor = torch.nn.PixelShuffle(factor), factor

    def forward(self, picture):
        return self.shuffle(self.body(picture)) + torch.nn.functional.interpolate(picture, scale_factor=self.factor, mode="nearest")


class OpenClipText(torch.nn.Module):
    """A text encoder as OpenCLIP has it: torch's attention, a causal mask of minus infinity, the feature of the largest token."""

    def __init__(self, width=64, length=24, vocabulary=200):
        super().__init__()
        self.token_embedding = torch.nn.Embedding(vocabulary, width)
        self.pos_embed = torch.nn.Parameter(torch.zeros(length, width))
        layer = torch.nn.ModuleDict
        self.blocks = torch.nn.ModuleList(
            layer({"ln_1": torch.nn.LayerNorm(width), "attention": torch.nn.MultiheadAttention(width, 4, batch_first=True), "ln_2": torch.nn.LayerNorm(width),
                   "mlp": torch.nn.Sequential(torch.nn.Linear(width, 2 * width), torch.nn.GELU(), torch.nn.Linear(2 * width, width))}) for _ in range(2))
        self.ln_final = torch.nn.LayerNorm(width)
        self.text_projection = torch.nn.Parameter(torch.zeros(width, 48))
        self.register_buffer("mask", torch.full((length, length), float("-inf")).triu(1))

    def forward(self, text):
        x = self.token_embedding(text) + self.pos_embed
        for block in self.blocks:
            y = block["ln_1"](x)
            x = x + block["attention"](y, y, y, need_weights=False, attn_mask=self.mask)[0]
            x = x + block["mlp"](block["ln_2"](x))
        x = self.ln_final(x)
        return x[torch.arange(x.shape[0]), text.argmax(-1)] @ self.text_projection


class Decoder(torch.nn.Module):
    """Causal attention by scaled_dot_product_attention's own flag."""

    def __init__(self, width=64):
        super().__init__()
        self.norm, self.qkv, self.out = torch.nn.LayerNorm(width), torch.nn.Linear(width, 3 * width), torch.nn.Linear(width, width)

    def forward(self, x):
        q, k, v = (t.reshape(*x.shape[:2], 4, -1).transpose(1, 2) for t in self.qkv(self.norm(x)).chunk(3, -1))
        y = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return x + self.out(y.transpose(1, 2).reshape(x.shape))


class Detector(torch.nn.Module):
    """The parts of a YOLO: SiLU, pooling at three sizes, an upsampled branch, boxes as the mean of a distribution over distances."""

    def __init__(self, width=16, bins=8, classes=5):
        super().__init__()

        def conv(before, after, kernel=3, stride=1):
            return torch.nn.Sequential(torch.nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=False), torch.nn.BatchNorm2d(after), torch.nn.SiLU())

        self.stem, self.down, self.deep = conv(3, width, 3, 2), conv(width, width, 3, 2), conv(width, 2 * width, 3, 2)
        self.pooled, self.joined = conv(8 * width, 2 * width, 1), conv(3 * width, width)
        self.boxes, self.scores = torch.nn.Conv2d(width, 4 * bins, 1), torch.nn.Conv2d(width, classes, 1)
        self.bins = bins

    def forward(self, picture):
        fine = self.down(self.stem(picture))
        levels = [self.deep(fine)]
        for _ in range(3):
            levels.append(torch.nn.functional.max_pool2d(levels[-1], 5, 1, 2))
        deep = self.pooled(torch.cat(levels, 1))
        joined = self.joined(torch.cat([torch.nn.functional.interpolate(deep, scale_factor=2.0, mode="nearest"), fine], 1))
        height, width = joined.shape[2:]
        places = self.boxes(joined).view(1, 4, self.bins, height * width).transpose(2, 1).softmax(1)
        sides = (places * torch.arange(self.bins, dtype=torch.float32).view(1, -1, 1, 1)).sum(1)
        y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
        anchors = torch.stack([x, y]).view(1, 2, -1)
        first, last = sides.chunk(2, 1)
        corners = torch.cat([anchors - first, anchors + last], 1)
        boxes = torch.cat([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], 1) * 4
        return torch.cat([boxes, self.scores(joined).flatten(2).sigmoid()], 1)
