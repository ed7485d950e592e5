//! From a prompt to what steers the U-Net: token ids, the text encoder's hidden states, and where the pack has a network for them, the
//! keys and values that the U-Net's cross-attentions make of those. Weights in a prompt act on the hidden states.
//!
//! Prompts that were encoded lately are kept by their text, so that a driver may ask for the same prompt with every picture. Negative
//! prompts are prompts like any other.

use crate::call::{elements, first_output, input, integers, interface, spec, start, start_all};
use crate::weighting::weighted;
use crate::{ClipTokenizer, Error, Networks, TensorMap, WeightedPrompt};
use lru::LruCache;
use rockshard_manifest::{Role, TensorSpec};
use rockshard_tensor::{Tensor, TensorError};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const ROLE: Role = Role::TextEncoder;
/// The U-Net's input of hidden states, which the network of keys and values takes in its place.
const HIDDEN: &str = "encoder_hidden_states";

/// Prompts that are kept: 15 MB of hidden states for Stable Diffusion 1.5.
const KEPT: NonZeroUsize = NonZeroUsize::new(64).unwrap();

/// A prompt as the U-Net takes it. Cheap to clone.
#[derive(Clone, Debug, PartialEq)]
pub struct Conditioning {
    /// The inputs of the U-Net that the prompt decides, by name: hidden states, or keys and values.
    pub prompt: TensorMap,
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
    /// Whether a network makes keys and values of hidden states.
    keys_values: bool,
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
        let keys_values = networks.spec(Role::KeysValues);
        if let Some(spec) = &keys_values {
            input(spec, Role::KeysValues, HIDDEN)?;
        }
        let (keys_values, kept) =
            (keys_values.is_some(), Arc::new(Mutex::new(LruCache::new(KEPT))));
        Ok(Conditioner { networks, tokenizer, ids, output, keys_values, kept })
    }

    /// The same over another way to the same networks.
    pub fn over(&self, networks: Arc<dyn Networks>) -> Self {
        Conditioner { networks, ..self.clone() }
    }

    /// Encode prompts, in their order. Those that are not kept run together, each text once.
    ///
    /// # Errors
    /// A prompt has what is not supported or cannot be tokenised, or the text encoder fails.
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
        let tokens = prompts.iter().map(|prompt| {
            let prompt = WeightedPrompt::parse(prompt)?;
            Ok(self.tokenizer.encode_weighted(&prompt)?)
        });
        let (tokens, weights): (Vec<_>, Vec<_>) =
            tokens.collect::<Result<Vec<_>, Error>>()?.into_iter().unzip();
        let dropped: Vec<usize> = tokens.iter().map(|t| t.dropped).collect();
        let item = |ids| TensorMap::from([(self.ids.name.clone(), integers(&self.ids, ids))]);
        let items = tokens.into_iter().map(|t| item(t.ids)).collect();
        let hidden = start(&*self.networks, ROLE, items, self.output.clone())?.wait()?;
        let item = |(hidden, weights): (Tensor, Vec<f32>)| {
            let failed = |source| Error::Tensor { role: ROLE, source };
            let hidden = weighted(hidden, &weights).map_err(failed)?;
            Ok(TensorMap::from([(HIDDEN.to_owned(), hidden)]))
        };
        let items = hidden.into_iter().zip(weights).map(item).collect::<Result<Vec<_>, Error>>()?;
        let prompts: Vec<TensorMap> = if self.keys_values {
            start_all(&*self.networks, Role::KeysValues, items)?.wait()?
        } else {
            items
        };
        let conditioning = |(prompt, dropped_tokens)| Conditioning { prompt, dropped_tokens };
        Ok(prompts.into_iter().zip(dropped).map(conditioning).collect())
    }
}

/// The weighted sum of prompts, in float32. One prompt of weight 1 is given back as it is.
///
/// # Errors
/// They are not real values, or differ in names or shapes.
pub fn mix(parts: &[(&TensorMap, f32)]) -> Result<TensorMap, TensorError> {
    let Some(&(first, weight)) = parts.first() else { return Ok(TensorMap::new()) };
    if parts.len() == 1 && weight == 1.0 {
        return Ok(first.clone());
    }
    let mut mixed = TensorMap::new();
    for (name, tensor) in first {
        let mut sum = vec![0.0f32; tensor.len()];
        for (part, weight) in parts {
            let differs = |found: usize| TensorError::Length {
                shape: tensor.shape().to_vec(),
                dtype: tensor.dtype(),
                expected: tensor.bytes().len(),
                found,
            };
            let other = part.get(name).ok_or_else(|| differs(0))?;
            if other.shape() != tensor.shape() {
                return Err(differs(other.bytes().len()));
            }
            sum.iter_mut().zip(other.to_f32()?.iter()).for_each(|(s, v)| *s += weight * v);
        }
        mixed.insert(name.clone(), Tensor::from_f32(tensor.shape(), sum));
    }
    Ok(mixed)
}
