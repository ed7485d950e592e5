//! Another chip than the RK3588 as published: the fields that differ, as JSON, from the environment.

use crate::Rk3588;

/// Variable with the description of another chip: a path of a JSON file, or the JSON itself, with those fields of [`Rk3588`] that differ,
/// such as `{"address_space": 2000000000, "zeros_on_overflow": true}`.
pub const CHIP_VARIABLE: &str = "ROCKSHARD_RK3588";

/// A description that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{CHIP_VARIABLE}: {0}")]
pub struct DescriptionError(String);

impl Rk3588 {
    /// The chip that `ROCKSHARD_RK3588` describes; the default one where it is not set.
    ///
    /// # Errors
    /// The file cannot be read, or is not such a description.
    pub fn from_environment() -> Result<Self, DescriptionError> {
        Self::described(std::env::var(CHIP_VARIABLE).ok().as_deref())
    }

    fn described(description: Option<&str>) -> Result<Self, DescriptionError> {
        let Some(description) = description else { return Ok(Rk3588::default()) };
        let text = if description.trim_start().starts_with('{') {
            description.to_owned()
        } else {
            std::fs::read_to_string(description)
                .map_err(|e| DescriptionError(format!("{description}: {e}")))?
        };
        serde_json::from_str(&text)
            .map_err(|e| DescriptionError(format!("no description of a chip: {e}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_name_what_differs() {
        assert_eq!(Rk3588::described(None), Ok(Rk3588::default()));
        let found =
            Rk3588::described(Some(" {\"address_space\": 5, \"sram_bytes\": 978944}")).unwrap();
        assert_eq!(found, Rk3588 { address_space: 5, sram_bytes: 978_944, ..Rk3588::default() });
        for (text, problem) in [
            ("{\"adress_space\": 5}", "unknown field `adress_space`"),
            ("{", "no description of a chip"),
            ("nowhere/chip.json", "ROCKSHARD_RK3588: nowhere/chip.json: No such file"),
        ] {
            let error = Rk3588::described(Some(text)).unwrap_err().to_string();
            assert!(error.contains(problem), "{error}");
        }
    }
}
