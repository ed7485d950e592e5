//! From a prompt to what steers the U-Net: token ids, then the text encoder's hidden states.
//!
//! Prompts that were encoded lately are kept by their text, so that a driver may ask for the same prompt with every picture. Negative
//! prompts are prompts like any other.

use crate::call::{elements, first_output, input, integers, interface, spec, start};
use crate::{ClipTokenizer, Error, Networks, TensorMap};
use lru::LruCache;
use rockshard_manifest::{Role, TensorSpec};
use rockshard_tensor::{Tensor, TensorError};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const ROLE: Role = Role::TextEncoder;

/// Prompts that are kept: 15 MB of hidden states for Stable Diffusion 1.5.
const KEPT: NonZeroUsize = NonZeroUsize::new(64).unwrap();

/// A prompt as the U-Net takes it. Cheap to clone.
#[derive(Clone, Debug, PartialEq)]
pub struct Conditioning {
    /// The text encoder's last hidden states, in the shape it gives them.
    pub hidden: Tensor,
    /// Ids at the end of the prompt that the text encoder has no room for.
    pub dropped_tokens: usize,
}

/// The tokenizer and the text encoder of a model. Clones share what they keep.
#[derive(Clone)]
pub struct Conditioner {
    networks: Arc<dyn Networks>,
    tokenizer: Arc<ClipTokenizer>,
    ids: TensorSpec,
    output: String,
    kept: Arc<Mutex<LruCache<String, Conditioning>>>,
}

impl Conditioner {
    /// Put a tokenizer and the text encoder together.
    ///
    /// # Errors
    /// There is no text encoder, or it does not take what the tokenizer gives.
    pub fn new(networks: Arc<dyn Networks>, tokenizer: Arc<ClipTokenizer>) -> Result<Self, Error> {
        let spec = spec(&*networks, ROLE)?;
        let ids = input(&spec, ROLE, "input_ids")?;
        if elements(&ids) != tokenizer.length() {
            let (shape, length) = (&ids.shape, tokenizer.length());
            let detail =
                format!("takes input_ids of shape {shape:?}, the tokenizer gives {length} ids");
            return Err(interface(ROLE, detail));
        }
        let output = match spec.outputs.iter().find(|s| s.name == "last_hidden_state") {
            Some(output) => output.name.clone(),
            None => first_output(&spec, ROLE)?.name,
        };
        let kept = Arc::new(Mutex::new(LruCache::new(KEPT)));
        Ok(Conditioner { networks, tokenizer, ids, output, kept })
    }

    /// The same over another way to the same networks.
    pub fn over(&self, networks: Arc<dyn Networks>) -> Self {
        Conditioner { networks, ..self.clone() }
    }

    /// Encode prompts, in their order. Those that are not kept run together, each text once.
    ///
    /// # Errors
    /// A prompt cannot be tokenised, or the text encoder fails.
    pub fn encode(&self, prompts: &[&str]) -> Result<Vec<Conditioning>, Error> {
        let mut known: Vec<Option<Conditioning>> = {
            let mut kept = self.kept();
            prompts.iter().map(|&prompt| kept.get(prompt).cloned()).collect()
        };
        let mut new: Vec<&str> = Vec::new();
        for (&prompt, known) in prompts.iter().zip(&known) {
            if known.is_none() && !new.contains(&prompt) {
                new.push(prompt);
            }
        }
        if !new.is_empty() {
            let encoded = self.run(&new)?;
            for (&prompt, known) in prompts.iter().zip(&mut known) {
                if let Some(i) = new.iter().position(|&n| n == prompt) {
                    *known = Some(encoded[i].clone());
                }
            }
            let mut kept = self.kept();
            for (prompt, conditioning) in new.into_iter().zip(encoded) {
                kept.put(prompt.to_owned(), conditioning);
            }
        }
        Ok(known.into_iter().flatten().collect())
    }

    fn kept(&self) -> MutexGuard<'_, LruCache<String, Conditioning>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, prompts: &[&str]) -> Result<Vec<Conditioning>, Error> {
        let tokens = prompts.iter().map(|prompt| self.tokenizer.encode(prompt));
        let tokens = tokens.collect::<Result<Vec<_>, _>>()?;
        let dropped: Vec<usize> = tokens.iter().map(|t| t.dropped).collect();
        let item = |ids| TensorMap::from([(self.ids.name.clone(), integers(&self.ids, ids))]);
        let items = tokens.into_iter().map(|t| item(t.ids)).collect();
        let hidden = start(&*self.networks, ROLE, items, self.output.clone())?.wait()?;
        let conditioning = |(hidden, dropped_tokens)| Conditioning { hidden, dropped_tokens };
        Ok(hidden.into_iter().zip(dropped).map(conditioning).collect())
    }
}

/// Hidden states between two prompts': `from` at weight 0, `to` at weight 1, linear in between, in float32.
///
/// # Errors
/// They are not real values, or their shapes differ.
pub fn blend(from: &Tensor, to: &Tensor, weight: f32) -> Result<Tensor, TensorError> {
    if from.shape() != to.shape() {
        return Err(TensorError::Length {
            shape: from.shape().to_vec(),
            dtype: from.dtype(),
            expected: from.bytes().len(),
            found: to.bytes().len(),
        });
    }
    let (a, b) = (from.to_f32()?, to.to_f32()?);
    let values = a.iter().zip(b.iter()).map(|(a, b)| a + weight * (b - a)).collect();
    Ok(Tensor::from_f32(from.shape(), values))
}
