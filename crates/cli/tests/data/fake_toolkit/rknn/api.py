"""A stand-in for rknn-toolkit2 that fails in the ways the real one does. FAKE_TOOLKIT holds SHARD=WAY pairs, WAY being segv, refuse,
raise, hang, cpu or copy (the .rknn is the graph itself); other shards compile. Calls are counted in the file that FAKE_TOOLKIT_COUNT names."""
import os
import shutil
import time

TABLE = """\
D RKNN: [10:00:00.000] ID   OpType             DataType Target InputShape     OutputShape    Cycles(DDR/NPU/Total)    RW(KB)       FullName
D RKNN: [10:00:00.000] 0    InputOperator      FLOAT16  CPU    \\              (1,4,16,16)    0/0/0                    0            InputOperator:x
D RKNN: [10:00:00.000] 1    Conv               FLOAT16  NPU    (1,4,16,16)    (1,4,16,16)    10/20/20                 4            Conv:/conv
D RKNN: [10:00:00.000] 2    Softmax            FLOAT16  {target}    (1,4,16,16)    (1,4,16,16)    0/0/0                    2            Softmax:/softmax
D RKNN: [10:00:00.000] 3    OutputOperator     FLOAT16  CPU    (1,4,16,16)    \\              0/0/0                    0            OutputOperator:y
D RKNN: [10:00:00.000] Total Internal Memory Size: 12.5KB
D RKNN: [10:00:00.000] Total Weight Memory Size: 2KB"""


class RKNN:
    def __init__(self, verbose=False):
        self.way = ""

    def config(self, **options):
        assert options["target_platform"] == "rk3588"

    def load_onnx(self, model):
        with open(os.environ["FAKE_TOOLKIT_COUNT"], "a") as file:
            file.write(os.path.basename(model) + "\n")
        ways = dict(pair.split("=") for pair in os.environ.get("FAKE_TOOLKIT", "").split(",") if pair)
        self.model = model
        self.way = next((way for shard, way in ways.items() if shard in model), "")
        return 0

    def build(self, do_quantization):
        if self.way == "segv":
            print("E RKNN: [10:00:00.000] the last words", flush=True)
            os.kill(os.getpid(), 11)
        if self.way == "refuse":
            print("E build: Op type:Mystery is not supported")
            return -1
        if self.way == "raise":
            raise ValueError("a surprise")
        if self.way == "hang":
            time.sleep(600)
        if self.way == "cpu":
            print("W RKNN: [10:00:00.000] Softmax falls back to CPU")
        print(TABLE.format(target="CPU" if self.way == "cpu" else "NPU"))
        return 0

    def export_rknn(self, path):
        if self.way == "copy":
            shutil.copyfile(self.model, path)
            return 0
        with open(path, "wb") as file:
            file.write(b"RKNN")
        return 0
