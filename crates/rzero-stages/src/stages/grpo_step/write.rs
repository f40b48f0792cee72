//! The files that a step leaves beside its tables: the checkpoint, and adapters by themselves.

use crate::inputs::COMPANION_FILES;
use crate::outputs::StageOutputs;
use rzero_model::Weights;
use rzero_model::tensor_file;
use rzero_model::weights::{Parameter, WEIGHTS_FILE, tensors};
use rzero_schema::profile::GrpoSettings;
use rzero_schema::vocab::FloatType;
use std::path::Path;

/// Writes a model folder that transformers opens as it is: what decides its text is copied from `source`.
pub(super) fn write_checkpoint(
    outputs: &mut StageOutputs<'_>,
    folder: &Path,
    source: &Path,
    weights: &Weights,
    float: FloatType,
) -> anyhow::Result<()> {
    let companions = COMPANION_FILES.into_iter().filter(|name| source.join(name).is_file());
    for name in ["tokenizer.json"].into_iter().chain(companions) {
        outputs.copy_file(&source.join(name), &folder.join(name))?;
    }
    let config = serde_json::to_string_pretty(&weights.config.to_json(float.torch_name()))?;
    outputs.write_file(&folder.join("config.json"), config.as_bytes())?;
    outputs.write_file_with(&folder.join(WEIGHTS_FILE), |out| Ok(weights.write_safetensors(out, float)?))
}

/// The adapters by themselves, as the PEFT library reads them.
pub(super) fn write_adapters(
    outputs: &mut StageOutputs<'_>,
    settings: &GrpoSettings,
    parameters: &[Parameter],
    values: &[f32],
) -> anyhow::Result<()> {
    let config = serde_json::json!({
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": settings.lora.rank, "lora_alpha": settings.lora.alpha, "lora_dropout": 0.0,
        "bias": "none", "target_modules": settings.lora.targets, "base_model_name_or_path": null, "inference_mode": true,
    });
    outputs.write_file(&outputs.path("adapter/adapter_config.json"), serde_json::to_string_pretty(&config)?.as_bytes())?;
    let tensors = tensors(parameters, values);
    outputs.write_file_with(&outputs.path("adapter/adapter_model.safetensors"), |out| {
        Ok(tensor_file::write(out, &tensors, FloatType::F32, &[("format", "pt".to_owned())])?)
    })
}
