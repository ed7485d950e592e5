"""Compile one shard with rknn-toolkit2 and, when golden tensors are given, run Rockchip's simulator on them.

Usage: python compile.py JOB.json
The job: model and output (paths), inputs and expected (paths of .npy files, in the graph's order; none: do not simulate), result (path).
The result: {"step": last step begun, "code": 0 or what the toolkit returned, "error": text, "cosine": [...], "relative_l2": [...]}.
The toolkit's verbose log goes to standard output.
"""
import json
import sys


def compare(expected, found):
    """Cosine and relative L2 in float64. Two zero tensors agree."""
    import numpy as np
    a, b = (np.asarray(x, np.float64).ravel() for x in (expected, found))
    if a.size != b.size or not np.isfinite(b).all():
        return 0.0, float(np.finfo(np.float64).max)
    norms = np.linalg.norm(a), np.linalg.norm(b)
    if norms[0] == 0 and norms[1] == 0:
        return 1.0, 0.0
    cosine = float(a @ b / (norms[0] * norms[1])) if min(norms) > 0 else 0.0
    return cosine, float(np.linalg.norm(a - b) / norms[0]) if norms[0] > 0 else float(np.finfo(np.float64).max)


def main():
    with open(sys.argv[1]) as file:
        job = json.load(file)
    result = {"step": "import", "code": 0, "error": "", "cosine": [], "relative_l2": []}

    def report():
        with open(job["result"], "w") as file:
            json.dump(result, file)

    def step(name, action):
        """Run one call of the toolkit; False when it failed."""
        result["step"] = name
        report()
        code = action()
        result["code"] = code if isinstance(code, int) else 0
        report()
        return result["code"] == 0

    report()
    try:
        from rknn.api import RKNN
        rknn = RKNN(verbose=True)
        steps = [
            ("config", lambda: rknn.config(target_platform="rk3588", optimization_level=3)),
            ("load_onnx", lambda: rknn.load_onnx(model=job["model"])),
            ("build", lambda: rknn.build(do_quantization=False)),
            ("export_rknn", lambda: rknn.export_rknn(job["output"])),
        ]
        if job["expected"]:
            steps.append(("init_runtime", lambda: rknn.init_runtime()))
        if not all(step(name, action) for name, action in steps):
            return 1
        if job["expected"]:
            result["step"] = "inference"
            report()
            import numpy as np
            inputs = [np.load(path) for path in job["inputs"]]
            found = rknn.inference(inputs=inputs, data_format=["nchw"] * len(inputs))
            pairs = [compare(np.load(path), y) for path, y in zip(job["expected"], found, strict=True)]
            result["cosine"], result["relative_l2"] = (list(column) for column in zip(*pairs))
        result["step"] = "done"
        report()
        return 0
    except Exception as error:
        # The toolkit wraps an error's whole traceback into its text; the last line says what it was.
        said = str(error).strip().splitlines()
        result["error"] = said[-1] if len(said) > 1 else f"{type(error).__name__}: {error}"
        report()
        return 1


if __name__ == "__main__":
    sys.exit(main())
