//! The end of the model on a device: final norm, logits of the asked rows, log-probabilities, entropies, and their gradient.
//!
//! Formulas as in the CPU's head: log p_t = z_t - logsumexp(z), d log p_t / dz = onehot_t - p, entropy = logsumexp(z) - sum p z. Logits exist
//! for some rows at a time and are made again in the backward pass, so that (M x vocabulary) is never held.

use super::DeviceModel;
use super::layer::rms_norm;
use super::training::{Sink, required};
use crate::training::{PackedSequences, TokenLogprobs};
use candle_core::{D, DType, Result, Tensor, Var};

/// Numbers of a chunk of logits: 64 MiB in f32, a few of which exist at a time.
const CHUNK_NUMBERS: usize = 1 << 24;

/// Logits of some rows, and the logarithm of the sum of their exponentials. // (m, V), (m, 1); f32
struct Chunk {
    logits: Tensor,
    log_sum: Tensor,
}

impl DeviceModel {
    /// Rows of a batch that are asked for, in chunks of (start, count).
    fn head_chunks(&self, num_rows: usize) -> impl Iterator<Item = (usize, usize)> {
        let step = (CHUNK_NUMBERS / self.config.vocab_size).max(1);
        (0..num_rows).step_by(step).map(move |start| (start, step.min(num_rows - start)))
    }

    /// normed: (m, D)
    fn head_chunk(&self, normed: &Tensor) -> Result<Chunk> {
        let logits = normed.matmul(&self.head.t()?)?.to_dtype(DType::F32)?;
        let largest = logits.max_keepdim(D::Minus1)?;
        let sum = logits.broadcast_sub(&largest)?.exp()?.sum_keepdim(D::Minus1)?;
        Ok(Chunk { log_sum: (largest + sum.log()?)?, logits })
    }

    /// x: the last layer's output at the asked rows, (M, D)
    pub(super) fn head_forward(&self, x: &Tensor, batch: &PackedSequences) -> Result<TokenLogprobs> {
        let normed = rms_norm(x, &self.final_norm.as_detached_tensor(), self.config.rms_norm_eps)?;
        let targets = self.indices(&batch.targets)?.unsqueeze(1)?; // (M, 1)
        let mut result = TokenLogprobs::default();
        for (start, count) in self.head_chunks(batch.targets.len()) {
            let Chunk { logits, log_sum } = self.head_chunk(&normed.narrow(0, start, count)?)?;
            let chosen = logits.gather(&targets.narrow(0, start, count)?.contiguous()?, 1)?;
            let shifted = logits.broadcast_sub(&log_sum)?; // log p
            let entropies = (shifted.exp()? * &shifted)?.sum(D::Minus1)?.neg()?;
            result.logprobs.extend((chosen - log_sum)?.flatten_all()?.to_vec1::<f32>()?);
            result.entropies.extend(entropies.to_vec1::<f32>()?);
        }
        Ok(result)
    }

    /// Hands over the gradient of the final norm; returns those of x and, on the host, of the output projection. // slopes: (M); x and its gradient: (M, D)
    pub(super) fn head_backward(
        &self,
        x: &Tensor,
        batch: &PackedSequences,
        slopes: &[f32],
        sink: &mut Sink<'_>,
    ) -> Result<(Tensor, Vec<f32>)> {
        let x = Var::from_tensor(x)?;
        let normed = rms_norm(&x, &self.final_norm, self.config.rms_norm_eps)?;
        let rows = normed.detach();
        let targets = self.indices(&batch.targets)?.unsqueeze(1)?;
        let slopes = Tensor::from_slice(slopes, (slopes.len(), 1), self.device())?;
        let mut dhead = Tensor::zeros(self.head.shape(), DType::F32, self.device())?;
        let mut drows = Vec::new();
        for (start, count) in self.head_chunks(batch.targets.len()) {
            let part = |tensor: &Tensor| tensor.narrow(0, start, count)?.contiguous();
            let (rows, targets, slopes) = (part(&rows)?, part(&targets)?, part(&slopes)?);
            let Chunk { logits, log_sum } = self.head_chunk(&rows)?;
            let probabilities = logits.broadcast_sub(&log_sum)?.exp()?;
            let dlogits = probabilities.broadcast_mul(&slopes.neg()?)?.scatter_add(&targets, &slopes, 1)?;
            let dlogits = dlogits.to_dtype(self.dtype())?; // (m, V)
            dhead = (dhead + dlogits.t()?.matmul(&rows)?.to_dtype(DType::F32)?)?;
            drows.push(dlogits.matmul(&self.head)?);
        }
        let dhead = sink.fetch(&dhead)?;
        let gradients = (normed * Tensor::cat(&drows, 0)?)?.sum_all()?.backward()?;
        sink.add(&self.layout.final_norm, &required(&gradients, &self.final_norm)?)?;
        Ok((required(&gradients, &x)?, dhead))
    }
}
