//! The optimiser's memory as a safetensors file: what, beside the weights, the next step needs to go on as if nothing had stopped.

use crate::error::TrainError;
use crate::optim::AdamState;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use std::collections::BTreeMap;
use std::path::Path;

/// Moments, update count and averaged weights of a phase.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainState {
    /// AdamW's memory.
    pub adam: AdamState,
    /// Exponential moving average of the weights over steps, where the profile keeps one.
    pub average: Option<Vec<f32>>,
}

impl TrainState {
    /// Before the first step of a phase. `weights` start the average, where one is kept.
    #[must_use]
    pub fn new(weights: &[f32], weight_ema: f64) -> Self {
        Self { adam: AdamState::new(weights.len()), average: (weight_ema > 0.0).then(|| weights.to_vec()) }
    }

    /// average = decay average + (1 - decay) weights.
    pub fn update_average(&mut self, weights: &[f32], decay: f64) {
        if let Some(average) = &mut self.average {
            for (a, w) in average.iter_mut().zip(weights) {
                *a = decay as f32 * *a + (1.0 - decay) as f32 * w;
            }
        }
    }

    /// The bytes of the file.
    #[must_use]
    pub fn to_safetensors(&self) -> Vec<u8> {
        let to_bytes = |values: &[f32]| -> Vec<u8> { values.iter().flat_map(|value| value.to_le_bytes()).collect() };
        let mut parts = vec![("adam.first", to_bytes(&self.adam.first)), ("adam.second", to_bytes(&self.adam.second))];
        if let Some(average) = &self.average {
            parts.push(("weights.average", to_bytes(average)));
        }
        let updates = self.adam.updates.to_le_bytes();
        let mut views: BTreeMap<&str, TensorView<'_>> = parts
            .iter()
            .map(|(name, bytes)| {
                let view = TensorView::new(Dtype::F32, vec![bytes.len() / 4], bytes).expect("four bytes a number");
                (*name, view)
            })
            .collect();
        views.insert("adam.updates", TensorView::new(Dtype::U64, vec![1], &updates).expect("eight bytes a number"));
        safetensors::serialize(views, None).expect("flat tensors can be serialised")
    }

    /// Reads the bytes of a file made for a model of `num_parameters`.
    ///
    /// # Errors
    /// When the bytes are no safetensors, a tensor is missing or of another size or type.
    pub fn from_safetensors(bytes: &[u8], num_parameters: usize, path: &Path) -> Result<Self, TrainError> {
        let refuse = |problem: String| TrainError::State { path: path.to_path_buf(), problem };
        let file = SafeTensors::deserialize(bytes).map_err(|error| refuse(error.to_string()))?;
        let read = |name: &str| -> Result<Vec<f32>, TrainError> {
            let tensor = file.tensor(name).map_err(|_| refuse(format!("tensor `{name}` is missing")))?;
            if tensor.dtype() != Dtype::F32 || tensor.shape() != [num_parameters] {
                return Err(refuse(format!("tensor `{name}` is {:?} {:?}", tensor.dtype(), tensor.shape())));
            }
            Ok(tensor.data().as_chunks::<4>().0.iter().map(|raw| f32::from_le_bytes(*raw)).collect())
        };
        let updates = file.tensor("adam.updates").map_err(|_| refuse("tensor `adam.updates` is missing".to_owned()))?;
        let updates = match updates.data().as_chunks::<8>().0 {
            [raw] if updates.dtype() == Dtype::U64 => u64::from_le_bytes(*raw),
            _ => return Err(refuse("tensor `adam.updates` is not one u64".to_owned())),
        };
        let average = if file.names().contains(&"weights.average") { Some(read("weights.average")?) } else { None };
        Ok(Self { adam: AdamState { first: read("adam.first")?, second: read("adam.second")?, updates }, average })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]
mod tests {
    use super::*;

    #[test]
    fn state_reads_back_and_broken_bytes_are_refused() {
        let mut state = TrainState::new(&[1.0, 2.0, 3.0], 0.5);
        state.adam.updates = 7;
        state.adam.second[1] = 0.25;
        state.update_average(&[3.0, 2.0, 1.0], 0.5);
        let bytes = state.to_safetensors();
        let path = Path::new("optimizer.safetensors");
        assert_eq!(TrainState::from_safetensors(&bytes, 3, path).unwrap(), state);
        assert_eq!(state.average.as_deref(), Some([2.0, 2.0, 2.0].as_slice()));
        assert!(TrainState::from_safetensors(&bytes, 4, path).is_err());
        for length in 0..bytes.len() {
            assert!(TrainState::from_safetensors(&bytes[..length], 3, path).is_err());
        }
    }
}
