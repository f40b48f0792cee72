//! The header of a GGUF file, version 2 or 3, read with nothing believed: metadata, and where each tensor lies.
//!
//! The form is that of <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>. Every count and length is compared with the bytes
//! that are left before anything is reserved for it, so that memory is bounded by a small multiple of the header's own size. Arrays of
//! decimals and of truth values are checked and passed over; nothing here needs them.

use candle_core::quantized::GgmlDType;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;

/// Bytes a header may have. That of a vocabulary of 256 thousand tokens has about fifteen million.
pub(super) const MAX_HEADER_BYTES: u64 = 64 << 20;
/// Metadata entries a file may have, and tensors: each some ten times what the largest known files have.
const MAX_ENTRIES: u64 = 1 << 16;
/// Items of an array that are kept; the largest vocabulary that is served.
const MAX_ITEMS: u64 = 1 << 22;
/// Bytes of a metadata key or a tensor's name; the format allows keys of 65535 and names of 64.
const MAX_NAME_BYTES: u64 = (1 << 16) - 1;
/// Dimensions a tensor may have.
const MAX_DIMENSIONS: u32 = 4;
const DEFAULT_ALIGNMENT: u64 = 32;
const MAX_ALIGNMENT: u64 = 1 << 16;

/// One metadata value. Numbers are widened; a decimal of four bytes becomes the double with the same shortest text.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Unsigned(u64),
    Signed(i64),
    Decimal(f64),
    Flag(bool),
    Text(String),
    Texts(Vec<String>),
    Integers(Vec<i64>),
    Skipped,
}

/// Where a tensor lies and how it is stored.
#[derive(Debug, Clone)]
pub(super) struct TensorPlace {
    /// Shape, outermost dimension first: the order of Hugging Face, the reverse of the file's.
    pub(super) shape: Vec<usize>,
    /// Type of its blocks.
    pub(super) block_type: GgmlDType,
    /// First byte in the file.
    pub(super) start: u64,
    /// Bytes it takes.
    pub(super) num_bytes: u64,
}

/// What the header says.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) version: u32,
    metadata: BTreeMap<String, Value>,
    pub(super) tensors: BTreeMap<String, TensorPlace>,
}

impl Header {
    /// Reads the header of a file of `file_bytes` bytes.
    pub(super) fn read(file: &mut File, file_bytes: u64) -> std::io::Result<Result<Self, String>> {
        let mut bytes = Vec::with_capacity(file_bytes.min(MAX_HEADER_BYTES) as usize);
        file.by_ref().take(MAX_HEADER_BYTES).read_to_end(&mut bytes)?;
        Ok(Self::parse(&bytes, file_bytes))
    }

    fn parse(bytes: &[u8], file_bytes: u64) -> Result<Self, String> {
        let mut cursor = Cursor { bytes, position: 0, file_bytes };
        let magic = cursor.take(4, "the magic number")?;
        if magic != b"GGUF" {
            return Err("the magic number is missing: the file does not begin with `GGUF`".to_owned());
        }
        let version = cursor.u32("the version")?;
        if version.swap_bytes() == 2 || version.swap_bytes() == 3 {
            return Err("the version says that the file is big-endian, only little-endian files are read".to_owned());
        }
        if version != 2 && version != 3 {
            return Err(format!("the version is {version}, versions 2 and 3 are read"));
        }
        // A tensor takes at least a name of no bytes, one dimension, a type and an offset; a metadata entry a key, a type and one byte.
        let num_tensors = cursor.count("the tensor count", MAX_ENTRIES, 8 + 4 + 8 + 4 + 8)?;
        let num_metadata = cursor.count("the metadata count", MAX_ENTRIES, 8 + 4 + 1)?;
        let mut metadata = BTreeMap::new();
        for index in 0..num_metadata {
            let key = cursor.text(&format!("metadata key {index}"), MAX_NAME_BYTES)?;
            let kind = cursor.u32(&format!("the type of metadata `{key}`"))?;
            let value = cursor.value(&format!("metadata `{key}`"), kind)?;
            if metadata.insert(key.clone(), value).is_some() {
                return Err(format!("metadata `{key}` stands there twice"));
            }
        }
        let mut listed = Vec::new();
        for index in 0..num_tensors {
            listed.push(cursor.tensor(index)?);
        }
        let header = Self { version, metadata, tensors: BTreeMap::new() };
        let alignment = header.unsigned("general.alignment")?.unwrap_or(DEFAULT_ALIGNMENT);
        if !alignment.is_power_of_two() || alignment > MAX_ALIGNMENT {
            return Err(format!("metadata `general.alignment` is {alignment}, expected a power of two up to {MAX_ALIGNMENT}"));
        }
        let data_start = (cursor.position as u64).next_multiple_of(alignment);
        let tensors = place_tensors(listed, data_start, alignment, file_bytes)?;
        Ok(Self { tensors, ..header })
    }

    /// A whole number that is not negative.
    pub(super) fn unsigned(&self, key: &str) -> Result<Option<u64>, String> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Unsigned(number)) => Ok(Some(*number)),
            Some(Value::Signed(number)) if *number >= 0 => Ok(Some(number.unsigned_abs())),
            Some(other) => Err(wrong_kind(key, other, "a whole number")),
        }
    }

    /// A number.
    pub(super) fn decimal(&self, key: &str) -> Result<Option<f64>, String> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Decimal(number)) if number.is_finite() => Ok(Some(*number)),
            Some(Value::Decimal(number)) => Err(format!("metadata `{key}` is {number}, expected a finite number")),
            Some(Value::Unsigned(number)) => Ok(Some(*number as f64)),
            Some(Value::Signed(number)) => Ok(Some(*number as f64)),
            Some(other) => Err(wrong_kind(key, other, "a number")),
        }
    }

    /// A truth value.
    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, String> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Flag(flag)) => Ok(Some(*flag)),
            Some(other) => Err(wrong_kind(key, other, "true or false")),
        }
    }

    /// A text.
    pub(super) fn text(&self, key: &str) -> Result<Option<&str>, String> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(other) => Err(wrong_kind(key, other, "a text")),
        }
    }

    /// An array of texts, taken out of the header.
    pub(super) fn take_texts(&mut self, key: &str) -> Result<Option<Vec<String>>, String> {
        match self.metadata.remove(key) {
            None => Ok(None),
            Some(Value::Texts(texts)) => Ok(Some(texts)),
            Some(other) => Err(wrong_kind(key, &other, "an array of texts")),
        }
    }

    /// An array of whole numbers, taken out of the header.
    pub(super) fn take_integers(&mut self, key: &str) -> Result<Option<Vec<i64>>, String> {
        match self.metadata.remove(key) {
            None => Ok(None),
            Some(Value::Integers(numbers)) => Ok(Some(numbers)),
            Some(other) => Err(wrong_kind(key, &other, "an array of whole numbers")),
        }
    }

    /// The entry of a key that must be there.
    pub(super) fn require<T>(found: Option<T>, key: &str) -> Result<T, String> {
        found.ok_or_else(|| format!("metadata `{key}` is missing"))
    }
}

fn wrong_kind(key: &str, value: &Value, expected: &str) -> String {
    let found = match value {
        Value::Unsigned(_) | Value::Signed(_) => "a whole number",
        Value::Decimal(_) => "a decimal",
        Value::Flag(_) => "true or false",
        Value::Text(_) => "a text",
        Value::Texts(_) => "an array of texts",
        Value::Integers(_) => "an array of whole numbers",
        Value::Skipped => "an array",
    };
    format!("metadata `{key}` is {found}, expected {expected}")
}

/// A tensor as listed: its offset counts from the start of the data.
struct ListedTensor {
    name: String,
    shape: Vec<usize>,
    block_type: GgmlDType,
    offset: u64,
    num_bytes: u64,
}

/// Turns offsets into places in the file, all of them within it and none on another.
fn place_tensors(
    listed: Vec<ListedTensor>,
    data_start: u64,
    alignment: u64,
    file_bytes: u64,
) -> Result<BTreeMap<String, TensorPlace>, String> {
    let mut tensors = BTreeMap::new();
    for ListedTensor { name, shape, block_type, offset, num_bytes } in listed {
        if !offset.is_multiple_of(alignment) {
            return Err(format!("the offset of tensor `{name}` is {offset}, no multiple of the alignment {alignment}"));
        }
        let start = data_start.saturating_add(offset);
        if start.saturating_add(num_bytes) > file_bytes {
            return Err(format!(
                "tensor `{name}` takes {num_bytes} bytes at byte {start}, but the file has only {file_bytes} bytes"
            ));
        }
        if tensors.insert(name.clone(), TensorPlace { shape, block_type, start, num_bytes }).is_some() {
            return Err(format!("tensor `{name}` stands there twice"));
        }
    }
    let mut by_start: Vec<(&String, &TensorPlace)> = tensors.iter().collect();
    by_start.sort_by_key(|(_, place)| place.start);
    for pair in by_start.windows(2) {
        let [(first_name, first), (second_name, second)] = pair else { continue };
        if first.start + first.num_bytes > second.start {
            return Err(format!("tensors `{first_name}` and `{second_name}` overlap at byte {}", second.start));
        }
    }
    Ok(tensors)
}

/// A place in the header's bytes.
struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
    file_bytes: u64,
}

impl<'a> Cursor<'a> {
    fn remaining(&self) -> u64 {
        (self.bytes.len() - self.position) as u64
    }

    fn take(&mut self, num_bytes: u64, field: &str) -> Result<&'a [u8], String> {
        let remaining = self.remaining();
        if num_bytes > remaining {
            return Err(self.too_long(num_bytes, field));
        }
        let start = self.position;
        self.position += num_bytes as usize;
        Ok(&self.bytes[start..self.position])
    }

    fn too_long(&self, num_bytes: u64, field: &str) -> String {
        let (position, remaining) = (self.position, self.remaining());
        if (self.bytes.len() as u64) < self.file_bytes {
            return format!(
                "{field} takes {num_bytes} bytes at byte {position}, but a header may have no more than {MAX_HEADER_BYTES}"
            );
        }
        format!("{field} takes {num_bytes} bytes at byte {position}, where only {remaining} are left")
    }

    fn array<const N: usize>(&mut self, field: &str) -> Result<[u8; N], String> {
        let bytes = self.take(N as u64, field)?;
        Ok(bytes.try_into().expect("as many bytes were taken as the array has"))
    }

    fn u32(&mut self, field: &str) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.array(field)?))
    }

    fn u64(&mut self, field: &str) -> Result<u64, String> {
        Ok(u64::from_le_bytes(self.array(field)?))
    }

    /// A number of things, each of which takes at least `min_bytes` of the bytes that are left.
    fn count(&mut self, field: &str, limit: u64, min_bytes: u64) -> Result<u64, String> {
        let count = self.u64(field)?;
        if count > limit {
            return Err(format!("{field} is {count}, at most {limit} are read"));
        }
        let needed = count * min_bytes;
        if needed > self.remaining() {
            return Err(self.too_long(needed, &format!("{field} is {count}: that")));
        }
        Ok(count)
    }

    fn text(&mut self, field: &str, max_bytes: u64) -> Result<String, String> {
        let num_bytes = self.u64(field)?;
        if num_bytes > max_bytes {
            return Err(format!("{field} has {num_bytes} bytes, at most {max_bytes} are read"));
        }
        let bytes = self.take(num_bytes, field)?;
        let text = std::str::from_utf8(bytes).map_err(|_| format!("{field} is no UTF-8 text"))?;
        Ok(text.to_owned())
    }

    fn value(&mut self, field: &str, kind: u32) -> Result<Value, String> {
        Ok(match kind {
            0 | 2 | 4 | 10 => Value::Unsigned(self.integer(field, kind)? as u64),
            1 | 3 | 5 | 11 => Value::Signed(self.integer(field, kind)?),
            6 => Value::Decimal(shortest(f32::from_le_bytes(self.array(field)?))),
            7 => match self.array::<1>(field)? {
                [0] => Value::Flag(false),
                [1] => Value::Flag(true),
                [other] => return Err(format!("{field} is {other}, expected 0 or 1 for a truth value")),
            },
            8 => Value::Text(self.text(field, MAX_HEADER_BYTES)?),
            9 => self.items(field)?,
            12 => Value::Decimal(f64::from_le_bytes(self.array(field)?)),
            other => return Err(format!("{field} has type {other}, which the format does not know")),
        })
    }

    /// A whole number; those of eight bytes without a sign keep their bits.
    fn integer(&mut self, field: &str, kind: u32) -> Result<i64, String> {
        Ok(match kind {
            0 => i64::from(u8::from_le_bytes(self.array(field)?)),
            1 => i64::from(i8::from_le_bytes(self.array(field)?)),
            2 => i64::from(u16::from_le_bytes(self.array(field)?)),
            3 => i64::from(i16::from_le_bytes(self.array(field)?)),
            4 => i64::from(u32::from_le_bytes(self.array(field)?)),
            5 => i64::from(i32::from_le_bytes(self.array(field)?)),
            _ => i64::from_le_bytes(self.array(field)?),
        })
    }

    fn items(&mut self, field: &str) -> Result<Value, String> {
        let kind = self.u32(&format!("the item type of {field}"))?;
        let count_field = format!("the item count of {field}");
        let min_bytes = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            8 | 10..=12 => 8,
            9 => return Err(format!("{field} is an array of arrays, which nothing here needs")),
            other => return Err(format!("{field} has items of type {other}, which the format does not know")),
        };
        let count = self.count(&count_field, MAX_ITEMS, min_bytes)?;
        if matches!(kind, 6 | 7 | 12) {
            self.take(count * min_bytes, field)?;
            return Ok(Value::Skipped);
        }
        if kind == 8 {
            let texts: Result<Vec<String>, String> = (0..count).map(|_| self.text(field, MAX_HEADER_BYTES)).collect();
            return Ok(Value::Texts(texts?));
        }
        let numbers: Result<Vec<i64>, String> = (0..count).map(|_| self.integer(field, kind)).collect();
        Ok(Value::Integers(numbers?))
    }

    fn tensor(&mut self, index: u64) -> Result<ListedTensor, String> {
        let name = self.text(&format!("the name of tensor {index}"), MAX_NAME_BYTES)?;
        let num_dimensions = self.u32(&format!("the number of dimensions of tensor `{name}`"))?;
        if num_dimensions == 0 || num_dimensions > MAX_DIMENSIONS {
            return Err(format!("tensor `{name}` has {num_dimensions} dimensions, expected 1 to {MAX_DIMENSIONS}"));
        }
        let mut shape = Vec::new();
        for _ in 0..num_dimensions {
            shape.push(self.u64(&format!("a dimension of tensor `{name}`"))?);
        }
        let number = self.u32(&format!("the type of tensor `{name}`"))?;
        let block_type = block_type(number).map_err(|problem| format!("tensor `{name}` has {problem}"))?;
        let offset = self.u64(&format!("the offset of tensor `{name}`"))?;
        let num_values = shape.iter().try_fold(1u64, |product, size| product.checked_mul(*size)).filter(|values| *values > 0);
        let num_values = num_values.ok_or_else(|| format!("tensor `{name}` has the impossible shape {shape:?}"))?;
        let (block_values, block_bytes) = (block_type.block_size() as u64, block_type.type_size() as u64);
        if !shape[0].is_multiple_of(block_values) {
            let width = shape[0];
            return Err(format!(
                "the rows of tensor `{name}` have {width} values, no multiple of the {block_values} of its blocks"
            ));
        }
        let num_bytes = (num_values / block_values).checked_mul(block_bytes).filter(|bytes| *bytes <= self.file_bytes);
        let num_bytes = num_bytes.ok_or_else(|| {
            format!("tensor `{name}` of shape {shape:?} takes more bytes than the {} that the file has", self.file_bytes)
        })?;
        // No size is larger than the number of values, which is no larger than thirty-two times the file.
        let shape = shape.into_iter().rev().map(|size| size as usize).collect();
        Ok(ListedTensor { name, shape, block_type, offset, num_bytes })
    }
}

/// The double whose shortest text is that of a single: 1e-5 stays 1e-5.
fn shortest(number: f32) -> f64 {
    number.to_string().parse().unwrap_or_else(|_| f64::from(number))
}

/// The number of each block type in files, as in `ggml.h`, and candle's word for it.
const BLOCK_TYPES: [(u32, GgmlDType); 15] = [
    (0, GgmlDType::F32),
    (1, GgmlDType::F16),
    (2, GgmlDType::Q4_0),
    (3, GgmlDType::Q4_1),
    (6, GgmlDType::Q5_0),
    (7, GgmlDType::Q5_1),
    (8, GgmlDType::Q8_0),
    (9, GgmlDType::Q8_1),
    (10, GgmlDType::Q2K),
    (11, GgmlDType::Q3K),
    (12, GgmlDType::Q4K),
    (13, GgmlDType::Q5K),
    (14, GgmlDType::Q6K),
    (15, GgmlDType::Q8K),
    (30, GgmlDType::BF16),
];

/// Types that exist and are not read, so that the error can name them.
const OTHER_TYPES: [(u32, &str); 17] = [
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
];

fn block_type(number: u32) -> Result<GgmlDType, String> {
    if let Some((_, block_type)) = BLOCK_TYPES.iter().find(|(known, _)| *known == number) {
        return Ok(*block_type);
    }
    let name = OTHER_TYPES.iter().find(|(known, _)| *known == number).map_or("unknown", |(_, name)| name);
    Err(format!("type {number} ({name}), which is not read"))
}
