//! `--device`: what a stage that runs a model computes on.
//!
//! `cpu`, or `cuda`, `cuda:1`, `cuda:1:bf16`: a CUDA device by its number (0 where left out) and precision (f32 where left out). Tests run the
//! whole path of an accelerator on `candle-cpu`, which `--help` does not name. Stages that only move tables leave the flag alone.

use crate::exit::StageFailure;
use rzero_schema::vocab::Stage;
use std::fmt;
use std::str::FromStr;

/// In what numbers a device computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DevicePrecision {
    /// 32 bits.
    #[default]
    F32,
    /// 16 bits, the range of f32.
    Bf16,
    /// 16 bits, a small range.
    F16,
}

impl DevicePrecision {
    const ALL: [(Self, &'static str); 3] = [(Self::F32, "f32"), (Self::Bf16, "bf16"), (Self::F16, "f16")];

    fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(precision, _)| *precision == self).map_or("f32", |(_, name)| *name)
    }
}

/// What to compute on, as typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// This project's own CPU path.
    #[default]
    Cpu,
    /// The accelerator's path on the CPU, for tests.
    CandleCpu(DevicePrecision),
    /// A CUDA device by its number.
    Cuda(usize, DevicePrecision),
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = || format!("expected cpu, cuda, cuda:N or cuda:N:PRECISION with one of f32, bf16, f16, not `{text}`");
        let mut parts = text.split(':').peekable();
        let kind = parts.next().unwrap_or_default();
        let ordinal = match parts.peek().map(|part| part.parse::<usize>()) {
            Some(Ok(ordinal)) if kind == "cuda" => {
                parts.next();
                ordinal
            }
            _ => 0,
        };
        let precision = match parts.next() {
            None => DevicePrecision::F32,
            Some(name) => DevicePrecision::ALL
                .iter()
                .find(|(_, known)| *known == name)
                .map(|(precision, _)| *precision)
                .ok_or_else(refuse)?,
        };
        match (kind, parts.next()) {
            ("cpu", None) if text == "cpu" => Ok(Self::Cpu),
            ("candle-cpu", None) => Ok(Self::CandleCpu(precision)),
            ("cuda", None) => Ok(Self::Cuda(ordinal, precision)),
            _ => Err(refuse()),
        }
    }
}

/// As it stands in the manifest.
impl fmt::Display for DeviceChoice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => formatter.write_str("cpu"),
            Self::CandleCpu(precision) => write!(formatter, "candle-cpu:{}", precision.as_str()),
            Self::Cuda(ordinal, precision) => write!(formatter, "cuda:{ordinal}:{}", precision.as_str()),
        }
    }
}

impl DeviceChoice {
    /// What a stage will use: stages without a model stay on the CPU whatever was typed.
    ///
    /// # Errors
    /// When a CUDA device is asked of a program that was built without CUDA: exit code 2.
    pub fn for_stage(self, stage: Stage) -> Result<Self, StageFailure> {
        if !matches!(
            stage,
            Stage::ChallengeGen | Stage::SolveSample | Stage::Verify | Stage::GrpoGradient | Stage::GrpoStep | Stage::Eval
        ) {
            return Ok(Self::Cpu);
        }
        if matches!(self, Self::Cuda(..)) && !cfg!(feature = "cuda") {
            return Err(StageFailure::usage(format!("device {self} was asked for, but this program was built without CUDA"))
                .hint("build it with `cargo build --release --features cuda`, which needs nvcc, or use --device cpu"));
        }
        Ok(self)
    }

    /// Opens the device; `None` is this project's own CPU path.
    ///
    /// # Errors
    /// When the device is not there: exit code 2.
    #[cfg(feature = "model")]
    pub fn open(self) -> Result<Option<rzero_model::device::Accelerator>, StageFailure> {
        use rzero_model::device::{Accelerator, Precision};
        let precision = |precision: DevicePrecision| match precision {
            DevicePrecision::F32 => Precision::F32,
            DevicePrecision::Bf16 => Precision::Bf16,
            DevicePrecision::F16 => Precision::F16,
        };
        match self {
            Self::Cpu => Ok(None),
            Self::CandleCpu(bits) => Ok(Some(Accelerator::candle_cpu(precision(bits)))),
            Self::Cuda(ordinal, bits) => Accelerator::cuda(ordinal, precision(bits)).map(Some).map_err(|error| {
                StageFailure::usage(format!("device {self} cannot be opened: {error}"))
                    .hint("`nvidia-smi` lists the devices of this machine, numbered from 0; or use --device cpu")
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_as_they_are_written() {
        for (text, written) in [
            ("cpu", "cpu"),
            ("cuda", "cuda:0:f32"),
            ("cuda:3", "cuda:3:f32"),
            ("cuda:bf16", "cuda:0:bf16"),
            ("cuda:1:f16", "cuda:1:f16"),
            ("candle-cpu", "candle-cpu:f32"),
            ("candle-cpu:bf16", "candle-cpu:bf16"),
        ] {
            let device: DeviceChoice = text.parse().unwrap_or_else(|problem| panic!("{problem}"));
            assert_eq!(device.to_string(), written);
            assert_eq!(written.parse(), Ok(device));
        }
        for text in ["", "gpu", "cpu:1", "cpu:f32", "cuda:", "cuda:-1", "cuda:1:", "cuda:1:f64", "cuda:0:f32:1", "candle-cpu:0"] {
            assert!(text.parse::<DeviceChoice>().is_err(), "{text} was taken");
        }
    }

    #[test]
    fn stages_without_a_model_stay_on_the_cpu() {
        let cuda = DeviceChoice::Cuda(0, DevicePrecision::F32);
        assert_eq!(cuda.for_stage(Stage::VoteLabel).ok(), Some(DeviceChoice::Cpu));
        assert_eq!(cuda.for_stage(Stage::GrpoStep).is_ok(), cfg!(feature = "cuda"));
    }
}
