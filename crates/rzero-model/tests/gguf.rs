//! GGUF files, built here byte by byte, and what their import gives: every value, every file of the folder; and broken files.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

#[path = "support/gguf_file.rs"]
mod gguf_file;

use gguf_file::{Entry, Expected, GgufFile, Stored, decimal, encode, flag, id, integers, model, number, text, texts};
use proptest::prelude::*;
use rzero_model::ModelError;
use rzero_model::gguf::Gguf;
use rzero_model::tokenizer::Tokenizer;
use rzero_schema::vocab::FloatType;
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;
use serde_json::{Value, json};
use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Remembers the largest piece of memory that was ever asked for.
struct Watched;

static LARGEST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it came.
#[expect(unsafe_code, reason = "an allocator is unsafe to implement")]
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from `alloc` or `realloc` above with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        LARGEST.fetch_max(new_size, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Watched = Watched;

/// Far more than a file of some ten thousand bytes may ask for at once, however it lies.
const MAX_ALLOCATION: usize = 16 << 20;

fn open(bytes: &[u8]) -> Result<Gguf, ModelError> {
    let file = tempfile::Builder::new().suffix(".gguf").tempfile().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    // An open file outlives its name.
    Gguf::open(file.path())
}

fn weights(gguf: &mut Gguf, dtype: FloatType) -> Result<Vec<u8>, ModelError> {
    let mut bytes = Vec::new();
    gguf.write_safetensors(dtype, |piece| {
        bytes.extend_from_slice(piece);
        Ok::<(), ModelError>(())
    })?;
    Ok(bytes)
}

fn tokenizer(gguf: &Gguf) -> Tokenizer {
    Tokenizer::from_json(&gguf.tokenizer_json().unwrap(), "tokenizer.json".into()).unwrap()
}

fn assert_weights(bytes: &[u8], expected: &Expected) {
    let tensors = SafeTensors::deserialize(bytes).unwrap();
    assert_eq!(tensors.names().len(), expected.len());
    for (name, (shape, values)) in expected {
        let tensor = tensors.tensor(name).unwrap();
        assert_eq!((tensor.dtype(), tensor.shape()), (Dtype::F32, shape.as_slice()), "{name}");
        let found: Vec<f32> = tensor.data().as_chunks::<4>().0.iter().map(|raw| f32::from_le_bytes(*raw)).collect();
        assert!(found == *values, "{name}");
    }
}

#[test]
fn every_value_of_every_family_arrives_under_its_name_and_in_its_place() {
    for (architecture, class) in [("llama", "LlamaForCausalLM"), ("qwen2", "Qwen2ForCausalLM"), ("qwen3", "Qwen3ForCausalLM")] {
        for version in [2, 3] {
            let (mut file, expected) = model(architecture, "smollm");
            file.version = version;
            let mut gguf = open(&file.bytes()).unwrap();
            assert_weights(&weights(&mut gguf, FloatType::F32).unwrap(), &expected);
            let num_parameters: usize = expected.values().map(|(_, values)| values.len()).sum();
            assert_eq!((gguf.num_parameters(), gguf.version()), (num_parameters as u64, version));
            let config = gguf.config_json(FloatType::F32);
            assert_eq!(config["architectures"], json!([class]));
            assert_eq!(config["tie_word_embeddings"], json!(architecture != "qwen2"));
            assert_eq!(config["head_dim"], json!(if architecture == "qwen3" { 16 } else { 8 }));
        }
    }
}

#[test]
fn half_precision_keeps_what_it_can_and_refuses_what_it_cannot() {
    let (mut file, expected) = model("llama", "smollm");
    let mut gguf = open(&file.bytes()).unwrap();
    for (dtype, stored) in [(FloatType::Bf16, Dtype::BF16), (FloatType::F16, Dtype::F16)] {
        let bytes = weights(&mut gguf, dtype).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        for (name, (_, values)) in &expected {
            let tensor = tensors.tensor(name).unwrap();
            assert_eq!(tensor.dtype(), stored);
            for (raw, value) in tensor.data().as_chunks::<2>().0.iter().zip(values) {
                let found = if stored == Dtype::BF16 {
                    half::bf16::from_le_bytes(*raw).to_f32()
                } else {
                    half::f16::from_le_bytes(*raw).to_f32()
                };
                assert_eq!(found, *value, "{name}");
            }
        }
    }
    file.tensor("output_norm.weight").data[..4].copy_from_slice(&1e5f32.to_le_bytes());
    let mut gguf = open(&file.bytes()).unwrap();
    assert!(weights(&mut gguf, FloatType::Bf16).is_ok());
    let error = weights(&mut gguf, FloatType::F16).unwrap_err().to_string();
    assert!(error.contains("`output_norm.weight` holds a value too large for float16"), "{error}");
}

#[test]
fn the_small_files_say_what_the_metadata_says() {
    let (mut file, _) = model("llama", "smollm");
    file.set("tokenizer.ggml.eot_token_id", number(0));
    file.set("tokenizer.ggml.unknown_token_id", number(0));
    let gguf = open(&file.bytes()).unwrap();
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 32, "intermediate_size": 64,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 267,
        "hidden_act": "silu", "rms_norm_eps": 1e-5, "rope_theta": 100_000.0, "rope_scaling": null, "max_position_embeddings": 128,
        "tie_word_embeddings": true, "attention_bias": false, "torch_dtype": "bfloat16", "mlp_bias": false,
        "bos_token_id": 1, "eos_token_id": [2, 0], "pad_token_id": 2,
    });
    assert_eq!(gguf.config_json(FloatType::Bf16), config);
    assert_eq!(gguf.generation_config_json(), json!({"bos_token_id": 1, "eos_token_id": [2, 0], "pad_token_id": 2}));
    let tokenizer_config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 128, "add_prefix_space": false,
        "clean_up_tokenization_spaces": false, "add_bos_token": false, "add_eos_token": false,
        "bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>", "unk_token": "<|endoftext|>",
        "chat_template": "{{ messages[0].content }}",
    });
    assert_eq!(gguf.tokenizer_config_json(), tokenizer_config);
    assert_eq!(gguf.text("general.name"), Some("Tiny"));
    let counts: Vec<(String, u64)> = gguf.type_counts().into_iter().collect();
    assert_eq!(counts, [("F16".to_owned(), 2), ("F32".to_owned(), 7), ("Q4_1".to_owned(), 6), ("Q8_0".to_owned(), 5)]);
}

#[test]
fn text_becomes_the_tokens_of_the_vocabulary_and_text_again() {
    let gguf = open(&model("llama", "smollm").0.bytes()).unwrap();
    let tokenizer = tokenizer(&gguf);
    // No space is put before the text.
    assert_eq!(tokenizer.encode("Hello").unwrap(), [id("Hello")]);
    let chat = "<|im_start|>Hello Hé12<tool>\n<|im_end|>";
    let tokens = tokenizer.encode(chat).unwrap();
    let expected = ["<|im_start|>", "Hello", "\u{120}H", "\u{c3}", "\u{a9}", "1", "2", "<tool>", "\u{10a}", "<|im_end|>"].map(id);
    assert_eq!(tokens, expected);
    assert_eq!(tokenizer.decode(&tokens).text, chat);
    // Control tokens are special, user-defined ones are not.
    assert!(tokenizer.holds_special_token("<|endoftext|>") && !tokenizer.holds_special_token("<tool> [PAD]"));
    for byte in 0..=255u8 {
        let token = id(&gguf_file::letter(byte).to_string());
        assert_eq!(tokenizer.decode(&[token]).is_valid_utf8, byte < 128);
    }
}

#[test]
fn each_name_of_a_rule_cuts_text_as_that_rule_does() {
    let digits_apart = vec![id("1"), id("2")];
    let digits_together = vec![id("12")];
    for (pre, expected) in [
        ("smollm", &digits_apart),
        ("qwen2", &digits_apart),
        ("deepseek-r1-qwen", &digits_apart),
        ("gpt-2", &digits_together),
        ("llama-bpe", &digits_together),
        ("llama3", &digits_together),
        ("default", &digits_together),
    ] {
        let tokenizer = tokenizer(&open(&model("llama", pre).0.bytes()).unwrap());
        assert_eq!(tokenizer.encode("12").unwrap(), *expected, "{pre}");
        let text = "Hello Hell'S  x\n\n!?12 é";
        assert_eq!(tokenizer.decode(&tokenizer.encode(text).unwrap()).text, text, "{pre}");
    }
    // Composed first: e and an accent are one character to qwen2, and two to the others.
    let encode = |pre: &str| tokenizer(&open(&model("qwen2", pre).0.bytes()).unwrap()).encode("e\u{301}").unwrap();
    assert_eq!(encode("qwen2"), [id("\u{c3}"), id("\u{a9}")]);
    assert_eq!(encode("gpt-2").len(), 3);
}

#[test]
fn a_text_begins_with_the_first_token_only_where_the_file_says_so() {
    let post_processor = |file: &GgufFile| -> Value {
        let text = open(&file.bytes()).unwrap().tokenizer_json().unwrap();
        serde_json::from_str::<Value>(&text).unwrap()["post_processor"].clone()
    };
    let (mut file, _) = model("llama", "llama-bpe");
    assert!(post_processor(&file).is_null());
    // Left out, this rule's default is yes.
    file.remove("tokenizer.ggml.add_bos_token");
    assert_eq!(post_processor(&file)["single"][0], json!({"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}));
    file.remove("tokenizer.ggml.bos_token_id");
    assert!(open(&file.bytes()).unwrap_err().to_string().contains("`tokenizer.ggml.bos_token_id` is missing"));
}

#[test]
fn rotary_scaling_is_translated_or_refused() {
    let scaling = |changes: &[(&str, Entry)], factors: Option<&[f32]>| -> Result<Value, String> {
        let (mut file, _) = model("llama", "smollm");
        for (name, entry) in changes {
            file.set(&format!("llama.rope.{name}"), entry.clone());
        }
        if let Some(factors) = factors {
            let (kind, data) = encode(factors, Stored::F32);
            let dimensions = vec![factors.len() as u64];
            file.tensors.push(gguf_file::Tensor { name: "rope_freqs.weight".to_owned(), dimensions, kind, offset: None, data });
        }
        let gguf = open(&file.bytes()).map_err(|error| error.to_string())?;
        Ok(gguf.config_json(FloatType::F32)["rope_scaling"].clone())
    };
    let linear = json!({"rope_type": "linear", "type": "linear", "factor": 2.5});
    assert_eq!(scaling(&[("scaling.type", text("none")), ("scaling.factor", decimal(4.0))], None), Ok(Value::Null));
    assert_eq!(scaling(&[("scaling.type", text("linear")), ("scaling.factor", decimal(2.5))], None), Ok(linear.clone()));
    assert_eq!(scaling(&[("scale_linear", decimal(2.5))], None), Ok(linear.clone()));
    assert_eq!(scaling(&[], Some(&[2.5; 4])), Ok(linear));
    assert_eq!(scaling(&[], Some(&[1.0; 4])), Ok(Value::Null));
    let yarn =
        [("scaling.type", text("yarn")), ("scaling.factor", decimal(4.0)), ("scaling.original_context_length", number(32))];
    let translated = scaling(&yarn, None).unwrap();
    assert_eq!((&translated["rope_type"], &translated["factor"]), (&json!("yarn"), &json!(4.0)));
    assert_eq!(translated["original_max_position_embeddings"], json!(32));
    // 0.1 ln 4 + 1
    assert!((translated["attention_factor"].as_f64().unwrap() - 1.138_629_436).abs() < 1e-9);
    for (changes, factors, expected) in [
        (
            vec![("scaling.type", text("longrope")), ("scaling.factor", decimal(4.0))],
            None,
            "`llama.rope.scaling.type` is `longrope`",
        ),
        (vec![("scaling.type", text("yarn"))], None, "`llama.rope.scaling.factor` is missing"),
        ([yarn.to_vec(), vec![("scaling.yarn_log_multiplier", decimal(0.1))]].concat(), None, "yarn_log_multiplier` is 0.1"),
        (vec![("scaling.factor", decimal(-2.0))], None, "scaling.factor` is -2"),
        (vec![], Some(&[1.0, 1.0, 8.0, 8.0][..]), "`rope_freqs.weight` divides each"),
        (vec![], Some(&[f32::NAN; 4][..]), "`rope_freqs.weight` divides each"),
        (vec![], Some(&[1.0; 3][..]), "`rope_freqs.weight` does not have one factor"),
        (vec![("scale_linear", decimal(2.0))], Some(&[2.0; 4][..]), "both scale"),
    ] {
        let error = scaling(&changes, factors).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}

/// Puts bytes in place of others, once.
fn replaced(bytes: &[u8], what: &[u8], with: &[u8]) -> Vec<u8> {
    let place = bytes.windows(what.len()).position(|window| window == what).unwrap();
    [&bytes[..place], with, &bytes[place + what.len()..]].concat()
}

#[test]
fn a_damaged_header_is_refused_by_the_field_that_is_damaged() {
    const HUGE: [u8; 8] = (1u64 << 60).to_le_bytes();
    let good = model("llama", "smollm").0.bytes();
    assert!(open(&good).is_ok());
    let at = |place: usize, with: &[u8]| [&good[..place], with, &good[place + with.len()..]].concat();
    let changed = |change: &dyn Fn(&mut GgufFile)| {
        let mut file = model("llama", "smollm").0;
        change(&mut file);
        file.bytes()
    };
    let with_entry = |kind: u32, bytes: &[u8]| changed(&|file| file.set("general.extra", Entry(kind, bytes.to_vec())));
    let with_tensor = |change: &dyn Fn(&mut gguf_file::Tensor)| changed(&|file| change(file.tensor("blk.1.ffn_up.weight")));
    let items = |kind: u32, count: [u8; 8]| [&kind.to_le_bytes()[..], &count].concat();
    let name = b"general.name";
    let name_bytes = [&(name.len() as u64).to_le_bytes()[..], name].concat();
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (vec![], "the magic number takes 4 bytes"),
        (at(0, b"GGML"), "the magic number is missing"),
        (at(4, &1u32.to_le_bytes()), "the version is 1"),
        (at(4, &3u32.to_be_bytes()), "big-endian"),
        (at(8, &HUGE), "the tensor count is 1152921504606846976, at most"),
        (at(16, &HUGE), "the metadata count is 1152921504606846976, at most"),
        (at(16, &60_000u64.to_le_bytes()), "the metadata count is 60000: that takes"),
        (good[..100].to_vec(), "bytes at byte"),
        (good[..good.len() - 64].to_vec(), "but the file has only"),
        (at(24, &HUGE), "metadata key 0 has 1152921504606846976 bytes"),
        (replaced(&good, &name_bytes, &[&name_bytes[..8], b"general.\xff\xff\xff\xff"].concat()), "metadata key 1 is no UTF-8"),
        (replaced(&good, name, b"general.nam\0"), "ok"),
        (with_entry(8, &HUGE), "metadata `general.extra` has 1152921504606846976 bytes"),
        (with_entry(8, &[2, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]), "metadata `general.extra` is no UTF-8"),
        (with_entry(13, &[0; 8]), "metadata `general.extra` has type 13"),
        (with_entry(7, &[2]), "metadata `general.extra` is 2, expected 0 or 1"),
        (with_entry(9, &items(8, HUGE)), "the item count of metadata `general.extra` is 1152921504606846976"),
        (
            with_entry(9, &items(6, 4_000_000u64.to_le_bytes())),
            "the item count of metadata `general.extra` is 4000000: that takes 16000000",
        ),
        (with_entry(9, &items(9, HUGE)), "metadata `general.extra` is an array of arrays"),
        (with_entry(9, &items(77, [0; 8])), "metadata `general.extra` has items of type 77"),
        (
            changed(&|file| file.metadata.push(("general.name".to_owned(), text("two")))),
            "metadata `general.name` stands there twice",
        ),
        (changed(&|file| file.set("general.alignment", number(24))), "`general.alignment` is 24"),
        (changed(&|file| file.set("general.alignment", text("32"))), "`general.alignment` is a text"),
        (with_tensor(&|tensor| tensor.dimensions = vec![32; 5]), "tensor `blk.1.ffn_up.weight` has 5 dimensions"),
        (with_tensor(&|tensor| tensor.dimensions.clear()), "tensor `blk.1.ffn_up.weight` has 0 dimensions"),
        (with_tensor(&|tensor| tensor.dimensions[1] = 0), "`blk.1.ffn_up.weight` has the impossible shape"),
        (with_tensor(&|tensor| tensor.dimensions = vec![1 << 32; 3]), "`blk.1.ffn_up.weight` has the impossible shape"),
        (
            with_tensor(&|tensor| tensor.dimensions[1] = 1 << 40),
            "`blk.1.ffn_up.weight` of shape [32, 1099511627776] takes more bytes",
        ),
        (with_tensor(&|tensor| tensor.dimensions = vec![16, 128]), "the rows of tensor `blk.1.ffn_up.weight` have 16 values"),
        (with_tensor(&|tensor| tensor.kind = 20), "`blk.1.ffn_up.weight` has type 20 (IQ4_NL)"),
        (with_tensor(&|tensor| tensor.kind = 4), "`blk.1.ffn_up.weight` has type 4 (unknown)"),
        (with_tensor(&|tensor| tensor.offset = Some(33)), "the offset of tensor `blk.1.ffn_up.weight` is 33"),
        (with_tensor(&|tensor| tensor.offset = Some(u64::MAX - 31)), "tensor `blk.1.ffn_up.weight` takes"),
        (with_tensor(&|tensor| tensor.offset = Some(1 << 40)), "but the file has only"),
        (with_tensor(&|tensor| tensor.offset = Some(0)), "overlap"),
        (with_tensor(&|tensor| tensor.name = "output_norm.weight".to_owned()), "tensor `output_norm.weight` stands there twice"),
    ];
    for (bytes, expected) in cases {
        match open(&bytes) {
            Ok(_) => assert_eq!(expected, "ok"),
            Err(error) => {
                assert!(error.to_string().contains(expected) && error.to_string().contains(".gguf"), "{expected}: {error}")
            }
        }
    }
    assert!(LARGEST.load(Ordering::Relaxed) < MAX_ALLOCATION, "{LARGEST:?}");
}

#[test]
fn what_is_not_served_or_does_not_fit_is_named() {
    type Change = fn(&mut GgufFile);
    let cases: [(Change, &str); 30] = [
        (|file| file.remove("general.architecture"), "`general.architecture` is missing"),
        (|file| file.set("general.architecture", text("mamba")), "architecture `mamba` is not supported"),
        (|file| file.set("split.count", number(3)), "`split.count` is 3"),
        (|file| file.remove("llama.block_count"), "`llama.block_count` is missing"),
        (|file| file.set("llama.block_count", number(0)), "`llama.block_count` is 0"),
        (|file| file.set("llama.block_count", number(3)), "tensor `blk.2.attn_norm.weight` is missing"),
        (|file| file.set("llama.block_count", number(1)), "tensor `blk.1.attn_k.weight` has no place"),
        (
            |file| file.set("llama.embedding_length", number(64)),
            "tensor `token_embd.weight` has shape [267, 32], expected [267, 64]",
        ),
        (|file| file.set("llama.attention.head_count", text("4")), "`llama.attention.head_count` is a text"),
        (|file| file.set("llama.attention.head_count_kv", number(3)), "cannot share 3"),
        (|file| file.set("llama.attention.key_length", number(7)), "the width of a head is 7"),
        (|file| file.set("llama.attention.value_length", number(4)), "`llama.attention.value_length` is 4"),
        (|file| file.set("llama.attention.layer_norm_rms_epsilon", decimal(0.0)), "rms_epsilon` is 0, expected more"),
        (|file| file.set("llama.rope.freq_base", decimal(f32::NAN)), "`llama.rope.freq_base` is NaN"),
        (|file| file.set("llama.rope.dimension_count", number(4)), "`llama.rope.dimension_count` is 4"),
        (|file| file.set("llama.expert_count", number(8)), "`llama.expert_count` is 8"),
        (|file| file.set("llama.attention.sliding_window", number(64)), "`llama.attention.sliding_window` is 64"),
        (|file| file.set("llama.attention.scale", decimal(0.5)), "`llama.attention.scale` is 0.5"),
        (|file| file.set("llama.attention.causal", flag(false)), "`llama.attention.causal` is false"),
        (|file| drop(file.tensors.remove(0)), "tensor `token_embd.weight` is missing"),
        (|file| file.tensor("blk.0.attn_v.weight").name = "blk.0.attn_q.bias".to_owned(), "`blk.0.attn_v.weight` is missing"),
        (|file| file.set("tokenizer.ggml.model", text("llama")), "`tokenizer.ggml.model` is `llama`"),
        (|file| file.set("tokenizer.ggml.pre", text("bloom")), "`tokenizer.ggml.pre` is `bloom`"),
        (|file| file.remove("tokenizer.ggml.pre"), "`tokenizer.ggml.pre` is missing"),
        (|file| file.set("tokenizer.ggml.tokens", integers(&[1])), "`tokenizer.ggml.tokens` is an array of whole numbers"),
        (|file| file.set("tokenizer.ggml.token_type", integers(&[1])), "has 1 items for 267 tokens"),
        (|file| file.set("tokenizer.ggml.token_type", integers(&[6; 267])), "has type 6 for token 0"),
        (|file| file.set("tokenizer.ggml.tokens", texts(&vec!["a".to_owned(); 267])), "the text of token 1 twice"),
        (|file| file.set("tokenizer.ggml.merges", texts(&["H e".to_owned(), "He x".to_owned()])), "has entry 1"),
        (|file| file.set("tokenizer.ggml.eos_token_id", number(267)), "`tokenizer.ggml.eos_token_id` is 267, outside"),
    ];
    for (change, expected) in cases {
        let mut file = model("llama", "smollm").0;
        change(&mut file);
        let error = open(&file.bytes()).expect_err(expected).to_string();
        assert!(error.contains(expected) && error.contains(".gguf"), "{expected}: {error}");
    }
    // A value is seen only when it is read.
    let mut file = model("llama", "smollm").0;
    file.tensor("blk.1.ffn_norm.weight").data[4..8].copy_from_slice(&f32::INFINITY.to_le_bytes());
    let error = weights(&mut open(&file.bytes()).unwrap(), FloatType::F32).unwrap_err().to_string();
    assert!(error.contains("tensor `blk.1.ffn_norm.weight` holds a value that is not finite"), "{error}");
    let error = Gguf::open(Path::new("/nowhere/model.gguf")).unwrap_err().to_string();
    assert!(error.contains("/nowhere/model.gguf"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn no_damage_leads_to_a_panic_or_to_much_memory(
        is_qwen in any::<bool>(),
        flips in proptest::collection::vec((0.0..1.0f64, any::<u8>()), 0..6),
        words in proptest::collection::vec((0.0..1.0f64, prop_oneof![any::<u64>(), 0..64u64, Just(1 << 60), Just(u64::MAX)]), 0..3),
        kept in prop_oneof![3 => Just(1.0), 1 => 0.0..1.0f64],
    ) {
        let mut bytes = model(if is_qwen { "qwen3" } else { "llama" }, "smollm").0.bytes();
        // Most damage is done where the header is, which ends where the zeros before the data are.
        let place = |share: f64, length: usize| (share * share * length as f64) as usize;
        for (share, byte) in flips {
            let at = place(share, bytes.len() - 1);
            bytes[at] = byte;
        }
        for (share, word) in words {
            let at = place(share, bytes.len() - 8);
            bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }
        bytes.truncate((kept * bytes.len() as f64) as usize);
        if let Ok(mut gguf) = open(&bytes) {
            // A file that still opens gives tensors of finite numbers or an error, and a tokenizer that loads or an error.
            if let Ok(written) = weights(&mut gguf, FloatType::F16) {
                prop_assert!(SafeTensors::deserialize(&written).is_ok());
            }
            let _ = gguf.tokenizer_json();
            let _ = (gguf.config_json(FloatType::F32), gguf.tokenizer_config_json(), gguf.generation_config_json());
        }
        prop_assert!(LARGEST.load(Ordering::Relaxed) < MAX_ALLOCATION, "{LARGEST:?}");
    }
}
