//! Low-rank adapters (Hu et al. 2021, arXiv 2106.09685): W' = W + s B A with s = alpha / rank, A of [rank, in], B of [out, rank].
//!
//! The model computes with W', merged once an update, so that its passes know nothing of adapters. The gradient of W' comes layer by layer and is
//! turned into that of the adapters at once: dA = s B^T dW', dB = s dW' A^T. Adapters off is W: the reference needs no model of its own.
//! Names are those of the PEFT library.

use rzero_algo::seed::{RandomStream, uniform_f64};
use rzero_model::matmul::{Matrix, Store, multiply_shared};
use rzero_model::weights::{Layout, Parameter};
use rzero_schema::profile::LoraSettings;
use std::ops::Range;

/// The adapter of one matrix.
#[derive(Debug, Clone)]
struct Adapter {
    /// Where W lies in the flat weights.
    weight: Range<usize>,
    outputs: usize,
    inputs: usize,
    /// Where A and B lie in the flat adapters.
    a: Range<usize>,
    b: Range<usize>,
}

/// The adapters of a model: one flat buffer of their own.
#[derive(Debug, Clone)]
pub struct Lora {
    rank: usize,
    scale: f32,
    adapters: Vec<Adapter>,
    /// A and B of every adapter, by name, in buffer order.
    pub parameters: Vec<Parameter>,
}

impl Lora {
    /// Lays out adapters for the target matrices of every layer.
    #[must_use]
    pub fn new(layout: &Layout, settings: &LoraSettings) -> Self {
        let rank = settings.rank;
        let (mut adapters, mut parameters, mut end) = (Vec::new(), Vec::new(), 0);
        let is_target = |parameter: &&Parameter| {
            settings.targets.iter().any(|target| parameter.name.ends_with(&format!(".{}.weight", target.as_str())))
        };
        for parameter in layout.parameters.iter().filter(is_target) {
            let (outputs, inputs) = (parameter.shape[0], parameter.shape[1]);
            let mut place = |letter: &str, shape: [usize; 2]| {
                let range = end..end + shape[0] * shape[1];
                end = range.end;
                let name = parameter.name.trim_end_matches(".weight");
                let name = format!("base_model.model.{name}.lora_{letter}.weight");
                parameters.push(Parameter { name, shape: shape.to_vec(), range: range.clone() });
                range
            };
            let (a, b) = (place("A", [rank, inputs]), place("B", [outputs, rank]));
            adapters.push(Adapter { weight: parameter.range.clone(), outputs, inputs, a, b });
        }
        Self { rank, scale: (settings.alpha / rank as f64) as f32, adapters, parameters }
    }

    /// Numbers of all adapters.
    #[must_use]
    pub fn num_parameters(&self) -> usize {
        self.parameters.last().map_or(0, |parameter| parameter.range.end)
    }

    /// Adapters that change nothing yet: A uniform within 1 / sqrt(in), as PEFT draws it, B zero.
    #[must_use]
    pub fn initial(&self, stream: &mut RandomStream) -> Vec<f32> {
        let mut values = vec![0.0; self.num_parameters()];
        for adapter in &self.adapters {
            let bound = 1.0 / (adapter.inputs as f64).sqrt();
            values[adapter.a.clone()].iter_mut().for_each(|value| *value = (bound * (2.0 * uniform_f64(stream) - 1.0)) as f32);
        }
        values
    }

    /// Adds s B A to every target matrix of the flat weights.
    pub fn merge_into(&self, weights: &mut [f32], values: &[f32]) {
        for adapter in &self.adapters {
            let (a, b) = self.matrices(adapter, values);
            multiply_shared(&mut weights[adapter.weight.clone()], adapter.inputs, Store::Add, self.scale, b, a);
        }
    }

    /// Turns a part of the gradient of the merged weights into that of the adapters whose matrices lie in it.
    pub fn project(&self, range: &Range<usize>, part: &[f32], values: &[f32], gradient: &mut [f32]) {
        let is_inside = |adapter: &&Adapter| range.start <= adapter.weight.start && adapter.weight.end <= range.end;
        for adapter in self.adapters.iter().filter(is_inside) {
            let at = adapter.weight.start - range.start..adapter.weight.end - range.start;
            let dweight = Matrix::new(&part[at], adapter.outputs, adapter.inputs);
            let (a, b) = self.matrices(adapter, values);
            let (da, db) = (adapter.a.clone(), adapter.b.clone());
            multiply_shared(&mut gradient[da], adapter.inputs, Store::Add, self.scale, b.transposed(), dweight);
            multiply_shared(&mut gradient[db], self.rank, Store::Add, self.scale, dweight, a.transposed());
        }
    }

    fn matrices<'a>(&self, adapter: &Adapter, values: &'a [f32]) -> (Matrix<'a>, Matrix<'a>) {
        let a = Matrix::new(&values[adapter.a.clone()], self.rank, adapter.inputs);
        (a, Matrix::new(&values[adapter.b.clone()], adapter.outputs, self.rank))
    }
}
