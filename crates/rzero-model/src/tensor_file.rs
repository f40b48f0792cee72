//! safetensors files, tensor by tensor: never more in memory than one tensor's numbers and a small buffer.
//!
//! The header is checked against the size of the file before anything is allocated, so that a file may claim what it likes. Numbers are
//! read as f32 from f32, f16 or bf16, and written as any of these. Deliberately absent: other types, memory maps (a file that is cut
//! short under a map kills the process).

use crate::error::ModelError;
use half::{bf16, f16};
use pulp::bytemuck;
use rzero_schema::vocab::FloatType;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Longest header that is read; that of a model of ten thousand tensors has about 1 MB.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// Numbers that are converted at a time.
const CHUNK: usize = 1 << 16;

/// A safetensors file that was opened and whose header fits its size.
#[derive(Debug)]
pub struct TensorFile {
    file: File,
    path: PathBuf,
    metadata: Metadata,
    data_start: u64,
}

impl TensorFile {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    /// When the file cannot be read, or its header is broken or claims anything but exactly the rest of the file.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let refuse = |problem: String| ModelError::Weights { path: path.to_path_buf(), problem };
        let fail = |source| ModelError::Io { path: path.to_path_buf(), source };
        let mut file = File::open(path).map_err(fail)?;
        let num_bytes = file.metadata().map_err(fail)?.len();
        let mut head = [0u8; 8];
        file.read_exact(&mut head).map_err(|_| refuse(format!("it has {num_bytes} bytes, too few for a header")))?;
        let header_bytes = u64::from_le_bytes(head);
        if header_bytes > num_bytes - 8 || header_bytes > MAX_HEADER_BYTES {
            return Err(refuse(format!("its header claims {header_bytes} bytes, the file has {num_bytes}")));
        }
        let mut header = vec![0u8; header_bytes as usize];
        file.read_exact(&mut header).map_err(fail)?;
        let metadata: Metadata =
            serde_json::from_slice(&header).map_err(|error| refuse(format!("its header is broken: {error}")))?;
        let data_start = 8 + header_bytes;
        let expected = data_start.checked_add(metadata.data_len() as u64);
        if expected != Some(num_bytes) {
            return Err(refuse(format!(
                "its header describes {} bytes of numbers, the file holds {}",
                metadata.data_len(),
                num_bytes - data_start
            )));
        }
        Ok(Self { file, path: path.to_path_buf(), metadata, data_start })
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it holds a tensor of this name.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.metadata.info(name).is_some()
    }

    /// Names of all tensors, in the order in which they lie in the file.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.metadata.offset_keys()
    }

    /// Type and shape of a tensor.
    #[must_use]
    pub fn info(&self, name: &str) -> Option<(Dtype, &[usize])> {
        self.metadata.info(name).map(|info| (info.dtype, info.shape.as_slice()))
    }

    /// Bytes of all tensors.
    #[must_use]
    pub fn data_bytes(&self) -> usize {
        self.metadata.data_len()
    }

    /// A text that stands in the header's metadata.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        self.metadata.metadata().as_ref()?.get(key).map(String::as_str)
    }

    /// A tensor that has to be there, of a known shape.
    ///
    /// # Errors
    /// When it is missing or has another shape.
    pub fn expect(&self, name: &str, shape: &[usize]) -> Result<&TensorInfo, ModelError> {
        let refuse = |problem: String| ModelError::Weights { path: self.path.clone(), problem };
        let Some(info) = self.metadata.info(name) else {
            return Err(refuse(format!("tensor `{name}` is missing")));
        };
        if info.shape.as_slice() != shape {
            return Err(refuse(format!("tensor `{name}` has shape {:?}, expected {shape:?}", info.shape)));
        }
        Ok(info)
    }

    /// Reads a tensor of a known shape into `target`, as f32.
    ///
    /// # Errors
    /// When the tensor is missing, has another shape, a type other than f32, f16 or bf16, or holds a number that is not finite.
    pub fn read(&mut self, name: &str, shape: &[usize], target: &mut [f32]) -> Result<(), ModelError> {
        let path = self.path.clone();
        let refuse = |problem: String| ModelError::Weights { path: path.clone(), problem };
        let TensorInfo { dtype, data_offsets, .. } = self.expect(name, shape)?;
        let (dtype, start) = (*dtype, self.data_start + data_offsets.0 as u64);
        let fail = |source| ModelError::Io { path: path.clone(), source };
        self.file.seek(SeekFrom::Start(start)).map_err(fail)?;
        let mut halves = vec![0u16; if dtype == Dtype::F32 { 0 } else { CHUNK.min(target.len()) }];
        for target in target.chunks_mut(CHUNK) {
            match dtype {
                Dtype::F32 => {
                    self.file.read_exact(bytemuck::cast_slice_mut(target)).map_err(fail)?;
                    target.iter_mut().for_each(|value| *value = f32::from_bits(u32::from_le(value.to_bits())));
                }
                Dtype::F16 | Dtype::BF16 => {
                    let halves = &mut halves[..target.len()];
                    self.file.read_exact(bytemuck::cast_slice_mut(halves)).map_err(fail)?;
                    for (value, half) in target.iter_mut().zip(halves.iter()) {
                        let bits = u16::from_le(*half);
                        *value = if dtype == Dtype::F16 { f16::from_bits(bits).to_f32() } else { bf16::from_bits(bits).to_f32() };
                    }
                }
                other => return Err(refuse(format!("tensor `{name}` is of type {other:?}, expected F32, F16 or BF16"))),
            }
            // A sum of magnitudes is finite exactly where all of them are, short of 2^110 numbers of the largest size.
            if !target.iter().map(|value| f64::from(value.abs())).sum::<f64>().is_finite() {
                return Err(refuse(format!("tensor `{name}` holds a value that is not finite")));
            }
        }
        Ok(())
    }
}

/// One tensor to write.
#[derive(Debug, Clone, Copy)]
pub struct Tensor<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its shape.
    pub shape: &'a [usize],
    /// Its numbers.
    pub values: &'a [f32],
}

/// The first bytes of a file of these tensors: what is followed by their numbers, one after the other in this order.
///
/// # Errors
/// When a shape does not describe a size that can be stored.
pub fn header(
    tensors: impl Iterator<Item = (String, Vec<usize>)>,
    float: FloatType,
    texts: &[(&str, String)],
) -> io::Result<Vec<u8>> {
    let (dtype, width) = match float {
        FloatType::F32 => (Dtype::F32, 4),
        FloatType::Bf16 => (Dtype::BF16, 2),
        FloatType::F16 => (Dtype::F16, 2),
    };
    let mut end = 0;
    let infos = tensors.map(|(name, shape)| {
        let start = end;
        end += width * shape.iter().product::<usize>();
        (name, TensorInfo { dtype, shape, data_offsets: (start, end) })
    });
    let texts: HashMap<String, String> = texts.iter().map(|(key, text)| ((*key).to_owned(), text.clone())).collect();
    let metadata = Metadata::new(Some(texts), infos.collect()).map_err(io::Error::other)?;
    let mut json = serde_json::to_vec(&metadata)?;
    // Numbers begin at a multiple of eight, so that readers may map them.
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
    bytes.append(&mut json);
    Ok(bytes)
}

/// Writes numbers as they stand in a safetensors file.
///
/// # Errors
/// When writing fails.
pub fn write_values(out: &mut dyn Write, values: &[f32], float: FloatType) -> io::Result<()> {
    let mut halves = vec![0u16; if float == FloatType::F32 { 0 } else { CHUNK.min(values.len()) }];
    for values in values.chunks(CHUNK) {
        let halves = &mut halves[..if float == FloatType::F32 { 0 } else { values.len() }];
        match float {
            FloatType::F32 if cfg!(target_endian = "little") => out.write_all(bytemuck::cast_slice(values))?,
            FloatType::F32 => {
                for value in values {
                    out.write_all(&value.to_le_bytes())?;
                }
            }
            FloatType::Bf16 => {
                halves.iter_mut().zip(values).for_each(|(half, value)| *half = bf16::from_f32(*value).to_bits().to_le())
            }
            FloatType::F16 => {
                halves.iter_mut().zip(values).for_each(|(half, value)| *half = f16::from_f32(*value).to_bits().to_le())
            }
        }
        out.write_all(bytemuck::cast_slice(halves))?;
    }
    Ok(())
}

/// Writes a whole file; tensors stand in it in the order of their names, and `texts` in its header.
///
/// # Errors
/// When writing fails.
pub fn write(out: &mut dyn Write, tensors: &[Tensor<'_>], float: FloatType, texts: &[(&str, String)]) -> io::Result<()> {
    let mut sorted: Vec<&Tensor<'_>> = tensors.iter().collect();
    sorted.sort_by_key(|tensor| tensor.name);
    out.write_all(&header(sorted.iter().map(|tensor| (tensor.name.to_owned(), tensor.shape.to_vec())), float, texts)?)?;
    sorted.into_iter().try_for_each(|tensor| write_values(out, tensor.values, float))
}

/// Rounds numbers to what a file of this type would give back.
pub fn round(values: &mut [f32], float: FloatType) {
    match float {
        FloatType::F32 => {}
        FloatType::Bf16 => values.iter_mut().for_each(|value| *value = bf16::from_f32(*value).to_f32()),
        FloatType::F16 => values.iter_mut().for_each(|value| *value = f16::from_f32(*value).to_f32()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]
mod tests {
    use super::*;
    use safetensors::tensor::{SafeTensors, TensorView};

    #[test]
    fn files_are_those_of_the_safetensors_library_and_read_back() {
        let (first, second) = ([1.5f32, -2.0, 0.25], [3.0f32, 4.0]);
        let tensors = [Tensor { name: "b", shape: &[3], values: &first }, Tensor { name: "a", shape: &[1, 2], values: &second }];
        let mut bytes = Vec::new();
        write(&mut bytes, &tensors, FloatType::F32, &[("format", "pt".to_owned())]).unwrap();
        let raw: Vec<Vec<u8>> = tensors.iter().map(|tensor| bytemuck::cast_slice(tensor.values).to_vec()).collect();
        let views = tensors
            .iter()
            .zip(&raw)
            .map(|(tensor, raw)| (tensor.name, TensorView::new(Dtype::F32, tensor.shape.to_vec(), raw).unwrap()));
        let theirs = safetensors::serialize(views, Some([("format".to_owned(), "pt".to_owned())].into())).unwrap();
        assert_eq!(bytes, theirs);

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        for float in FloatType::ALL {
            let mut bytes = Vec::new();
            write(&mut bytes, &tensors, *float, &[("updates", "7".to_owned())]).unwrap();
            assert!(SafeTensors::deserialize(&bytes).is_ok());
            std::fs::write(&path, &bytes).unwrap();
            let mut file = TensorFile::open(&path).unwrap();
            let mut read = [0f32; 3];
            file.read("b", &[3], &mut read).unwrap();
            assert_eq!(read, first);
            assert_eq!((file.text("updates"), file.names()), (Some("7"), vec!["a".to_owned(), "b".to_owned()]));
            assert!(file.read("b", &[1, 3], &mut read).is_err() && file.read("c", &[3], &mut read).is_err());
        }
    }

    #[test]
    fn rounding_is_what_a_file_gives_back() {
        let values = [1.0f32 + 1.0 / 512.0, -5.123_45, 1e-30, 65_504.0];
        for float in FloatType::ALL {
            let mut bytes = Vec::new();
            write_values(&mut bytes, &values, *float).unwrap();
            let mut rounded = values;
            round(&mut rounded, *float);
            let mut again = Vec::new();
            write_values(&mut again, &rounded, *float).unwrap();
            assert_eq!(bytes, again);
        }
    }
}
