#!/usr/bin/env python3
"""Export full-size models to ONNX in the layouts that `rockshard convert` reads.

    python tools/export_models.py sd15 --weights MODEL --out DIR          a Stable Diffusion 1.x or LCM model: a diffusers directory,
                                                                          a hub name, or one .safetensors file
    python tools/export_models.py sd15-lcm --out DIR                      SD 1.5 LCM's architecture with random weights (sd15: SD 1.5's)
    python tools/export_models.py taesd --out DIR
    python tools/export_models.py smolvlm-vision --out DIR                SmolVLM-256M's vision encoder and connector
    python tools/export_models.py smolvlm --out DIR                       the same with its language model, as onnx-community lays it out
    python tools/export_models.py whisper-encoder --out DIR               the encoder of Whisper base, 30 s of sound

Parts of sd15 and sd15-lcm: text_encoder unet vae_encoder vae_decoder (all by default; name some with --part).
Exporters: `torchscript` (what optimum uses) and `dynamo`. Attention: `plain` (baddbmm, as in diffusers before 2.0) and `sdpa`.
smolvlm with random weights has no tokenizer: tests bring their own. Random weights are seeded and scaled so that values flow at ordinary magnitudes. Needs: torch diffusers transformers onnx onnxscript.
"""
import argparse
import json
import shutil
import tempfile
import time
import warnings
from pathlib import Path

import onnx
import torch

TOKENS = 77
SD15_UNET = dict(
    sample_size=64, in_channels=4, out_channels=4, layers_per_block=2, block_out_channels=(320, 640, 1280, 1280),
    down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",), up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    cross_attention_dim=768, attention_head_dim=8, time_cond_proj_dim=256)
SD15_VAE = dict(
    in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(128, 256, 512, 512), layers_per_block=2,
    down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4, sample_size=512)
CLIP_L = dict(
    vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
    max_position_embeddings=TOKENS, hidden_act="quick_gelu", projection_dim=768)
SIGLIP_B16 = dict(
    hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, image_size=512, patch_size=16,
    hidden_act="gelu_pytorch_tanh")
# SmolLM2-135M's shape, with a head of its own for the words.
SMOLLM = dict(
    hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3, head_dim=64, hidden_act="silu",
    rms_norm_eps=1e-5, rope_theta=100000.0, max_position_embeddings=8192, vocab_size=49280, tie_word_embeddings=False, pad_token_id=2)
SMOLVLM_PREPROCESSOR = dict(
    do_convert_rgb=True, do_image_splitting=True, do_normalize=True, do_pad=True, do_rescale=True, do_resize=True, image_mean=[0.5] * 3,
    image_std=[0.5] * 3, max_image_size={"longest_edge": 512}, resample=1, rescale_factor=1 / 255, size={"longest_edge": 2048})
# Whisper base.
WHISPER = dict(d_model=512, encoder_layers=6, encoder_attention_heads=8, encoder_ffn_dim=2048, num_mel_bins=80, max_source_positions=1500)
SMOLVLM_TEXT_WIDTH = SMOLLM["hidden_size"]
SMOLVLM_SHUFFLE = 4
DEFAULT_SIZE = (512, 512)


class TextEncoder(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids):
        out = self.model(input_ids)
        return out.last_hidden_state, out.pooler_output


class UNet(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, sample, timestep, encoder_hidden_states, timestep_cond):
        return self.model(sample, timestep, encoder_hidden_states, timestep_cond=timestep_cond, return_dict=False)[0]


class VaeEncoder(torch.nn.Module):
    def __init__(self, vae):
        super().__init__()
        self.encoder, self.quant_conv = vae.encoder, vae.quant_conv

    def forward(self, sample):
        return self.quant_conv(self.encoder(sample))


class VaeDecoder(torch.nn.Module):
    def __init__(self, vae):
        super().__init__()
        self.decoder, self.post_quant_conv = vae.decoder, vae.post_quant_conv

    def forward(self, latent_sample):
        return self.decoder(self.post_quant_conv(latent_sample))


class TinyEncoder(torch.nn.Module):
    def __init__(self, vae):
        super().__init__()
        self.vae = vae

    def forward(self, sample):
        return self.vae.encode(sample, return_dict=False)[0]


class TinyDecoder(torch.nn.Module):
    def __init__(self, vae):
        super().__init__()
        self.vae = vae

    def forward(self, latent_sample):
        return self.vae.decode(latent_sample, return_dict=False)[0]


class Vision(torch.nn.Module):
    """Pixels [1, 3, 512, 512] of one whole square tile to the language model's image tokens [1, 64, 576]; 36 of them at 384.

    Position ids of a tile without padding are 0, 1, 2, ..., so the look-up is the table itself.
    """

    def __init__(self, vision, connector):
        super().__init__()
        self.vision, self.connector = vision, connector

    def forward(self, pixel_values):
        embeddings = self.vision.embeddings
        tokens = embeddings.patch_embedding(pixel_values).flatten(2).transpose(1, 2)
        tokens = tokens + embeddings.position_embedding.weight
        hidden = self.vision.encoder(inputs_embeds=tokens).last_hidden_state
        return self.connector(self.vision.post_layernorm(hidden))


class Hearing(torch.nn.Module):
    """A mel spectrogram [1, bins, frames] to its hidden states [1, frames / 2, width]."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, input_features):
        return self.encoder(input_features).last_hidden_state


class Decoder(torch.nn.Module):
    """Embeddings, and keys and values of what came before, to logits and all keys and values."""

    def __init__(self, model, head):
        super().__init__()
        self.model, self.head = model, head

    def forward(self, inputs_embeds, attention_mask, position_ids, *past):
        from transformers import DynamicCache
        cache = DynamicCache()
        for layer, (keys, values) in enumerate(zip(past[::2], past[1::2])):
            cache.update(keys, values, layer)
        out = self.model(inputs_embeds=inputs_embeds, attention_mask=attention_mask, position_ids=position_ids, past_key_values=cache, use_cache=True)
        return self.head(out.last_hidden_state), *(t for layer in cache.layers for t in (layer.keys, layer.values))


def randomise(model, seed):
    """Weights of the spread that keeps magnitudes through a layer; PyTorch's own defaults shrink them."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.dim() >= 2 and "embedding" not in name:
            fan_in = parameter[0].numel()
            parameter.data.normal_(0, fan_in ** -0.5, generator=generator)
        elif parameter.dim() >= 2:
            parameter.data.normal_(0, 0.05, generator=generator)
        elif name.endswith("bias"):
            parameter.data.normal_(0, 0.02, generator=generator)
        else:
            parameter.data.normal_(1, 0.05, generator=generator)
    return model


def built(make, arguments, load=None):
    """The model with given weights, or with random ones."""
    if arguments.weights and load:
        return load().eval().requires_grad_(False)
    with torch.device("meta"):
        model = make()
    model = model.to_empty(device="cpu")
    # Buffers made on the meta device have no contents: take them from a fresh copy of the same class.
    if any(True for _ in model.buffers()):
        fresh = dict(make().named_buffers())
        for name, buffer in model.named_buffers():
            buffer.copy_(fresh[name])
    return randomise(model, arguments.seed).eval().requires_grad_(False)


def attention(model, kind):
    if hasattr(model, "set_attn_processor"):
        from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0
        model.set_attn_processor(AttnProcessor() if kind == "plain" else AttnProcessor2_0())
    return model


def export(module, inputs, outputs, axes, target, arguments):
    """One ONNX file with one data file beside it."""
    start = time.time()
    target.parent.mkdir(parents=True, exist_ok=True)
    names, values = list(inputs), tuple(inputs.values())
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch, torch.no_grad():
        loose = Path(scratch) / "model.onnx"
        if arguments.exporter == "dynamo":
            program = torch.onnx.export(module, values, dynamo=True, input_names=names, output_names=outputs, opset_version=18)
            program.save(str(loose), external_data=True)
        else:
            torch.onnx.export(module, values, str(loose), input_names=names, output_names=outputs, opset_version=17,
                              dynamic_axes=axes, do_constant_folding=True, dynamo=False)
        model = onnx.load(str(loose))
    for old in (target, target.with_name(target.name + "_data")):
        old.unlink(missing_ok=True)
    onnx.save_model(model, str(target), save_as_external_data=True, all_tensors_to_one_file=True,
                    location=target.name + "_data", size_threshold=1024)
    size = sum(f.stat().st_size for f in target.parent.glob(target.name + "*"))
    print(f"{target}: {len(model.graph.node)} nodes, {size / 1e6:.0f} MB, {time.time() - start:.0f} s", flush=True)


def without_traces(model):
    """Of the dynamo exporter's notes on nodes, keep the module path; the others name files of the machine that exported."""
    for node in model.graph.node:
        for entry in [e for e in node.metadata_props if e.key != "pkg.torch.onnx.name_scopes"]:
            node.metadata_props.remove(entry)
    return model


def spatial(*names):
    return {name: {0: "batch", 2: "height", 3: "width"} for name in names}


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, default=str) + "\n")


def plain_config(model):
    config = model.config.to_dict() if hasattr(model.config, "to_dict") else dict(model.config)
    return {k: v for k, v in config.items() if k != "_name_or_path"}


def diffusers_directory(arguments, scratch):
    """The directory of a model: as it is, fetched from the hub, or made of one .safetensors file."""
    weights = arguments.weights
    if Path(weights).is_dir():
        if not (Path(weights) / "unet").is_dir():
            raise SystemExit(f"{weights} has no unet/: it is no Stable Diffusion model in diffusers' layout")
        return Path(weights)
    if Path(weights).suffix == ".safetensors":
        from diffusers import StableDiffusionPipeline
        pipeline = StableDiffusionPipeline.from_single_file(weights, config=arguments.config, local_files_only=arguments.config is not None,
                                                            safety_checker=None)
        pipeline.save_pretrained(scratch)
        return Path(scratch)
    if Path(weights).exists():
        raise SystemExit(f"{weights} is neither a diffusers directory nor a .safetensors file: other checkpoints can run code when they are "
                         "read, and are not taken")
    from huggingface_hub import snapshot_download
    return Path(snapshot_download(weights, allow_patterns=["model_index.json", "*/*.json", "*/*.txt", "*/model.safetensors",
                                                           "*/diffusion_pytorch_model.safetensors"]))


def scheduler_config(folder, lcm):
    """The scheduler's own file, which names the sampler; for random weights, the class and levels of SD 1.5 or of its LCM."""
    if folder:
        return json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    from diffusers import LCMScheduler, PNDMScheduler
    levels = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    if lcm:
        scheduler = LCMScheduler(**levels, clip_sample=False, set_alpha_to_one=True)
    else:
        scheduler = PNDMScheduler(**levels, skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1)
    return dict(scheduler.config) | {"_class_name": type(scheduler).__name__}


def sd15(arguments):
    with tempfile.TemporaryDirectory() as scratch:
        folder = diffusers_directory(arguments, scratch) if arguments.weights else None
        stable_diffusion(arguments, folder, lcm=arguments.model == "sd15-lcm")


def stable_diffusion(arguments, weights, lcm):
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel
    out = arguments.out
    width, height = (n // 8 for n in arguments.resolution or DEFAULT_SIZE)
    latent = torch.randn(1, 4, height, width)

    def loaded(cls, folder):
        return lambda: cls.from_pretrained(weights, subfolder=folder, torch_dtype=torch.float32)

    if "text_encoder" in arguments.part:
        config = CLIPTextConfig(**CLIP_L, attn_implementation="eager" if arguments.attention == "plain" else "sdpa")
        text = built(lambda: CLIPTextModel(config), arguments, loaded(CLIPTextModel, "text_encoder"))
        ids = torch.zeros(1, TOKENS, dtype=torch.int64)
        batch = {0: "batch"}
        export(TextEncoder(text), {"input_ids": ids}, ["last_hidden_state", "pooler_output"], {"input_ids": batch},
               out / "text_encoder" / "model.onnx", arguments)
        write_json(out / "text_encoder" / "config.json", plain_config(text))
    if "unet" in arguments.part:
        shape = SD15_UNET if lcm else SD15_UNET | {"time_cond_proj_dim": None}
        unet = built(lambda: UNet2DConditionModel(**shape), arguments, loaded(UNet2DConditionModel, "unet"))
        attention(unet, arguments.attention)
        inputs = {"sample": latent, "timestep": torch.tensor([999]),
                  "encoder_hidden_states": torch.randn(1, TOKENS, unet.config.cross_attention_dim)}
        axes = spatial("sample", "out_sample") | {"encoder_hidden_states": {0: "batch"}}
        module = unet
        if unet.config.time_cond_proj_dim:
            inputs["timestep_cond"] = torch.randn(1, unet.config.time_cond_proj_dim)
            axes["timestep_cond"] = {0: "batch"}
            module = UNet(unet)
        export(module, inputs, ["out_sample"], axes, out / "unet" / "model.onnx", arguments)
        write_json(out / "unet" / "config.json", plain_config(unet))
    vae_parts = [part for part in ("vae_encoder", "vae_decoder") if part in arguments.part]
    if vae_parts:
        vae = attention(built(lambda: AutoencoderKL(**SD15_VAE), arguments, loaded(AutoencoderKL, "vae")), arguments.attention)
        export_vae(vae, VaeEncoder(vae), VaeDecoder(vae), "latent_parameters", latent, vae_parts, arguments)
    scheduler = scheduler_config(weights, lcm)
    write_json(out / "scheduler" / "scheduler_config.json", scheduler)
    if weights:
        shutil.copytree(weights / "tokenizer", out / "tokenizer", dirs_exist_ok=True)
    write_json(out / "model_index.json", {
        "_class_name": "OnnxStableDiffusionPipeline", "scheduler": ["diffusers", scheduler["_class_name"]],
        "tokenizer": ["transformers", "CLIPTokenizer"]} | {part: ["diffusers", "OnnxRuntimeModel"] for part in arguments.part})


def export_vae(vae, encoder, decoder, encoded, latent, parts, arguments):
    height, width = latent.shape[2] * 8, latent.shape[3] * 8
    if "vae_encoder" in parts:
        export(encoder, {"sample": torch.rand(1, 3, height, width)}, [encoded], spatial("sample", encoded),
               arguments.out / "vae_encoder" / "model.onnx", arguments)
        write_json(arguments.out / "vae_encoder" / "config.json", plain_config(vae))
    if "vae_decoder" in parts:
        export(decoder, {"latent_sample": latent}, ["sample"], spatial("latent_sample", "sample"),
               arguments.out / "vae_decoder" / "model.onnx", arguments)
        write_json(arguments.out / "vae_decoder" / "config.json", plain_config(vae))


def taesd(arguments):
    from diffusers import AutoencoderTiny
    vae = built(AutoencoderTiny, arguments, lambda: AutoencoderTiny.from_pretrained(arguments.weights))
    width, height = (n // 8 for n in arguments.resolution or DEFAULT_SIZE)
    export_vae(vae, TinyEncoder(vae), TinyDecoder(vae), "latents", torch.randn(1, 4, height, width), ("vae_encoder", "vae_decoder"), arguments)


def smolvlm_vision(arguments):
    from transformers import AutoModelForImageTextToText, SmolVLMConfig, SmolVLMVisionConfig
    from transformers.models.smolvlm.modeling_smolvlm import SmolVLMConnector, SmolVLMVisionTransformer
    kind = "eager" if arguments.attention == "plain" else "sdpa"
    if arguments.weights:
        model = AutoModelForImageTextToText.from_pretrained(arguments.weights, attn_implementation=kind).model
        config, vision, connector = model.config, model.vision_model.eval(), model.connector.eval()
        own = vision.config.image_size
        if arguments.resolution not in (None, (own, own)):
            raise SystemExit(f"these weights have positions for {own}x{own} pixels: leave --resolution out")
    else:
        width, height = arguments.resolution or DEFAULT_SIZE
        if width != height or width % (SIGLIP_B16["patch_size"] * SMOLVLM_SHUFFLE):
            raise SystemExit(f"the connector joins squares of {SMOLVLM_SHUFFLE}x{SMOLVLM_SHUFFLE} patches: --resolution must be square and "
                             f"divisible by {SIGLIP_B16['patch_size'] * SMOLVLM_SHUFFLE}")
        siglip = SIGLIP_B16 | {"image_size": width}
        config = SmolVLMConfig(vision_config=siglip, scale_factor=SMOLVLM_SHUFFLE,
                               text_config=dict(model_type="llama", hidden_size=SMOLVLM_TEXT_WIDTH, num_attention_heads=9, num_key_value_heads=3,
                                                num_hidden_layers=1, intermediate_size=1536, vocab_size=49280, pad_token_id=2))
        vision_config = SmolVLMVisionConfig(**siglip)
        vision_config._attn_implementation = kind
        vision = built(lambda: SmolVLMVisionTransformer(vision_config), arguments)
        connector = built(lambda: SmolVLMConnector(config), arguments)
    side = vision.config.image_size
    export(Vision(vision, connector).requires_grad_(False), {"pixel_values": torch.rand(1, 3, side, side)}, ["image_features"],
           {"pixel_values": {0: "batch"}, "image_features": {0: "batch"}}, arguments.out / "onnx" / "vision_encoder.onnx", arguments)
    write_json(arguments.out / "config.json", {
        "model_type": "smolvlm", "scale_factor": config.scale_factor, "vision_config": plain_config(vision)})


def export_language(model, head, folder, arguments):
    """embed_tokens.onnx and decoder_model_merged.onnx of a Llama model and its head."""
    config = model.config
    width, heads, head = config.hidden_size, config.num_key_value_heads, head.eval().requires_grad_(False)
    export(model.embed_tokens, {"input_ids": torch.zeros(1, 5, dtype=torch.int64)}, ["inputs_embeds"],
           {"input_ids": {0: "batch", 1: "sequence"}, "inputs_embeds": {0: "batch", 1: "sequence"}}, folder / "embed_tokens.onnx", arguments)
    # Three new tokens behind five.
    inputs = {"inputs_embeds": torch.randn(1, 3, width), "attention_mask": torch.ones(1, 8, dtype=torch.int64),
              "position_ids": torch.arange(5, 8)[None]}
    axes = {"inputs_embeds": {0: "batch", 1: "sequence"}, "attention_mask": {0: "batch", 1: "total"}, "position_ids": {0: "batch", 1: "sequence"},
            "logits": {0: "batch", 1: "sequence"}}
    outputs = ["logits"]
    for layer in range(config.num_hidden_layers):
        for kind in ("key", "value"):
            past, present = f"past_key_values.{layer}.{kind}", f"present.{layer}.{kind}"
            inputs[past] = torch.randn(1, heads, 5, config.head_dim)
            outputs.append(present)
            axes |= {past: {0: "batch", 2: "past"}, present: {0: "batch", 2: "total"}}
    export(Decoder(model, head), inputs, outputs, axes, folder / "decoder_model_merged.onnx", arguments)


def smolvlm(arguments):
    from transformers import AutoModelForImageTextToText, LlamaConfig, LlamaForCausalLM
    smolvlm_vision(arguments)
    kind = "eager" if arguments.attention == "plain" else "sdpa"
    if arguments.weights:
        whole = AutoModelForImageTextToText.from_pretrained(arguments.weights, attn_implementation=kind).eval()
        model, head = whole.model.text_model, whole.lm_head
        for name in ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json", "processor_config.json", "chat_template.json",
                     "chat_template.jinja", "generation_config.json", "config.json"):
            if (Path(arguments.weights) / name).is_file():
                shutil.copy(Path(arguments.weights) / name, arguments.out / name)
    else:
        whole = built(lambda: LlamaForCausalLM(LlamaConfig(**SMOLLM, attn_implementation=kind)), arguments)
        model, head = whole.model, whole.lm_head
        path = arguments.out / "config.json"
        write_json(path, json.loads(path.read_text()) | {"text_config": SMOLLM})
        write_json(arguments.out / "preprocessor_config.json", SMOLVLM_PREPROCESSOR)
    export_language(model.requires_grad_(False), head, arguments.out / "onnx", arguments)


def whisper_encoder(arguments):
    from transformers import WhisperConfig, WhisperModel
    from transformers.models.whisper.modeling_whisper import WhisperEncoder
    kind = "eager" if arguments.attention == "plain" else "sdpa"
    if arguments.weights:
        encoder = WhisperModel.from_pretrained(arguments.weights, attn_implementation=kind).encoder.eval().requires_grad_(False)
    else:
        encoder = built(lambda: WhisperEncoder(WhisperConfig(**WHISPER, attn_implementation=kind)), arguments)
    bins, tokens = encoder.config.num_mel_bins, encoder.config.max_source_positions
    export(Hearing(encoder), {"input_features": torch.randn(1, bins, 2 * tokens)}, ["last_hidden_state"],
           {"input_features": {0: "batch"}, "last_hidden_state": {0: "batch"}}, arguments.out / "encoder_model.onnx", arguments)


def size(text):
    width, height = (int(n) for n in text.split("x"))
    if width % 8 or height % 8:
        raise argparse.ArgumentTypeError("width and height must be divisible by 8")
    return width, height


def only_errors():
    """Keep back the libraries' remarks on how they load and trace; a person waits for the lines with times and sizes."""
    import diffusers
    import transformers
    diffusers.utils.logging.set_verbosity_error()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    for category in (DeprecationWarning, torch.jit.TracerWarning, UserWarning):
        warnings.filterwarnings("ignore", category=category)


def main():
    models = {"sd15": sd15, "sd15-lcm": sd15, "taesd": taesd, "smolvlm-vision": smolvlm_vision, "smolvlm": smolvlm,
              "whisper-encoder": whisper_encoder}
    parts = ["text_encoder", "unet", "vae_encoder", "vae_decoder"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=models)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--weights", help="directory or hub name of the model, for sd15 also a .safetensors file; random weights when left out")
    parser.add_argument("--config", metavar="DIR", help="for a .safetensors file of another shape than SD 1.5's: a diffusers directory with "
                        "its configuration and tokenizer, which are fetched from the hub otherwise")
    parser.add_argument("--part", nargs="+", choices=parts, default=parts, help="parts of sd15 and sd15-lcm to export")
    parser.add_argument("--exporter", choices=["torchscript", "dynamo"], default="torchscript")
    parser.add_argument("--attention", choices=["plain", "sdpa"], default="sdpa")
    parser.add_argument("--resolution", type=size, metavar="WxH",
                        help="size that the example inputs have, 512x512 by default; the torchscript exporter leaves it open, dynamo and "
                             "smolvlm-vision fix it")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    only_errors()
    torch.manual_seed(arguments.seed)
    models[arguments.model](arguments)


if __name__ == "__main__":
    main()
