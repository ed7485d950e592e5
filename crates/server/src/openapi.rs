//! `/openapi.json`: what is written in `openapi.json`, with the models that are served.

use crate::options::Limits;
use crate::packs::ServedPack;

/// The document.
pub fn document(_packs: &[ServedPack], _limits: &Limits) -> Vec<u8> {
    b"{}".to_vec()
}
