//! Whole numbers as JSON Schema has them: `24.0` is one as well.

use serde::{Deserialize, Deserializer};
use serde_json::Number;

/// The largest whole numbers that a double tells apart.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// A whole number, or null, or nothing.
///
/// # Errors
/// Another value, or a number that does not fit.
pub fn optional<'de, D, T>(from: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<i128>,
{
    let Some(number) = Option::<Number>::deserialize(from)? else { return Ok(None) };
    let found = of(&number).and_then(|n| T::try_from(n).ok());
    let message = || serde::de::Error::custom(format!("{number} is not a whole number that fits"));
    found.map(Some).ok_or_else(message)
}

fn of(number: &Number) -> Option<i128> {
    if let Some(number) = number.as_i64() {
        return Some(number.into());
    }
    if let Some(number) = number.as_u64() {
        return Some(number.into());
    }
    let float = number.as_f64()?;
    (float.fract() == 0.0 && float.abs() <= EXACT).then_some(float as i128)
}

#[cfg(test)]
mod tests {
    use super::optional;

    fn read(text: &str) -> Result<Option<u32>, serde_json::Error> {
        optional(&mut serde_json::Deserializer::from_str(text))
    }

    #[test]
    fn whole_numbers_are_taken_however_they_are_written() {
        for (text, number) in
            [("24", Some(24)), ("24.0", Some(24)), ("2.4e1", Some(24)), ("null", None)]
        {
            assert_eq!(read(text).unwrap(), number, "{text}");
        }
        for text in ["24.5", "-1", "1e300", "4294967296", "\"24\"", "true", "[24]"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
