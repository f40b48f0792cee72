//! The optimiser's memory as a safetensors file: what, beside the weights, the next step needs to go on as if nothing had stopped.

use crate::error::TrainError;
use crate::grpo::StepTotals;
use crate::optim::AdamState;
use rzero_model::tensor_file::{self, Tensor, TensorFile};
use rzero_schema::vocab::FloatType;
use std::io::{self, Write};
use std::path::Path;

/// Moments, update count, and the numbers in training where the checkpoint does not hold them.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainState {
    /// AdamW's memory.
    pub adam: AdamState,
    /// Exponential moving average of the trained numbers over steps, where the profile keeps one.
    pub average: Option<Vec<f32>>,
    /// Adapters, or weights before they were rounded for the checkpoint.
    pub trained: Option<Vec<f32>>,
    /// Within a step: its updates so far.
    pub totals: Option<StepTotals>,
}

/// Name of the tensor of the numbers in training.
const TRAINED: &str = "weights.trained";

impl TrainState {
    /// Before the first step of a phase. The trained numbers start the average, where one is kept.
    #[must_use]
    pub fn new(trained: &[f32], weight_ema: f64) -> Self {
        Self {
            adam: AdamState::new(trained.len()),
            average: (weight_ema > 0.0).then(|| trained.to_vec()),
            trained: None,
            totals: None,
        }
    }

    /// average = decay average + (1 - decay) weights.
    pub fn update_average(&mut self, weights: &[f32], decay: f64) {
        if let Some(average) = &mut self.average {
            for (a, w) in average.iter_mut().zip(weights) {
                *a = decay as f32 * *a + (1.0 - decay) as f32 * w;
            }
        }
    }

    /// Writes the file; `trained` are the numbers that the checkpoint beside it does not hold.
    ///
    /// # Errors
    /// When writing fails.
    pub fn write_safetensors(&self, out: &mut dyn Write, trained: Option<&[f32]>) -> io::Result<()> {
        let shape = [self.adam.first.len()];
        let mut tensors = vec![("adam.first", self.adam.first.as_slice()), ("adam.second", self.adam.second.as_slice())];
        tensors.extend(self.average.as_ref().map(|average| ("weights.average", average.as_slice())));
        tensors.extend(trained.map(|trained| (TRAINED, trained)));
        let tensors: Vec<Tensor<'_>> = tensors.into_iter().map(|(name, values)| Tensor { name, shape: &shape, values }).collect();
        let mut texts = vec![("updates", self.adam.updates.to_string())];
        texts.extend(self.totals.as_ref().map(|totals| ("step", totals.to_text())));
        tensor_file::write(out, &tensors, FloatType::F32, &texts)
    }

    /// Reads a file made for so many trained numbers.
    ///
    /// # Errors
    /// When the file is no safetensors, or a tensor is missing or of another size or type.
    pub fn read(path: &Path, num_trained: usize) -> Result<Self, TrainError> {
        let refuse = |problem: String| TrainError::State { path: path.to_path_buf(), problem };
        let mut file = TensorFile::open(path).map_err(|error| refuse(error.to_string()))?;
        let updates = file.text("updates").and_then(|text| text.parse().ok());
        let updates = updates.ok_or_else(|| refuse("it does not say how many updates were made".to_owned()))?;
        let totals = match file.text("step") {
            Some(text) => {
                Some(StepTotals::from_text(text).ok_or_else(|| refuse("its figures of the step are broken".to_owned()))?)
            }
            None => None,
        };
        let mut read = |name: &str| read_tensor(&mut file, name, num_trained);
        let mut moments = |name: &str| read(name)?.ok_or_else(|| refuse(format!("tensor `{name}` is missing")));
        let adam = AdamState { first: moments("adam.first")?, second: moments("adam.second")?, updates };
        Ok(Self { adam, average: read("weights.average")?, trained: read(TRAINED)?, totals })
    }
}

/// Reads of such a file the numbers in training alone, where it holds them.
///
/// # Errors
/// As [`TrainState::read`].
pub fn read_trained(path: &Path, num_trained: usize) -> Result<Option<Vec<f32>>, TrainError> {
    let open = TensorFile::open(path);
    let mut file = open.map_err(|error| TrainError::State { path: path.to_path_buf(), problem: error.to_string() })?;
    read_tensor(&mut file, TRAINED, num_trained)
}

fn read_tensor(file: &mut TensorFile, name: &str, num_trained: usize) -> Result<Option<Vec<f32>>, TrainError> {
    if !file.contains(name) {
        return Ok(None);
    }
    let mut values = vec![0.0; num_trained];
    let read = file.read(name, &[num_trained], &mut values);
    read.map_err(|error| TrainError::State { path: file.path().to_path_buf(), problem: error.to_string() })?;
    Ok(Some(values))
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
        state.trained = Some(vec![0.1, 0.2, 0.3]);
        let mut totals = StepTotals::default();
        totals.add(Default::default(), 0.1);
        state.totals = Some(totals);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("optimizer.safetensors");
        let mut bytes = Vec::new();
        state.write_safetensors(&mut bytes, state.trained.as_deref()).unwrap();
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(TrainState::read(&path, 3).unwrap(), state);
        assert_eq!(state.average.as_deref(), Some([2.0, 2.0, 2.0].as_slice()));
        assert!(TrainState::read(&path, 4).is_err());
        assert_eq!(read_trained(&path, 3).unwrap(), state.trained);
        for length in 0..bytes.len() {
            std::fs::write(&path, &bytes[..length]).unwrap();
            let error = TrainState::read(&path, 3).unwrap_err().to_string();
            assert!(error.contains("optimizer.safetensors"), "{error}");
        }
    }
}
