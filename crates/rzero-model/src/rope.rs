//! Rotary frequencies of a model, and the ways in which families stretch them to longer contexts.
//!
//! Without scaling, lane i of a head of width d turns by theta^(-2i/d) a position. Scalings change these frequencies once, before any
//! position is known: `linear` (Chen et al. 2023), `llama3` (Llama 3.1's by wavelength), `yarn` (Peng et al. 2023, arXiv 2309.00071). Those that
//! depend on the length of the sequence at hand (`dynamic`, `longrope`) are refused by name. The formulas agree with transformers';
//! golden logits hold them to it.

use serde_json::{Map, Value, json};
use std::f64::consts::TAU;

/// How the frequencies are changed.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// Positions divided by a factor.
    Linear {
        /// The factor, at least 1.
        factor: f64,
    },
    /// Low frequencies divided by a factor, high ones kept, a linear blend between them.
    Llama3 {
        /// The factor, at least 1.
        factor: f64,
        /// Wavelengths over `original / low` are divided.
        low_freq_factor: f64,
        /// Wavelengths under `original / high` are kept.
        high_freq_factor: f64,
        /// Positions before scaling.
        original_positions: f64,
    },
    /// Interpolation below a number of turns, extrapolation above another, and a factor on cos and sin.
    Yarn {
        /// The factor, at least 1.
        factor: f64,
        /// Turns within the original positions from which a lane is kept as it is.
        beta_fast: f64,
        /// Turns up to which a lane is divided.
        beta_slow: f64,
        /// Positions before scaling.
        original_positions: f64,
        /// What cos and sin are multiplied by; null derives it from the factor.
        attention_factor: Option<f64>,
        /// Weights of the two logarithms that attention_factor is the ratio of, where a model names both.
        mscales: Option<[f64; 2]>,
        /// Whether the corrected lanes are rounded to whole ones.
        truncate: bool,
    },
}

/// Frequencies of all lanes and the factor on cos and sin.
#[derive(Debug, Clone, PartialEq)]
pub struct RotaryFrequencies {
    /// Radians a position. // (head_dim / 2)
    pub frequencies: Vec<f64>,
    /// 1 everywhere but under `yarn`.
    pub amplitude: f64,
}

impl RopeScaling {
    /// Reads `rope_scaling` (or the newer `rope_parameters`); `None` where it asks for none.
    ///
    /// # Errors
    /// Names the kind that is not served, or the key that is missing or out of range.
    pub fn from_json(section: &Map<String, Value>, max_positions: usize) -> Result<Option<Self>, String> {
        let kind = section.get("rope_type").or_else(|| section.get("type")).and_then(Value::as_str).unwrap_or("default");
        let number = |key: &str| match section.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_f64() {
                Some(number) if number.is_finite() && number > 0.0 => Ok(Some(number)),
                _ => Err(format!("rope_scaling `{key}` is {value}, expected a number above 0")),
            },
        };
        let needed = |key: &str| number(key)?.ok_or_else(|| format!("rope_scaling of type `{kind}` lacks `{key}`"));
        let factor = || match needed("factor") {
            Ok(factor) if !(1.0..=1e6).contains(&factor) => {
                Err(format!("rope_scaling `factor` is {factor}, expected 1 to 1000000"))
            }
            other => other,
        };
        let original = || Ok::<f64, String>(number("original_max_position_embeddings")?.unwrap_or(max_positions as f64));
        Ok(Some(match kind {
            "default" => return Ok(None),
            "linear" => Self::Linear { factor: factor()? },
            "llama3" => Self::Llama3 {
                factor: factor()?,
                low_freq_factor: needed("low_freq_factor")?,
                high_freq_factor: needed("high_freq_factor")?,
                original_positions: needed("original_max_position_embeddings")?,
            },
            "yarn" => Self::Yarn {
                factor: factor()?,
                beta_fast: number("beta_fast")?.unwrap_or(32.0),
                beta_slow: number("beta_slow")?.unwrap_or(1.0),
                original_positions: original()?,
                attention_factor: number("attention_factor")?,
                mscales: number("mscale")?.zip(number("mscale_all_dim")?).map(|(scale, all)| [scale, all]),
                truncate: section.get("truncate").and_then(Value::as_bool).unwrap_or(true),
            },
            other => return Err(format!("rope_scaling of type `{other}` is not supported, expected linear, llama3 or yarn")),
        }))
    }

    /// The section as transformers reads it, in the form that all its versions understand.
    #[must_use]
    pub fn to_json(&self) -> Value {
        match self {
            Self::Linear { factor } => json!({"rope_type": "linear", "type": "linear", "factor": factor}),
            Self::Llama3 { factor, low_freq_factor, high_freq_factor, original_positions } => json!({
                "rope_type": "llama3", "factor": factor, "low_freq_factor": low_freq_factor,
                "high_freq_factor": high_freq_factor, "original_max_position_embeddings": *original_positions as u64,
            }),
            Self::Yarn { factor, beta_fast, beta_slow, original_positions, attention_factor, mscales, truncate } => {
                let mut section = json!({
                    "rope_type": "yarn", "type": "yarn", "factor": factor, "beta_fast": beta_fast, "beta_slow": beta_slow,
                    "original_max_position_embeddings": *original_positions as u64, "truncate": truncate,
                });
                if let Some(factor) = attention_factor {
                    section["attention_factor"] = json!(factor);
                }
                if let Some([scale, all]) = mscales {
                    section["mscale"] = json!(scale);
                    section["mscale_all_dim"] = json!(all);
                }
                section
            }
        }
    }
}

impl RotaryFrequencies {
    /// Frequencies of a head of width `head_dim`.
    #[must_use]
    pub fn new(head_dim: usize, theta: f64, scaling: Option<&RopeScaling>) -> Self {
        let plain: Vec<f64> = (0..head_dim / 2).map(|index| theta.powf(-2.0 * index as f64 / head_dim as f64)).collect();
        match scaling {
            None => Self { frequencies: plain, amplitude: 1.0 },
            Some(RopeScaling::Linear { factor }) => {
                Self { frequencies: plain.iter().map(|frequency| frequency / factor).collect(), amplitude: 1.0 }
            }
            Some(RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_positions }) => {
                let scale = |frequency: &f64| {
                    let turns = original_positions * frequency / TAU;
                    if turns < *low_freq_factor {
                        frequency / factor
                    } else if turns > *high_freq_factor {
                        *frequency
                    } else {
                        let kept = (turns - low_freq_factor) / (high_freq_factor - low_freq_factor);
                        (1.0 - kept) * frequency / factor + kept * frequency
                    }
                };
                Self { frequencies: plain.iter().map(scale).collect(), amplitude: 1.0 }
            }
            Some(RopeScaling::Yarn { factor, beta_fast, beta_slow, original_positions, attention_factor, mscales, truncate }) => {
                // The lane that makes so many turns within the original positions.
                let lane_of = |turns: f64| head_dim as f64 * (original_positions / (turns * TAU)).ln() / (2.0 * theta.ln());
                let (mut low, mut high) = (lane_of(*beta_fast), lane_of(*beta_slow));
                if *truncate {
                    (low, high) = (low.floor(), high.ceil());
                }
                (low, high) = (low.max(0.0), high.min(head_dim as f64 - 1.0));
                if low == high {
                    high += 0.001;
                }
                let frequencies = plain.iter().enumerate().map(|(lane, frequency)| {
                    let divided = ((lane as f64 - low) / (high - low)).clamp(0.0, 1.0);
                    frequency / factor * divided + frequency * (1.0 - divided)
                });
                let logarithm = |weight: f64| if *factor <= 1.0 { 1.0 } else { 0.1 * weight * factor.ln() + 1.0 };
                let derived = mscales.map_or_else(|| logarithm(1.0), |[scale, all]| logarithm(scale) / logarithm(all));
                Self { frequencies: frequencies.collect(), amplitude: attention_factor.unwrap_or(derived) }
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]
mod tests {
    use super::*;

    fn read(section: Value) -> Result<Option<RopeScaling>, String> {
        RopeScaling::from_json(section.as_object().unwrap(), 2048)
    }

    #[test]
    fn scalings_read_back_what_they_write() {
        for section in [
            json!({"type": "linear", "factor": 4.0}),
            json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}),
            json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}),
            json!({"rope_type": "yarn", "factor": 40, "beta_fast": 16, "mscale": 0.7, "mscale_all_dim": 1.1, "truncate": false}),
        ] {
            let scaling = read(section).unwrap().unwrap();
            assert_eq!(read(scaling.to_json()).unwrap().unwrap(), scaling);
        }
        assert_eq!(read(json!({"rope_type": "default"})), Ok(None));
    }

    #[test]
    fn what_is_missing_or_not_served_is_named() {
        for (section, expected) in [
            (json!({"type": "dynamic", "factor": 2.0}), "dynamic"),
            (json!({"rope_type": "llama3", "factor": 8.0}), "low_freq_factor"),
            (json!({"type": "linear"}), "factor"),
            (json!({"type": "linear", "factor": 0.5}), "factor"),
            (json!({"type": "linear", "factor": "two"}), "two"),
        ] {
            let error = read(section).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn llama3_keeps_fast_lanes_and_divides_slow_ones() {
        let scaling =
            RopeScaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_positions: 8192.0 };
        let (plain, scaled) =
            (RotaryFrequencies::new(64, 500_000.0, None), RotaryFrequencies::new(64, 500_000.0, Some(&scaling)));
        assert_eq!(scaled.frequencies[0], plain.frequencies[0]);
        assert_eq!(scaled.frequencies[31], plain.frequencies[31] / 8.0);
        assert!(scaled.frequencies.is_sorted_by(|a, b| a > b));
    }
}
