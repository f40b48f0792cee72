//! Log-probabilities of packed sequences and the gradient of all weights, on a device: the contract of [`crate::training`].
//!
//! The forward pass records no graph and keeps the input of every layer only. The backward pass goes through the layers from the last
//! to the first; in each it makes small graphs anew (projections, attention of one group at a time, the rest), runs candle's autograd
//! through them by the scalar `sum(output * gradient of the output)`, and hands the layer's gradient to the host before it goes on. So
//! there is never more on the device than the weights, one (N, D) tensor a layer, and the activations and gradients of one layer. The
//! embedding's gradient is added up on the host, row by row in order.
//!
//! Slopes are multiplied by a power of two on their way in and divided by it on their way out, so that those of thousands of tokens do
//! not vanish in f16.

use super::layer::Projected;
use super::packing::{Group, positions};
use super::{DeviceModel, Rotation};
use crate::error::ModelError;
use crate::kernels::add_scaled;
use crate::training::{GradientSink, PackedSequences, TokenLogprobs};
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

/// Where finished parts of the gradient go, by their range in the flat weights.
pub(super) struct Sink<'a> {
    take: GradientSink<'a>,
    /// Undoes the scaling of slopes.
    factor: f32,
}

impl Sink<'_> {
    /// A part of the gradient on the host, its scaling undone.
    pub(super) fn fetch(&self, part: &Tensor) -> Result<Vec<f32>> {
        let mut part = part.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        part.iter_mut().for_each(|value| *value *= self.factor);
        Ok(part)
    }

    pub(super) fn add(&mut self, range: &Range<usize>, part: &Tensor) -> Result<()> {
        let part = self.fetch(part)?;
        (self.take)(range.clone(), &part);
        Ok(())
    }
}

/// The gradient of a variable; that there is none is a defect, and not a gradient of zero.
pub(super) fn required(gradients: &GradStore, variable: &Tensor) -> Result<Tensor> {
    gradients.get(variable).cloned().ok_or_else(|| candle_core::Error::msg("autograd did not reach a variable"))
}

impl DeviceModel {
    /// Log-probabilities and entropies at the asked positions.
    ///
    /// # Errors
    /// When a sequence is longer than the model was prepared for, or the device fails.
    pub fn logprobs(&self, batch: &PackedSequences) -> std::result::Result<TokenLogprobs, ModelError> {
        self.check(batch)?;
        Ok(self.forward_batch(batch, None)?.0)
    }

    /// Log-probabilities and entropies at the asked positions, with the tape for [`Self::backward`].
    ///
    /// # Errors
    /// As [`Self::logprobs`].
    pub fn forward(&self, batch: &PackedSequences) -> std::result::Result<(TokenLogprobs, DeviceTape), ModelError> {
        self.check(batch)?;
        let mut inputs = Vec::with_capacity(self.layers.len());
        let (result, groups, rotation, asked) = self.forward_batch(batch, Some(&mut inputs))?;
        Ok((result, DeviceTape { groups, rotation, inputs, asked }))
    }

    fn check(&self, batch: &PackedSequences) -> std::result::Result<(), ModelError> {
        let (length, positions) = (batch.longest(), self.rotary.num_positions());
        if length > positions {
            return Err(ModelError::Request(format!("a sequence has {length} tokens, the device was prepared for {positions}")));
        }
        Ok(())
    }

    /// Pushes the input of every layer where they are wanted; returns also what the last layer gave at the asked rows.
    fn forward_batch(
        &self,
        batch: &PackedSequences,
        mut inputs: Option<&mut Vec<Tensor>>,
    ) -> Result<(TokenLogprobs, Vec<Group>, Rotation, Tensor)> {
        let rotation = self.rotary.rows(&self.indices(&positions(&batch.segments))?)?;
        let groups = Group::all(&batch.segments, self.device())?;
        let mut x = self.embed(&batch.tokens)?; // (N, D)
        for layer in &self.layers {
            let projected = layer.project(&self.config, &x, &rotation)?;
            let attended = self.attend_all(&groups, &projected)?;
            let next = layer.finish(&self.config, &x, &attended)?;
            let input = std::mem::replace(&mut x, next);
            if let Some(inputs) = &mut inputs {
                inputs.push(input);
            }
        }
        if batch.rows.is_empty() {
            // A device takes no tensors of nothing; what was asked for is then not looked at.
            return Ok((TokenLogprobs::default(), groups, rotation, x));
        }
        let asked = x.index_select(&self.indices(&batch.rows)?, 0)?;
        Ok((self.head_forward(&asked, batch)?, groups, rotation, asked))
    }

    /// Hands the gradient of `sum_i dlogprobs[i] * logprobs[i]` to `sink`, every parameter once: its range in the flat weights, and
    /// its numbers. Nothing where nothing was asked for.
    ///
    /// # Errors
    /// When the device fails.
    pub fn backward(
        &self,
        batch: &PackedSequences,
        tape: DeviceTape,
        dlogprobs: &[f32],
        sink: GradientSink<'_>,
    ) -> std::result::Result<(), ModelError> {
        if batch.rows.is_empty() {
            return Ok(());
        }
        let scale = scale_of(dlogprobs);
        let slopes: Vec<f32> = dlogprobs.iter().map(|slope| slope * scale).collect();
        let mut sink = Sink { take: sink, factor: 1.0 / scale };
        let DeviceTape { groups, rotation, mut inputs, asked } = tape;
        let (dasked, dhead) = self.head_backward(&asked, batch, &slopes, &mut sink)?;
        let mut dx = self.spread(&dasked, batch)?; // (N, D)
        while let Some(input) = inputs.pop() {
            dx = self.layer_backward(inputs.len(), &groups, &rotation, &input, &dx, &mut sink)?;
        }
        let mut dembedding = if self.config.is_tied {
            dhead
        } else {
            (sink.take)(self.layout.head.clone(), &dhead);
            vec![0.0; self.layout.embedding.len()]
        };
        let width = self.config.hidden_size;
        for (token, dx) in batch.tokens.iter().zip(sink.fetch(&dx)?.chunks_exact(width)) {
            let start = *token as usize * width;
            add_scaled(&mut dembedding[start..start + width], 1.0, dx);
        }
        (sink.take)(self.layout.embedding.clone(), &dembedding);
        Ok(())
    }

    /// Gradients at the asked rows to gradients at all rows: a row may be asked for several times, or not at all. // (M, D) to (N, D)
    fn spread(&self, asked: &Tensor, batch: &PackedSequences) -> Result<Tensor> {
        let none = Tensor::zeros((batch.tokens.len(), self.config.hidden_size), DType::F32, self.device())?;
        none.index_add(&self.indices(&batch.rows)?, &asked.to_dtype(DType::F32)?, 0)?.to_dtype(asked.dtype())
    }

    /// Attention of every group, without a graph. // (N, query width)
    fn attend_all(&self, groups: &[Group], projected: &Projected) -> Result<Tensor> {
        let parts: Vec<Tensor> = groups.iter().map(|group| group.forward(&self.config, projected)).collect::<Result<_>>()?;
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
        sink: &mut Sink<'_>,
    ) -> Result<Tensor> {
        let (layer, config) = (&self.variables[index], &self.config);
        let input = Var::from_tensor(input)?;
        let projected = layer.project(config, &input, rotation)?;
        let constants = projected.detached();

        let attended = Var::from_tensor(&self.attend_all(groups, &constants)?)?;
        let output = layer.finish(config, &input, &attended)?;
        let of_rest = (output * dy)?.sum_all()?.backward()?;
        let dattended = required(&of_rest, &attended)?.reshape(projected.query.shape())?; // (N, heads, head_dim)

        let [dquery, dkey, dvalue] = self.attention_backward(groups, &constants, &dattended)?;
        let scalar = |projected: &Tensor, upstream: &Tensor| (projected * upstream)?.to_dtype(DType::F32)?.sum_all();
        let of_query = scalar(&projected.query, &dquery)?;
        let sum = ((of_query + scalar(&projected.key, &dkey)?)? + scalar(&projected.value, &dvalue)?)?;
        let of_projections = sum.backward()?;

        for (range, parameter) in layer.parameters(&self.layout.layers[index]) {
            // Every parameter is part of one of the two graphs.
            let part = of_rest.get(parameter).map_or_else(|| required(&of_projections, parameter), |part| Ok(part.clone()))?;
            sink.add(range, &part)?;
        }
        required(&of_rest, &input)? + required(&of_projections, &input)?
    }

    /// Gradients of query, key and value. // (N, heads, head_dim), (N, kv heads, head_dim) twice
    fn attention_backward(&self, groups: &[Group], projected: &Projected, dattended: &Tensor) -> Result<[Tensor; 3]> {
        let mut of_rows = [Vec::new(), Vec::new(), Vec::new()];
        let mut of_past = Vec::new();
        for group in groups {
            let (own, past) = group.backward(&self.config, projected, dattended)?;
            for (parts, part) in of_rows.iter_mut().zip(own) {
                parts.push(part);
            }
            of_past.extend(past.map(|past| (group, past)));
        }
        let [dquery, dkey, dvalue] = of_rows.map(|parts| Tensor::cat(&parts, 0));
        let (dkey, dvalue) = (dkey?, dvalue?);
        for (group, [past_key, past_value]) in of_past {
            group.add_past(&past_key, &dkey)?;
            group.add_past(&past_value, &dvalue)?;
        }
        Ok([dquery?, dkey, dvalue])
    }
}

/// The power of two that lifts the largest slope to between 1 and 2.
fn scale_of(slopes: &[f32]) -> f32 {
    let largest = slopes.iter().map(|slope| slope.abs()).fold(0.0, f32::max);
    if largest.is_normal() { 2f32.powi(-(largest.log2().floor().clamp(-60.0, 60.0) as i32)) } else { 1.0 }
}
