//! Values as they are typed.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use rockshard::{DeviceName, SamplerName};

/// The samplers' names, with what each is.
pub fn sampler() -> impl TypedValueParser<Value = SamplerName> {
    let names = SamplerName::ALL.map(|name| PossibleValue::new(name.as_str()).help(name.title()));
    PossibleValuesParser::new(names).try_map(|name| name.parse::<SamplerName>())
}

/// The devices' names, with what each is.
pub fn device() -> impl TypedValueParser<Value = DeviceName> {
    let names = DeviceName::ALL.map(|name| {
        PossibleValue::new(name.as_str()).help(match name {
            DeviceName::Sim => "The simulated RK3588: float16 numerics, three cores, modelled time",
            DeviceName::Cpu => "The float32 CPU reference",
            DeviceName::Rknn => "The real NPU (needs a build with the `rknn` feature)",
        })
    });
    PossibleValuesParser::new(names).try_map(|name| name.parse::<DeviceName>())
}

/// `WIDTHxHEIGHT`.
pub fn size(text: &str) -> Result<[u32; 2], String> {
    let parse = |t: &str| t.parse::<u32>().ok().filter(|&n| n > 0);
    let parsed = text.split_once('x').and_then(|(w, h)| Some([parse(w)?, parse(h)?]));
    parsed.ok_or_else(|| format!("{text:?} is not WIDTHxHEIGHT, e.g. 512x512"))
}

/// `NAME=N`.
pub fn dim(text: &str) -> Result<(String, usize), String> {
    let parsed =
        text.rsplit_once('=').and_then(|(name, n)| Some((name.to_owned(), n.parse().ok()?)));
    parsed
        .filter(|(name, n)| !name.is_empty() && *n > 0)
        .ok_or_else(|| format!("{text:?} is not NAME=N with N of 1 and more, e.g. batch=1"))
}

/// `NAME=AxBxC`; nothing behind the sign is the shape of a single number.
pub fn input_shape(text: &str) -> Result<(String, Vec<usize>), String> {
    let wrong = || format!("{text:?} is not NAME=AxBxC, e.g. x=1x3x224x224");
    let (name, shape) = text.rsplit_once('=').ok_or_else(wrong)?;
    let extents = shape.split('x').filter(|_| !shape.is_empty()).map(|d| d.parse().ok());
    let extents: Vec<usize> = extents.collect::<Option<_>>().ok_or_else(wrong)?;
    if name.is_empty() { Err(wrong()) } else { Ok((name.to_owned(), extents)) }
}

/// A size in bytes, with or without a unit.
pub fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim() {
        "" | "B" => 1.0,
        "kB" | "KB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        "KiB" => 1024.0,
        "MiB" => 1024.0 * 1024.0,
        "GiB" => 1024.0 * 1024.0 * 1024.0,
        _ => return Err(format!("{text:?} is not a size, e.g. 2GB, 900MB or 1.5GiB")),
    };
    let value =
        number.parse::<f64>().ok().map(|n| n * factor).filter(|&b| b >= 1.0 && b < u64::MAX as f64);
    value
        .map(|b| b as u64)
        .ok_or_else(|| format!("{text:?} is not a size, e.g. 2GB, 900MB or 1.5GiB"))
}

/// A share above 0 up to 1.
pub fn strength(text: &str) -> Result<f64, String> {
    let value = text.parse::<f64>().ok().filter(|&v| v > 0.0 && v <= 1.0);
    value.ok_or_else(|| format!("{text:?} is not a number above 0 up to 1"))
}

/// A cosine.
pub fn cosine(text: &str) -> Result<f64, String> {
    let value = text.parse::<f64>().ok().filter(|v| (-1.0..=1.0).contains(v));
    value.ok_or_else(|| format!("{text:?} is not a cosine from -1 to 1"))
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn sizes_have_units() {
        for (text, value) in [
            ("900MB", 900_000_000),
            ("1.5GiB", 1_610_612_736),
            ("2 GB", 2_000_000_000),
            ("4096", 4096),
            ("1kB", 1000),
        ] {
            assert_eq!(bytes(text), Ok(value), "{text}");
        }
        for text in ["", "GB", "-1GB", "2gb", "1..5MB", "0", "inf"] {
            assert!(bytes(text).unwrap_err().contains("is not a size"), "{text}");
        }
    }
}
