#!/usr/bin/env python3
"""The language model of a vision-language pack against ONNX Runtime and llama.cpp, with the same threads, in one run.

    cargo build --release -p rockshard-benches --examples
    python benches/language.py EXPORT PACK... [--prompt 1100] [--said 64] [--rounds 5] [--threads 2] [--work DIR]

EXPORT is the directory that the packs were converted from (its onnx/ and config.json), each PACK one of `--lm-weights 32`, `8` and `4`. The peers are the
exported decoder in ONNX Runtime, as float32, with dynamically quantised 8-bit weights and with 4-bit weights in blocks; the same three of a graph of its contrib
operators (`gqa.py`), which needs a pack of 32 bits; and the same weights as GGUF in llama.cpp (f16, Q8_0 and Q4_0), through llama-cpp-python. Programs are loaded one after the other and take turns within a round. Prints medians and ratios of
reading a prompt and of saying on, and peak memory; and how far the float32 pack's logits are from ONNX Runtime's.
Needs: numpy onnx onnx_ir onnxruntime, and for llama.cpp gguf and llama-cpp-python; peers whose packages are absent are left out, by name.
"""
import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from gqa import write_gqa

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = ROOT / "target/release/examples/language"


def tokens(count):
    """The prompt of benches/examples/language.rs."""
    return [(at * 7919 + 13) % 40_000 for at in range(count)]


def peak():
    """Peak resident bytes; what a parent had counts in rusage's figure, but not in this."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def serve(ready, run):
    """Answers each line with the seconds of reading and of saying; a line may name a file for the logits."""
    print(f"ready {ready}", flush=True)
    for line in sys.stdin:
        read, said, logits = run()
        print(f"{read} {said}", flush=True)
        if line.strip():
            logits.astype("<f4").tofile(line.strip())
    print(peak(), flush=True)


def onnxruntime_peer(embed, decoder, prompt, said, threads):
    import numpy as np
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    start = time.perf_counter()
    embed, decoder = (onnxruntime.InferenceSession(file, options) for file in (embed, decoder))
    past = [i for i in decoder.get_inputs() if i.name.startswith("past_key_values")]
    ids = np.array([tokens(prompt)])
    fused = any(i.name == "seqlens_k" for i in decoder.get_inputs())

    def run():
        memory = {i.name: np.zeros((1, i.shape[1], 0, i.shape[3]), np.float32) for i in past}
        seen, kept, times = 0, [], []
        fed, start = ids, time.perf_counter()
        for _ in range(said + 1):
            count = fed.shape[1]
            inputs = {"inputs_embeds": embed.run(None, {"input_ids": fed})[0], "attention_mask": np.ones((1, seen + count), np.int64),
                      "position_ids": np.arange(seen, seen + count)[None]}
            if fused:
                inputs = {"inputs_embeds": inputs["inputs_embeds"], "seqlens_k": np.array([seen + count - 1], np.int32),
                          "total_sequence_length": np.array(seen + count, np.int32)}
            logits, *present = decoder.run(None, inputs | memory)
            memory, seen = dict(zip(memory, present)), seen + count
            kept.append(logits[0, -1])
            fed = kept[-1].argmax().reshape(1, 1)
            times.append(time.perf_counter())
        return times[0] - start, times[-1] - times[0], np.concatenate(kept)

    serve(time.perf_counter() - start, run)


def llama_peer(path, prompt, said, threads):
    import numpy as np
    from llama_cpp import Llama
    start = time.perf_counter()
    model = Llama(str(path), n_ctx=prompt + said + 8, n_threads=threads, n_threads_batch=threads, n_batch=prompt, n_ubatch=512, verbose=False, logits_all=False)
    ids = tokens(prompt)

    def run():
        model.reset()
        start = time.perf_counter()
        model.eval(ids)
        read = time.perf_counter()
        kept = []
        for _ in range(said):
            logits = np.ctypeslib.as_array(model._ctx.get_logits_ith(-1), (model.n_vocab(),))
            kept.append(logits.copy())
            model.eval([int(kept[-1].argmax())])
        return read - start, time.perf_counter() - read, np.concatenate(kept)

    serve(time.perf_counter() - start, run)


def weights(pack):
    """The shape of a 32-bit pack's decoder, and its tensors by name."""
    import numpy as np
    file = (pack / "language_model/decoder.safetensors").open("rb")
    header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    start = file.tell()

    def tensor(name):
        entry = header[name]
        return np.memmap(file, np.float32, "r", start + entry["data_offsets"][0], tuple(entry["shape"]))

    return json.loads(header["__metadata__"]["decoder"]), tensor


def write_gguf(pack, kind, path):
    """A 32-bit pack's decoder as a GGUF file of a Llama model; queries and keys in the order of pairs that llama.cpp turns."""
    import gguf
    import numpy as np
    shape, tensor = weights(pack)
    writer = gguf.GGUFWriter(path, "llama")
    width, heads, kv, head, inner, vocabulary = (shape[k] for k in ("width", "heads", "kv_heads", "head_width", "inner", "vocabulary"))
    writer.add_context_length(8192)
    writer.add_embedding_length(width)
    writer.add_block_count(shape["layers"])
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(shape["theta"])
    writer.add_layer_norm_rms_eps(shape["epsilon"])
    writer.add_vocab_size(vocabulary)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([f"t{i}".encode() for i in range(vocabulary)])
    writer.add_token_scores([0.0] * vocabulary)
    writer.add_token_types([1] * vocabulary)
    quantised = {"f16": gguf.GGMLQuantizationType.F16, "Q8_0": gguf.GGMLQuantizationType.Q8_0, "Q4_0": gguf.GGMLQuantizationType.Q4_0}[kind]

    def matrix(name, values):
        writer.add_tensor(name, gguf.quants.quantize(np.ascontiguousarray(values), quantised), raw_dtype=quantised)

    def paired(values, count):
        return values.reshape(count, 2, head // 2, width).swapaxes(1, 2).reshape(values.shape)

    matrix("token_embd.weight", tensor("embeddings"))
    for layer in range(shape["layers"]):
        ours, theirs = f"layers.{layer}.", f"blk.{layer}."
        q, k, v = np.split(tensor(ours + "qkv"), [heads * head, (heads + kv) * head])
        gate, up = np.split(tensor(ours + "gate_up"), 2)
        writer.add_tensor(theirs + "attn_norm.weight", np.array(tensor(ours + "attention_norm")))
        writer.add_tensor(theirs + "ffn_norm.weight", np.array(tensor(ours + "feed_norm")))
        for name, values in (("attn_q", paired(q, heads)), ("attn_k", paired(k, kv)), ("attn_v", v), ("attn_output", tensor(ours + "output")),
                             ("ffn_gate", gate), ("ffn_up", up), ("ffn_down", tensor(ours + "down"))):
            matrix(f"{theirs}{name}.weight", values)
    writer.add_tensor("output_norm.weight", np.array(tensor("norm")))
    matrix("output.weight", tensor("head"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_quantised(decoder, work):
    """A decoder with 8-bit and with 4-bit weights, by ONNX Runtime's own tools."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
    eight, four = (work / f"{decoder.stem}_{kind}.onnx" for kind in ("i8", "q4"))
    if not eight.exists():
        quantize_dynamic(decoder, eight, per_channel=True, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul"],
                         extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT})
    if not four.exists():
        quantizer = MatMulNBitsQuantizer(onnx.load(decoder), block_size=32, is_symmetric=True, accuracy_level=4)
        quantizer.process()
        onnx.save(quantizer.model.model, four)
    return eight, four


def bits(pack):
    language = json.loads((pack / "manifest.json").read_text())["conversion"].get("language", {})
    return language.get("bits", "exported")


def programs(a, work):
    """Name and command of each."""
    common = [str(a.prompt), str(a.said), str(a.threads)]
    found = {f"rockshard {bits(pack)} bits": [str(PROGRAM), str(pack / "language_model"), *common] for pack in a.packs}
    peer = [sys.executable, __file__, "--peer"]
    folder = a.export / "onnx"
    whole = next((pack for pack in a.packs if bits(pack) == 32), None)
    exported, fused = folder / "decoder_model_merged.onnx", work / "gqa.onnx"
    if whole and not fused.exists():
        write_gqa(*weights(whole), fused)
    for name, decoder in (("", exported), *((" gqa", fused),) * bool(whole)):
        for kind, file in zip(("f32", "i8", "q4"), (decoder, *write_quantised(decoder, work))):
            found[f"ONNX Runtime{name} {kind}"] = [*peer, "onnxruntime", str(folder / "embed_tokens.onnx"), str(file), *common]
    try:
        import gguf  # noqa: F401
        import llama_cpp  # noqa: F401
    except ImportError as error:
        print(f"left out: llama.cpp ({error})")
        whole = None
    for kind in ("f16", "Q8_0", "Q4_0") if whole else ():
        path = work / f"{kind}.gguf"
        path.exists() or write_gguf(whole, kind, path)
        found[f"llama.cpp {kind}"] = [*peer, "llama", str(path), "-", *common]
    return found


def main():
    if sys.argv[1:2] == ["--peer"]:
        kind, first, second, *numbers = sys.argv[2:]
        prompt, said, threads = (int(n) for n in numbers)
        return llama_peer(first, prompt, said, threads) if kind == "llama" else onnxruntime_peer(first, second, prompt, said, threads)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export", type=Path)
    parser.add_argument("packs", type=Path, nargs="+")
    parser.add_argument("--prompt", type=int, default=1100)
    parser.add_argument("--said", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", type=Path, help="where converted peers are kept; a temporary directory by default")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        compare(a, (a.work or Path(scratch)).resolve())


def compare(a, work):
    import numpy as np
    work.mkdir(parents=True, exist_ok=True)
    running = {name: subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for name, command in programs(a, work).items()}
    loads = {name: float(program.stdout.readline().split()[1]) for name, program in running.items()}
    times = {name: [] for name in running}
    for number in range(a.rounds):
        for name, program in running.items():
            program.stdin.write(f"{work / name.replace(' ', '-')}.logits\n" if number == 0 else "\n")
            program.stdin.flush()
            times[name].append([float(t) for t in program.stdout.readline().split()])
    peaks = {name: int(program.communicate()[0].strip()) for name, program in running.items()}
    print(f"prompt of {a.prompt} tokens, {a.said} said, {a.threads} threads, medians of {a.rounds} rounds in turn")
    medians = {name: [statistics.median(t) for t in zip(*found)] for name, found in times.items()}
    for name, (read, said) in medians.items():
        print(f"{name:22} prefill {read:6.2f} s, decode {a.said / said:6.1f} tokens/s, peak resident {peaks[name] / 1e6:5.0f} MB, load {loads[name]:.2f} s")
    ours = [name for name in medians if name.startswith("rockshard")]
    for name in ours:
        for peer in (p for p in medians if p not in ours):
            read, said = (mine / theirs for mine, theirs in zip(medians[name], medians[peer]))
            print(f"{name} against {peer}: prefill {read:.2f}x its time, decode {1 / said:.2f}x its speed")
    whole = f"rockshard 32 bits"
    if whole in running:
        found, expected = (np.fromfile(work / f"{name.replace(' ', '-')}.logits", "<f4").reshape(a.said + 1, -1) for name in (whole, "ONNX Runtime f32"))
        apart = np.abs(found - expected).max(1) / np.abs(expected).max(1)
        print(f"logits of {whole} from ONNX Runtime's f32, over the largest: at most {apart.max():.1e} over the prompt's last token and {a.said} greedy ones")


if __name__ == "__main__":
    main()
