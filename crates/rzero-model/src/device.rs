//! The same model on a candle device: an accelerator's generation and training, beside the CPU's own [`crate::decoder`] and
//! [`crate::training`].
//!
//! One tensor a parameter lies on the device; the forward pass of a layer is written once, in plain differentiable candle
//! operations ([`layer`]), and serves both [`generate_on_device`] and [`DeviceModel::backward`]. candle's fused rms_norm, rope and
//! softmax are avoided: they drop gradients without an error. Nothing is promised about bits: a device sums in its own order, so
//! that batch size, micro-batches and the kind of device change results by rounding, and equal runs need not be equal.
//!
//! What was tested: on a CUDA device nothing yet, and no kernel of this path has run there. Tests run all of it on candle's CPU
//! device instead, in f32 against the decoder and the trainer of the CPU (logits, completions, every parameter's gradient) and, more
//! loosely, in bf16. They stand in for the arithmetic, the masks and the bookkeeping; they say nothing about CUDA kernels, memory or speed.

mod cache;
mod generate;
mod head;
mod layer;
mod packing;
mod training;

pub use generate::{DevicePrefix, generate_on_device};
pub use training::DeviceTape;

use crate::config::ModelConfig;
use crate::error::ModelError;
use crate::rope::RotaryFrequencies;
use crate::weights::{Layout, Weights};
use candle_core::{DType, Device, Result, Tensor, Var};
use layer::DeviceLayer;
use std::ops::Range;

/// In what numbers a device keeps matrices, activations and the cache. Norms, softmax and logits are f32 in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// 32 bits: what the CPU computes in.
    #[default]
    F32,
    /// 16 bits with the range of f32.
    Bf16,
    /// 16 bits with a small range: fit for generation; gradients may overflow, which training then reports.
    F16,
}

/// A device to compute on, and its precision.
#[derive(Debug, Clone)]
pub struct Accelerator {
    device: Device,
    precision: Precision,
}

impl Accelerator {
    /// candle's CPU device: the whole path without an accelerator, for tests.
    #[must_use]
    pub fn candle_cpu(precision: Precision) -> Self {
        Self { device: Device::Cpu, precision }
    }

    /// The CUDA device of that number.
    ///
    /// # Errors
    /// When this program was built without CUDA, or there is no such device.
    pub fn cuda(ordinal: usize, precision: Precision) -> std::result::Result<Self, ModelError> {
        Ok(Self { device: Device::new_cuda(ordinal)?, precision })
    }

    fn dtype(&self) -> DType {
        match self.precision {
            Precision::F32 => DType::F32,
            Precision::Bf16 => DType::BF16,
            Precision::F16 => DType::F16,
        }
    }
}

/// A model whose parameters lie on a device.
#[derive(Debug)]
pub struct DeviceModel {
    config: ModelConfig,
    layout: Layout,
    accelerator: Accelerator,
    rotary: Rotary,
    embedding: Tensor, // (V, D)
    /// Without gradients, for everything but the backward pass.
    layers: Vec<DeviceLayer>,
    /// The same numbers as variables, for the backward pass.
    variables: Vec<DeviceLayer>,
    final_norm: Var, // (D), f32
    head: Tensor,    // (V, D)
}

impl DeviceModel {
    /// Copies weights to a device, for sequences of up to `longest` tokens.
    ///
    /// # Errors
    /// When the device fails, for example for want of memory.
    pub fn new(weights: &Weights, accelerator: &Accelerator, longest: usize) -> std::result::Result<Self, ModelError> {
        let (config, layout) = (&weights.config, &weights.layout);
        let upload = Upload { weights, accelerator };
        let variables: Vec<DeviceLayer> =
            layout.layers.iter().map(|places| DeviceLayer::upload(config, places, &upload)).collect::<Result<_>>()?;
        let embedding = upload.matrix(&layout.embedding, config.hidden_size)?;
        let head = if config.is_tied { embedding.clone() } else { upload.matrix(&layout.head, config.hidden_size)? };
        Ok(Self {
            rotary: Rotary::new(config, longest, &accelerator.device)?,
            layers: variables.iter().map(DeviceLayer::detached).collect(),
            variables,
            embedding,
            final_norm: Var::from_tensor(&upload.vector(&layout.final_norm)?)?,
            head,
            config: config.clone(),
            layout: layout.clone(),
            accelerator: accelerator.clone(),
        })
    }

    /// Sizes and switches.
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn device(&self) -> &Device {
        &self.accelerator.device
    }

    fn dtype(&self) -> DType {
        self.accelerator.dtype()
    }

    fn indices(&self, numbers: &[u32]) -> Result<Tensor> {
        Tensor::from_slice(numbers, numbers.len(), self.device())
    }

    /// Rows of the embedding. // (N, D)
    fn embed(&self, tokens: &[u32]) -> Result<Tensor> {
        self.embedding.index_select(&self.indices(tokens)?, 0)
    }

    /// Final norm and output projection. // x: (M, D); (M, V), f32
    fn logits(&self, x: &Tensor) -> Result<Tensor> {
        let normed = layer::rms_norm(x, &self.final_norm.as_detached_tensor(), self.config.rms_norm_eps)?;
        normed.matmul(&self.head.t()?)?.to_dtype(DType::F32)
    }
}

/// Weights on their way to a device.
struct Upload<'a> {
    weights: &'a Weights,
    accelerator: &'a Accelerator,
}

impl Upload<'_> {
    fn tensor(&self, range: &Range<usize>, shape: &[usize]) -> Result<Tensor> {
        Tensor::from_slice(self.weights.at(range), shape, &self.accelerator.device)
    }

    /// A matrix [out, in], in the device's precision.
    fn matrix(&self, range: &Range<usize>, inputs: usize) -> Result<Tensor> {
        self.tensor(range, &[range.len() / inputs, inputs])?.to_dtype(self.accelerator.dtype())
    }

    /// A norm or a bias, in f32.
    fn vector(&self, range: &Range<usize>) -> Result<Tensor> {
        self.tensor(range, &[range.len()])
    }
}

/// cos and sin of every position, on the device: the numbers of [`crate::kernels::RotaryTable`]. // (positions, head_dim / 2), f32
#[derive(Debug)]
struct Rotary {
    cos: Tensor,
    sin: Tensor,
}

/// cos and sin of the positions of some rows. // (N, 1, head_dim / 2), f32
#[derive(Debug)]
struct Rotation {
    cos: Tensor,
    sin: Tensor,
}

impl Rotary {
    fn new(config: &ModelConfig, positions: usize, device: &Device) -> Result<Self> {
        let RotaryFrequencies { frequencies, amplitude } = config.rotary_frequencies();
        let table = |of: fn(f64) -> f64| {
            let row = |position: usize| frequencies.iter().map(move |by| (amplitude * of(position as f64 * by)) as f32);
            Tensor::from_vec((0..positions).flat_map(row).collect::<Vec<f32>>(), (positions, frequencies.len()), device)
        };
        Ok(Self { cos: table(f64::cos)?, sin: table(f64::sin)? })
    }

    fn num_positions(&self) -> usize {
        self.cos.dims()[0]
    }

    fn rows(&self, positions: &Tensor) -> Result<Rotation> {
        let of = |table: &Tensor| table.index_select(positions, 0)?.unsqueeze(1);
        Ok(Rotation { cos: of(&self.cos)?, sin: of(&self.sin)? })
    }
}
