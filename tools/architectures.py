"""Small models of real architectures, with seeded random weights: what export_architectures.py exports.

Each function under `@architecture` returns a Sketch: a module, its inputs, and how to export it.
"""
from dataclasses import dataclass, field, replace

import torch

from architecture_modules import CompactUpscaler, Decoder, Detector, OpenClipText

REGISTRY = {}


@dataclass
class Sketch:
    """A model to be exported. `axes` are the open axes by input; `options` are what convert needs besides."""

    module: torch.nn.Module
    inputs: dict
    outputs: list
    exporter: str = "torchscript"
    opset: int | None = 17
    axes: dict = field(default_factory=dict)
    options: list = field(default_factory=list)
    half: str = ""
    optimised: bool = False


def architecture(name):
    def register(function):
        REGISTRY[name] = function
        return function
    return register


class Call(torch.nn.Module):
    """A module whose inputs are named and whose result is one tensor or a tuple of tensors."""

    def __init__(self, model, function):
        super().__init__()
        self.model, self.function = model, function

    def forward(self, *inputs):
        return self.function(self.model, *inputs)


def randomise(model, seed=0):
    """Weights of the spread that keeps magnitudes through a layer, and statistics of norms that are not 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.dim() >= 2 and ("embedding" in name or "embed." in name or "pos_embed" in name or "token" in name):
            parameter.data.normal_(0, 0.05, generator=generator)
        elif parameter.dim() >= 2:
            parameter.data.normal_(0, parameter[0].numel() ** -0.5, generator=generator)
        elif name.endswith("bias"):
            parameter.data.normal_(0, 0.02, generator=generator)
        else:
            parameter.data.normal_(1, 0.05, generator=generator)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.1, generator=generator)
        elif name.endswith("running_var"):
            buffer.uniform_(0.8, 1.2, generator=generator)
    return model.eval().requires_grad_(False)


def image(*shape, seed=1):
    """Seeded noise that is smooth, as pictures are, plus a little that is not."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(*shape[:2], *(max(2, n // 8) for n in shape[2:]), generator=generator)
    return torch.nn.functional.interpolate(coarse, shape[2:], mode="bilinear") + 0.1 * torch.randn(shape, generator=generator)


def noise(*shape, seed=2):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@architecture("whisper-encoder")
def whisper():
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder
    model = WhisperEncoder(WhisperConfig(d_model=96, encoder_layers=2, encoder_attention_heads=4, encoder_ffn_dim=192, max_source_positions=100))
    return Sketch(Call(randomise(model), lambda m, x: m(x).last_hidden_state), {"input_features": noise(1, 80, 200)}, ["last_hidden_state"])


def dinov2_model():
    from transformers import Dinov2Config, Dinov2Model
    return randomise(Dinov2Model(Dinov2Config(hidden_size=96, num_hidden_layers=2, num_attention_heads=4, image_size=112)))


@architecture("dinov2")
def dinov2():
    return Sketch(Call(dinov2_model(), lambda m, x: (m(x).last_hidden_state, m(x).pooler_output)), {"pixel_values": image(1, 3, 112, 112)},
                  ["last_hidden_state", "pooler_output"])


@architecture("dinov2-other-size")
def dinov2_other_size():
    """At another size than its position embeddings', which are interpolated."""
    return Sketch(Call(dinov2_model(), lambda m, x: m(x).last_hidden_state), {"pixel_values": image(1, 3, 84, 140)}, ["last_hidden_state"])


@architecture("depth-anything")
def depth_anything():
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config
    backbone = Dinov2Config(hidden_size=96, num_hidden_layers=4, num_attention_heads=4, image_size=112, out_features=["stage1", "stage2", "stage3", "stage4"],
                            reshape_hidden_states=False)
    config = DepthAnythingConfig(backbone_config=backbone, reassemble_hidden_size=96, neck_hidden_sizes=[16, 24, 32, 48], fusion_hidden_size=16,
                                 head_hidden_size=8)
    return Sketch(Call(randomise(DepthAnythingForDepthEstimation(config)), lambda m, x: m(x).predicted_depth), {"pixel_values": image(1, 3, 112, 112)},
                  ["predicted_depth"])


@architecture("sam-vision")
def sam_vision():
    from transformers import SamVisionConfig
    from transformers.models.sam.modeling_sam import SamVisionEncoder
    config = SamVisionConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=160, mlp_dim=128, output_channels=32, window_size=7,
                             global_attn_indexes=[1])
    return Sketch(Call(randomise(SamVisionEncoder(config)), lambda m, x: m(x).last_hidden_state), {"pixel_values": image(1, 3, 160, 160)}, ["image_embeddings"])


@architecture("dit")
def dit():
    from diffusers import DiTTransformer2DModel
    model = DiTTransformer2DModel(num_attention_heads=4, attention_head_dim=16, num_layers=2, sample_size=16, num_embeds_ada_norm=100, out_channels=8)
    return Sketch(Call(randomise(model), lambda m, x, t, c: m(x, t, c).sample),
                  {"hidden_states": noise(1, 4, 16, 16), "timestep": torch.tensor([601]), "class_labels": torch.tensor([7])}, ["out_sample"])


@architecture("pixart")
def pixart():
    from diffusers import PixArtTransformer2DModel
    model = PixArtTransformer2DModel(num_attention_heads=4, attention_head_dim=16, num_layers=2, cross_attention_dim=64, sample_size=16, caption_channels=48,
                                     use_additional_conditions=False)
    mask = torch.ones(1, 12)
    mask[:, 9:] = 0
    return Sketch(Call(randomise(model), lambda m, x, e, t, k: m(x, e, t, {"resolution": None, "aspect_ratio": None}, encoder_attention_mask=k).sample),
                  {"hidden_states": noise(1, 4, 16, 16), "encoder_hidden_states": noise(1, 12, 48, seed=3), "timestep": torch.tensor([601]),
                   "encoder_attention_mask": mask}, ["out_sample"])


@architecture("sd3")
def sd3():
    from diffusers import SD3Transformer2DModel
    model = SD3Transformer2DModel(sample_size=16, num_layers=2, attention_head_dim=16, num_attention_heads=4, joint_attention_dim=48,
                                  caption_projection_dim=64, pooled_projection_dim=40, pos_embed_max_size=12, qk_norm="rms_norm", dual_attention_layers=(0,))
    return Sketch(Call(randomise(model), lambda m, x, e, p, t: m(x, e, p, t).sample),
                  {"hidden_states": noise(1, 16, 16, 16), "encoder_hidden_states": noise(1, 12, 48, seed=3), "pooled_projections": noise(1, 40, seed=4),
                   "timestep": torch.tensor([601.0])}, ["out_sample"])


@architecture("segformer")
def segformer():
    from transformers import SegformerConfig, SegformerForSemanticSegmentation
    config = SegformerConfig(hidden_sizes=[16, 24, 40, 64], depths=[1, 1, 1, 1], num_attention_heads=[1, 2, 5, 8], decoder_hidden_size=32, num_labels=12)
    return Sketch(Call(randomise(SegformerForSemanticSegmentation(config)), lambda m, x: m(x).logits), {"pixel_values": image(1, 3, 128, 96)}, ["logits"])


def convnext_model():
    from transformers import ConvNextConfig, ConvNextForImageClassification
    config = ConvNextConfig(hidden_sizes=[24, 32, 48, 64], depths=[1, 1, 2, 1], num_labels=20)
    return Call(randomise(ConvNextForImageClassification(config)), lambda m, x: m(x).logits)


@architecture("convnext")
def convnext():
    return Sketch(convnext_model(), {"pixel_values": image(1, 3, 96, 96)}, ["logits"])


@architecture("convnext-half")
def convnext_half():
    """Exported from a module in float16."""
    return Sketch(convnext_model(), {"pixel_values": image(1, 3, 96, 96)}, ["logits"], half="module")


@architecture("dinov2-converted-half")
def dinov2_half():
    """Exported in float32; the file converted to float16."""
    return Sketch(Call(dinov2_model(), lambda m, x: m(x).last_hidden_state), {"pixel_values": image(1, 3, 112, 112)}, ["last_hidden_state"], half="file")


def mobilenet(name):
    import torchvision
    return randomise(getattr(torchvision.models, name)(width_mult=0.5, num_classes=20))


@architecture("mobilenet-v2")
def mobilenet_v2():
    return Sketch(mobilenet("mobilenet_v2"), {"input": image(1, 3, 96, 96)}, ["logits"])


@architecture("mobilenet-v3")
def mobilenet_v3():
    return Sketch(mobilenet("mobilenet_v3_small"), {"input": image(1, 3, 96, 96)}, ["logits"])


@architecture("mobilenet-v2-open")
def mobilenet_v2_open():
    """With open batch, height and width."""
    return Sketch(mobilenet("mobilenet_v2"), {"input": image(2, 3, 64, 96)}, ["logits"],
                  axes={"input": {0: "batch", 2: "height", 3: "width"}, "logits": {0: "batch"}}, options=["--dim batch=2", "--dim height=64", "--dim width=96"])


@architecture("mobilenet-v2-optimised")
def mobilenet_v2_optimised():
    """After ONNX Runtime's basic optimisations."""
    return Sketch(mobilenet("mobilenet_v2"), {"input": image(1, 3, 96, 96)}, ["logits"], optimised=True)


@architecture("dinov2-optimised")
def dinov2_optimised():
    return Sketch(Call(dinov2_model(), lambda m, x: m(x).last_hidden_state), {"pixel_values": image(1, 3, 112, 112)}, ["last_hidden_state"], optimised=True)


@architecture("resnet-dynamo")
def resnet_dynamo():
    from transformers import ResNetConfig, ResNetForImageClassification
    config = ResNetConfig(embedding_size=16, hidden_sizes=[16, 24, 32, 48], depths=[1, 1, 1, 1], layer_type="basic", num_labels=20)
    return Sketch(Call(randomise(ResNetForImageClassification(config)), lambda m, x: m(x).logits), {"pixel_values": image(1, 3, 64, 64)}, ["logits"],
                  exporter="dynamo", opset=None)


@architecture("esrgan-compact")
def esrgan():
    return Sketch(randomise(CompactUpscaler()), {"input": image(1, 3, 32, 40)}, ["output"])


@architecture("clip-text-projection")
def clip_text():
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection
    config = CLIPTextConfig(vocab_size=200, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=24,
                            hidden_act="gelu", projection_dim=48, bos_token_id=198, eos_token_id=199, pad_token_id=1, attn_implementation="eager")
    ids = torch.full((1, 24), 199)
    ids[0, :7] = torch.tensor([198, 5, 17, 42, 8, 99, 3])
    return Sketch(Call(randomise(CLIPTextModelWithProjection(config)), lambda m, i: (lambda o: (o.text_embeds, o.last_hidden_state))(m(i))), {"input_ids": ids},
                  ["text_embeds", "last_hidden_state"])


class WholeNumbers(torch.overrides.TorchFunctionMode):
    """torch.full of a whole number makes whole numbers, as it does by itself; TorchScript's exporter forgets that, and the file is not valid."""

    def __torch_function__(self, function, types, arguments=(), keywords=None):
        keywords = keywords or {}
        if function is torch.full and isinstance(keywords.get("fill_value"), int):
            keywords = {"dtype": torch.int64} | keywords
        return function(*arguments, **keywords)


def smolvlm_model():
    from transformers import Idefics3VisionConfig
    from transformers.models.idefics3.modeling_idefics3 import Idefics3VisionTransformer
    config = Idefics3VisionConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, image_size=64, patch_size=16)
    return randomise(Idefics3VisionTransformer(config))


def with_whole_numbers(call):
    def inner(*arguments):
        with WholeNumbers():
            return call(*arguments)
    return inner


@architecture("smolvlm-vision")
def smolvlm():
    return Sketch(Call(smolvlm_model(), with_whole_numbers(lambda m, x: m(x).last_hidden_state)), {"pixel_values": image(1, 3, 64, 64)},
                  ["last_hidden_state"])


@architecture("smolvlm-vision-masked")
def smolvlm_masked():
    """Which patches are there is an input, as in the published files."""
    mask = torch.ones(1, 4, 4, dtype=torch.bool)
    mask[:, 3] = False
    return Sketch(Call(smolvlm_model(), with_whole_numbers(lambda m, x, k: m(x, patch_attention_mask=k).last_hidden_state)),
                  {"pixel_values": image(1, 3, 64, 64), "patch_attention_mask": mask}, ["last_hidden_state"])


@architecture("smolvlm-vision-dynamo")
def smolvlm_dynamo():
    return Sketch(Call(smolvlm_model(), lambda m, x: m(x).last_hidden_state), {"pixel_values": image(1, 3, 64, 64)}, ["last_hidden_state"], exporter="dynamo", opset=18)


DOWN = ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D")
UP = ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D")


def unet_model(**settings):
    from diffusers import UNet2DConditionModel
    base = dict(sample_size=16, in_channels=4, out_channels=4, layers_per_block=1, norm_num_groups=8, block_out_channels=(32, 64), cross_attention_dim=48,
                down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"))
    return randomise(UNet2DConditionModel(**base | settings))


def unet_inputs(batch=1, height=16, width=16):
    return {"sample": noise(batch, 4, height, width), "timestep": torch.tensor([601]), "encoder_hidden_states": noise(batch, 12, 48, seed=3)}


@architecture("unet-sd21")
def unet_sd21():
    model = unet_model(use_linear_projection=True, attention_head_dim=(2, 4), upcast_attention=True)
    return Sketch(Call(model, lambda m, x, t, e: m(x, t, e).sample), unet_inputs(), ["out_sample"])


@architecture("unet-open")
def unet_open():
    """With open batch, height, width and length of the prompt."""
    open_axes = {"sample": {0: "batch", 2: "height", 3: "width"}, "encoder_hidden_states": {0: "batch", 1: "sequence"}, "out_sample": {0: "batch"}}
    return Sketch(Call(unet_model(attention_head_dim=4), lambda m, x, t, e: m(x, t, e).sample), unet_inputs(2, 16, 24), ["out_sample"], axes=open_axes,
                  options=["--dim batch=2", "--dim height=16", "--dim width=24", "--dim sequence=12"])


@architecture("unet-sdxl")
def unet_sdxl():
    model = unet_model(block_out_channels=(32, 64, 64), down_block_types=DOWN, up_block_types=UP, transformer_layers_per_block=(1, 1, 2),
                       attention_head_dim=(2, 4, 4), use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=8,
                       projection_class_embeddings_input_dim=40 + 6 * 8)
    ids = torch.tensor([[1024.0, 1024, 0, 0, 1024, 1024]])
    return Sketch(Call(model, lambda m, x, t, e, p, i: m(x, t, e, added_cond_kwargs={"text_embeds": p, "time_ids": i}).sample),
                  unet_inputs() | {"text_embeds": noise(1, 40, seed=4), "time_ids": ids}, ["out_sample"])


@architecture("controlnet")
def controlnet():
    from diffusers import ControlNetModel
    model = ControlNetModel(norm_num_groups=8, layers_per_block=1, block_out_channels=(32, 64), cross_attention_dim=48, attention_head_dim=4,
                            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), conditioning_embedding_out_channels=(8, 16))

    def call(m, x, t, e, c):
        down, middle = m(x, t, e, c, return_dict=False)
        return *down, middle

    inputs = unet_inputs() | {"controlnet_cond": image(1, 3, 32, 32)}
    return Sketch(Call(randomise(model), call), inputs, [f"down_{i}" for i in range(4)] + ["middle"])


@architecture("unet-controlled")
def unet_controlled():
    """A U-Net that takes a ControlNet's residuals."""
    shapes = [(1, 32, 16, 16), (1, 32, 16, 16), (1, 32, 8, 8), (1, 64, 8, 8)]
    residuals = {f"down_{i}": 0.3 * noise(*shape, seed=10 + i) for i, shape in enumerate(shapes)}
    residuals["middle"] = 0.3 * noise(1, 64, 8, 8, seed=20)
    return Sketch(Call(unet_model(attention_head_dim=4), lambda m, x, t, e, *r: m(x, t, e, down_block_additional_residuals=r[:-1],
                                                                                 mid_block_additional_residual=r[-1]).sample),
                  unet_inputs() | residuals, ["out_sample"])


@architecture("llama")
def llama():
    """Without cache; the prompt is padded on the left."""
    from transformers import LlamaConfig, LlamaModel
    config = LlamaConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, vocab_size=200,
                         max_position_embeddings=64, use_cache=False, attn_implementation="eager")
    ids = torch.tensor([[0, 0, 0, 11, 42, 7, 130, 99, 5, 8, 150, 21]])
    mask = (ids != 0).to(torch.int64)
    return Sketch(Call(randomise(LlamaModel(config)), lambda m, i, k: m(input_ids=i, attention_mask=k).last_hidden_state),
                  {"input_ids": ids, "attention_mask": mask}, ["last_hidden_state"])


@architecture("openclip-text")
def openclip_text():
    ids = torch.zeros(1, 24, dtype=torch.int64)
    ids[0, :7] = torch.tensor([198, 5, 17, 42, 8, 99, 199])
    return Sketch(randomise(OpenClipText()), {"text": ids}, ["text_features"])


@architecture("causal-attention")
def causal_attention():
    return Sketch(randomise(Decoder()), {"x": noise(1, 12, 64)}, ["y"])


@architecture("vit-torchvision")
def vit_torchvision():
    import torchvision
    # The fused attention of inference has no counterpart in ONNX.
    torch.backends.mha.set_fastpath_enabled(False)
    model = torchvision.models.VisionTransformer(image_size=64, patch_size=16, num_layers=2, num_heads=4, hidden_dim=64, mlp_dim=128, num_classes=20)
    return Sketch(randomise(model), {"input": image(1, 3, 64, 64)}, ["logits"])


@architecture("swin")
def swin():
    """Shifted windows."""
    from transformers import SwinConfig, SwinForImageClassification
    config = SwinConfig(image_size=64, embed_dim=24, depths=[2, 2], num_heads=[2, 4], window_size=4, num_labels=20)
    return Sketch(Call(randomise(SwinForImageClassification(config)), lambda m, x: m(x).logits), {"pixel_values": image(1, 3, 64, 64)}, ["logits"])


@architecture("efficientnet")
def efficientnet():
    import timm
    return Sketch(randomise(timm.create_model("test_efficientnet", num_classes=20)), {"input": image(1, 3, 96, 96)}, ["logits"])


@architecture("siglip-vision")
def siglip_vision():
    """With the pooling head, which attends with a query of its own."""
    from transformers import SiglipVisionConfig, SiglipVisionModel
    config = SiglipVisionConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, image_size=64, patch_size=16)
    return Sketch(Call(randomise(SiglipVisionModel(config)), lambda m, x: m(x).pooler_output), {"pixel_values": image(1, 3, 64, 64)}, ["pooler_output"])


@architecture("t5-encoder")
def t5_encoder():
    """With relative positions, and padding."""
    from transformers import T5Config, T5EncoderModel
    config = T5Config(vocab_size=200, d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4, feed_forward_proj="gated-gelu")
    ids = torch.tensor([[11, 42, 7, 130, 99, 5, 8, 150, 1, 0, 0, 0]])
    return Sketch(Call(randomise(T5EncoderModel(config)), lambda m, i, k: m(input_ids=i, attention_mask=k).last_hidden_state),
                  {"input_ids": ids, "attention_mask": (ids != 0).to(torch.int64)}, ["last_hidden_state"])


@architecture("bert")
def bert():
    from transformers import BertConfig, BertModel
    config = BertConfig(vocab_size=200, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128, max_position_embeddings=32)
    ids = torch.tensor([[101, 42, 7, 130, 99, 5, 102, 0, 0, 0]])
    return Sketch(Call(randomise(BertModel(config)), lambda m, i, k, t: (lambda o: (o.last_hidden_state, o.pooler_output))(
        m(input_ids=i, attention_mask=k, token_type_ids=t))), {"input_ids": ids, "attention_mask": (ids != 0).to(torch.int64), "token_type_ids": torch.zeros_like(ids)},
                  ["last_hidden_state", "pooler_output"])


@architecture("yolo")
def yolo():
    return Sketch(randomise(Detector()), {"images": image(1, 3, 64, 96)}, ["output0"])


@architecture("mobilenet-v2-dynamo-open")
def mobilenet_v2_dynamo_open():
    return replace(mobilenet_v2_open(), exporter="dynamo", opset=None)


def by_dynamo(name):
    """The same by PyTorch's newer exporter, with the operator set that it takes by itself."""
    REGISTRY[f"{name}-dynamo"] = lambda: replace(REGISTRY[name](), exporter="dynamo", opset=None)


for each in ("mobilenet-v3", "whisper-encoder", "dinov2", "sam-vision", "segformer", "clip-text-projection", "dit", "sd3", "unet-sd21", "llama", "esrgan-compact",
             "openclip-text", "causal-attention", "vit-torchvision", "swin", "t5-encoder", "bert", "yolo"):
    by_dynamo(each)
