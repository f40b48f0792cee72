//! Log-probabilities of packed sequences and the gradient of all weights, on a device: the contract of [`crate::training`].
//!
//! The forward pass records no graph and keeps the input of every layer only. The backward pass goes through the layers from the last
//! to the first; in each it makes three small graphs anew (projections, attention of one group at a time, the rest), runs candle's
//! autograd through them by the scalar `sum(output * gradient of the output)`, and adds the layer's gradient to the flat one on the
//! host before it goes on. So there is never more on the device than the weights, one (N, D) tensor a layer, and the activations and
//! gradients of one layer. The embedding's gradient is added on the host, row by row in order.
//!
//! Slopes are multiplied by a power of two on their way in and divided by it on their way out, so that those of thousands of tokens do
//! not vanish in f16.

use super::layer::{Projected, attend};
use super::packing::Group;
use super::{DeviceModel, Rotation};
use crate::error::ModelError;
use crate::kernels::add_scaled;
use crate::training::{PackedSequences, TokenLogprobs};
use candle_core::backprop::GradStore;
use candle_core::{DType, Result, Tensor, Var};
use std::ops::Range;

/// What the backward pass needs of a forward pass.
#[derive(Debug)]
pub struct DeviceTape {
    groups: Vec<Group>,
    rotation: Rotation,
    inputs: Vec<Tensor>, // of each layer, (N, D)
    asked: Tensor,       // the last layer's output at the asked rows, (M, D)
}

/// The flat gradient on the host.
pub(super) struct Gradient<'a> {
    flat: &'a mut [f32],
    /// Undoes the scaling of slopes.
    factor: f32,
}

impl Gradient<'_> {
    pub(super) fn add(&mut self, range: &Range<usize>, part: &Tensor) -> Result<()> {
        let part = part.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        add_scaled(&mut self.flat[range.clone()], self.factor, &part);
        Ok(())
    }

    pub(super) fn add_of(&mut self, gradients: &GradStore, range: &Range<usize>, parameter: &Tensor) -> Result<()> {
        self.add(range, &required(gradients, parameter)?)
    }
}

/// The gradient of a variable; that there is none is a defect, and not a gradient of zero.
pub(super) fn required(gradients: &GradStore, variable: &Tensor) -> Result<Tensor> {
    gradients.get(variable).cloned().ok_or_else(|| candle_core::Error::msg("autograd did not reach a variable"))
}

impl DeviceModel {
    /// Log-probabilities and entropies at the asked positions, with the tape for [`Self::backward`].
    ///
    /// # Errors
    /// When a sequence is longer than the model was prepared for, the asked rows do not ascend, or the device fails.
    pub fn forward(&self, batch: &PackedSequences) -> std::result::Result<(TokenLogprobs, DeviceTape), ModelError> {
        if batch.longest() > self.rotary.num_positions() {
            let (length, positions) = (batch.longest(), self.rotary.num_positions());
            return Err(ModelError::Request(format!("a sequence has {length} tokens, the device was prepared for {positions}")));
        }
        if !batch.rows.is_sorted_by(|row, next| row < next) {
            return Err(ModelError::Request("a row is asked for twice".to_owned()));
        }
        Ok(self.forward_checked(batch)?)
    }

    fn forward_checked(&self, batch: &PackedSequences) -> Result<(TokenLogprobs, DeviceTape)> {
        let positions: Vec<u32> = batch.segments.iter().flat_map(|segment| 0..segment.len() as u32).collect();
        let rotation = self.rotary.rows(&self.indices(&positions)?)?;
        let groups = Group::all(batch, self.device())?;
        let mut x = self.embed(&batch.tokens)?; // (N, D)
        let mut inputs = Vec::with_capacity(self.layers.len());
        for layer in &self.layers {
            let projected = layer.project(&self.config, &x, &rotation)?;
            let attended = self.attend_all(&groups, &projected)?;
            let next = layer.finish(&self.config, &x, &attended)?;
            inputs.push(std::mem::replace(&mut x, next));
        }
        let asked = x.index_select(&self.indices(&batch.rows)?, 0)?;
        let result = if batch.rows.is_empty() { TokenLogprobs::default() } else { self.head_forward(&asked, batch)? };
        Ok((result, DeviceTape { groups, rotation, inputs, asked }))
    }

    /// Adds to `gradient` the gradient of `sum_i dlogprobs[i] * logprobs[i]`. // gradient: as the flat weights
    ///
    /// # Errors
    /// When the device fails.
    pub fn backward(
        &self,
        batch: &PackedSequences,
        tape: DeviceTape,
        dlogprobs: &[f32],
        gradient: &mut [f32],
    ) -> std::result::Result<(), ModelError> {
        if batch.rows.is_empty() {
            return Ok(());
        }
        let scale = scale_of(dlogprobs);
        let slopes: Vec<f32> = dlogprobs.iter().map(|slope| slope * scale).collect();
        let mut gradient = Gradient { flat: gradient, factor: 1.0 / scale };
        let dasked = self.head_backward(&tape.asked, batch, &slopes, &mut gradient)?;
        let mut dx = self.spread(&dasked, batch)?; // (N, D)
        let DeviceTape { groups, rotation, mut inputs, .. } = tape;
        while let Some(input) = inputs.pop() {
            dx = self.layer_backward(inputs.len(), &groups, &rotation, &input, &dx, &mut gradient)?;
        }
        let dx = dx.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>().map_err(ModelError::from)?;
        let width = self.config.hidden_size;
        let dembedding = &mut gradient.flat[self.layout.embedding.clone()];
        for (token, dx) in batch.tokens.iter().zip(dx.chunks_exact(width)) {
            let start = *token as usize * width;
            add_scaled(&mut dembedding[start..start + width], 1.0 / scale, dx);
        }
        Ok(())
    }

    /// Gradients at the asked rows to gradients at all rows, zero elsewhere. // (M, D) to (N, D)
    fn spread(&self, asked: &Tensor, batch: &PackedSequences) -> Result<Tensor> {
        let none = batch.rows.len() as u32;
        let mut from = vec![none; batch.tokens.len()];
        for (index, row) in (0u32..).zip(&batch.rows) {
            from[*row as usize] = index;
        }
        let zero = Tensor::zeros((1, self.config.hidden_size), asked.dtype(), self.device())?;
        Tensor::cat(&[asked, &zero], 0)?.index_select(&self.indices(&from)?, 0)
    }

    /// Attention of every group, without a graph. // (N, query width)
    fn attend_all(&self, groups: &[Group], projected: &Projected) -> Result<Tensor> {
        let parts: Vec<Tensor> = groups
            .iter()
            .map(|group| {
                let [query, key, value] = padded(group, projected)?;
                group.pack(&attend(&self.config, &query, &key, &value, &group.mask)?)
            })
            .collect::<Result<_>>()?;
        let rows = projected.query.dims()[0];
        Tensor::cat(&parts, 0)?.reshape((rows, self.config.query_width()))
    }

    /// Returns the gradient of the layer's input. // input, dy: (N, D)
    fn layer_backward(
        &self,
        index: usize,
        groups: &[Group],
        rotation: &Rotation,
        input: &Tensor,
        dy: &Tensor,
        gradient: &mut Gradient<'_>,
    ) -> Result<Tensor> {
        let (layer, config) = (&self.variables[index], &self.config);
        let input = Var::from_tensor(input)?;
        let projected = layer.project(config, &input, rotation)?;
        let constants = projected.detached();

        let attended = Var::from_tensor(&self.attend_all(groups, &constants)?)?;
        let output = layer.finish(config, &input, &attended)?;
        let of_rest = (output * dy)?.sum_all()?.backward()?;
        let dattended = required(&of_rest, &attended)?.reshape(projected.query.shape())?; // (N, heads, head_dim)

        let mut dprojected = [Vec::new(), Vec::new(), Vec::new()];
        for group in groups {
            let [query, key, value] = padded(group, &constants)?;
            let inputs = [Var::from_tensor(&query)?, Var::from_tensor(&key)?, Var::from_tensor(&value)?];
            let attended = attend(config, &inputs[0], &inputs[1], &inputs[2], &group.mask)?;
            let gradients = (attended * group.pad_with_zeros(&dattended)?)?.sum_all()?.backward()?;
            for (parts, input) in dprojected.iter_mut().zip(&inputs) {
                parts.push(group.pack(&required(&gradients, input)?)?);
            }
        }
        let scalar = |projected: &Tensor, parts: &[Tensor]| (projected * Tensor::cat(parts, 0)?)?.to_dtype(DType::F32)?.sum_all();
        let [dquery, dkey, dvalue] = &dprojected;
        let sum = ((scalar(&projected.query, dquery)? + scalar(&projected.key, dkey)?)? + scalar(&projected.value, dvalue)?)?;
        let of_projections = sum.backward()?;

        for (range, parameter) in layer.parameters(&self.layout.layers[index]) {
            // Every parameter is part of one of the two graphs.
            let part = of_rest.get(parameter).map_or_else(|| required(&of_projections, parameter), |part| Ok(part.clone()))?;
            gradient.add(range, &part)?;
        }
        required(&of_rest, &input)? + required(&of_projections, &input)?
    }
}

fn padded(group: &Group, projected: &Projected) -> Result<[Tensor; 3]> {
    Ok([group.pad(&projected.query)?, group.pad(&projected.key)?, group.pad(&projected.value)?])
}

/// The power of two that lifts the largest slope to between 1 and 2.
fn scale_of(slopes: &[f32]) -> f32 {
    let largest = slopes.iter().map(|slope| slope.abs()).fold(0.0, f32::max);
    if largest.is_normal() { 2f32.powi(-(largest.log2().floor().clamp(-60.0, 60.0) as i32)) } else { 1.0 }
}
