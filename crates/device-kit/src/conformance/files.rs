//! The shards that devices are given: `tests/data/make.py` makes them.

use rockshard_device::ShardFile;
use rockshard_manifest::TensorSpec;
use rockshard_tensor::{DType, Tensor};
use std::path::{Path, PathBuf};

const SHARD: &[u8] = include_bytes!("../../tests/data/shard.onnx");
const INTEGERS: &[u8] = include_bytes!("../../tests/data/integers.onnx");

/// The suite's shards in a folder.
pub struct Files {
    folder: PathBuf,
    /// What the devices' files end in.
    ending: &'static str,
}

fn spec(name: &str, dtype: DType, shape: &[usize]) -> TensorSpec {
    TensorSpec { name: name.into(), dtype, shape: shape.to_vec(), scale: 1.0 }
}

impl Files {
    /// Write the shards, and files that are none, into a folder, which is made if it is not there.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write(folder: &Path) -> std::io::Result<Self> {
        let files = Files { folder: folder.to_owned(), ending: "onnx" };
        std::fs::create_dir_all(folder)?;
        std::fs::write(files.at("shard"), SHARD)?;
        std::fs::write(files.at("integers"), INTEGERS)?;
        files.write_broken()
    }

    /// For a device that takes compiled shards: `shard.rknn` in the folder is what the vendor's compiler made of the `shard.onnx` that
    /// [`Files::write`] writes. Files that are none are written beside it.
    ///
    /// # Errors
    /// `shard.rknn` is not there, or a file cannot be written.
    pub fn compiled(folder: &Path) -> std::io::Result<Self> {
        Files { folder: folder.to_owned(), ending: "rknn" }.write_broken()
    }

    fn write_broken(self) -> std::io::Result<Self> {
        let whole = std::fs::read(self.at("shard"))?;
        std::fs::create_dir_all(self.at("folder"))?;
        for (name, contents) in
            [("half", &whole[..whole.len() / 2]), ("empty", b""), ("text", b"no model\n")]
        {
            std::fs::write(self.at(name), contents)?;
        }
        Ok(self)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.join(name).with_extension(self.ending)
    }

    /// `sum = conv(image) + residual`, `scaled = tokens * factor`: the outputs are declared in the other order than they are computed in.
    pub fn shard(&self) -> ShardFile {
        let four = [1, 8, 6, 4];
        let three = [1, 5, 8];
        ShardFile {
            name: "conformance".into(),
            path: self.at("shard"),
            inputs: vec![
                spec("image", DType::F32, &four),
                spec("residual", DType::F32, &four),
                spec("tokens", DType::F32, &three),
            ],
            outputs: vec![spec("scaled", DType::F32, &three), spec("sum", DType::F32, &four)],
        }
    }

    /// Rows of a table by number.
    pub fn integers(&self) -> ShardFile {
        let (inputs, outputs) =
            (vec![spec("ids", DType::I64, &[1, 5])], vec![spec("rows", DType::F32, &[1, 5, 8])]);
        ShardFile { name: "integers".into(), path: self.at("integers"), inputs, outputs }
    }

    /// Paths of what is no model, and what each is.
    pub(super) fn broken(&self) -> [(&'static str, PathBuf); 4] {
        [
            ("half a file", "half"),
            ("an empty file", "empty"),
            ("a text file", "text"),
            ("a folder", "folder"),
        ]
        .map(|(what, name)| (what, self.at(name)))
    }

    pub(super) fn missing(&self) -> PathBuf {
        self.at("missing")
    }

    /// Inputs of [`Files::shard`], other ones for each seed; float16 holds every value.
    pub fn inputs(&self, seed: usize) -> Vec<Tensor> {
        let value = |i: usize| ((i * 37 + seed * 53) % 101) as f32 / 32.0 - 1.5;
        let tensor = |(n, t): (usize, &TensorSpec)| {
            let count: usize = t.shape.iter().product();
            Tensor::from_f32(t.shape.clone(), (0..count).map(|i| value(i + 17 * n)).collect())
        };
        self.shard().inputs.iter().enumerate().map(tensor).collect()
    }
}
